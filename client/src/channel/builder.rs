//! From a target to a channel: the bootstrap, the ADS client, and what else may be chosen.

use std::sync::Arc;

use rand::RngExt as _;

use super::{Channel, Hedge, Options, Subset};
use crate::ads::XdsClient;
use crate::balancer::Chosen;
use crate::connection::{Dial, Tls};
use crate::xds::bootstrap::{Bootstrap, BootstrapError};
use crate::xds::target::{Target, TargetError};

/// Why a channel cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The bootstrap.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// A channel in the making: see [`Channel::builder`].
#[derive(Debug)]
pub struct Builder {
    target: String,
    xds: Option<XdsClient>,
    bootstrap: Option<Bootstrap>,
    options: Options,
}

impl Builder {
    pub(super) fn new(target: &str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the seed of whoever hands in none")]
        let seed = rand::rng().random();
        Self { target: target.to_owned(), xds: None, bootstrap: None, options: Options::new(seed) }
    }

    /// This bootstrap, rather than the environment's.
    #[must_use]
    pub fn bootstrap(mut self, bootstrap: Bootstrap) -> Self {
        self.bootstrap = Some(bootstrap);
        self
    }

    /// This ADS client, with its stream and its load reports; no bootstrap is needed then. Without it, the channels of a
    /// process that have the same bootstrap share one.
    #[must_use]
    pub fn xds(mut self, client: &XdsClient) -> Self {
        self.xds = Some(client.clone());
        self
    }

    /// The start of all random choices of this channel, so that they can be repeated.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// How an endpoint of a locality is chosen, whatever the control plane says. Without this, its word counts, then the
    /// default: the least busy of a few.
    #[must_use]
    pub fn strategy(mut self, strategy: impl Into<Chosen>) -> Self {
        self.options.strategies = strategy.into().into();
        self
    }

    /// A strategy that the control plane may choose by this name; `make` is called for each cluster that gets it.
    #[must_use]
    pub fn register(mut self, name: &str, make: impl Fn() -> Chosen + Send + Sync + 'static) -> Self {
        self.options.strategies.register(name, make);
        self
    }

    /// Connects to this part of each large locality alone; to all endpoints unless said otherwise.
    #[must_use]
    pub fn subset(mut self, subset: Subset) -> Self {
        self.options.subset = Some(subset);
        self
    }

    /// Whether calls get a second attempt when the first takes long, unless their
    /// [`RequestHints`](super::RequestHints) say otherwise. Only for services all of whose methods may be called twice.
    #[must_use]
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.options.hedge = hedge;
        self
    }

    /// Where connections to endpoints come from; TCP unless said otherwise.
    #[must_use]
    pub fn dial(mut self, dial: Arc<dyn Dial>) -> Self {
        self.options.dial = dial;
        self
    }

    /// TLS to endpoints, over the connections of [`Builder::dial`]; plain text unless said otherwise.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.options.tls = Some(tls);
        self
    }

    /// The channel. It resolves and connects at once, in the background; must be called within a tokio runtime.
    ///
    /// # Errors
    /// The target is not one, or the bootstrap is missing or wrong.
    pub fn build(self) -> Result<Channel, ConnectError> {
        self.build_in(|name| std::env::var(name).ok())
    }

    /// The same in an environment that is handed in: `variable` looks up one of its variables.
    pub(super) fn build_in(self, variable: impl Fn(&str) -> Option<String>) -> Result<Channel, ConnectError> {
        let target: Target = self.target.parse()?;
        let client = match (self.xds, self.bootstrap) {
            (Some(client), _) => client,
            (None, Some(bootstrap)) => XdsClient::shared(bootstrap),
            (None, None) => {
                XdsClient::shared(Bootstrap::from_environment(variable, |path| std::fs::read_to_string(path))?)
            }
        };
        let options = Options { load: client.load().clone(), ..self.options };
        Ok(Channel::over(target.name(), client.watch(target.clone()), options))
    }
}
