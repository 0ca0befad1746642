//! The commands that only read, and what each shows.

use anyhow::Context as _;
use clap::Args;
use portolan_topology::policy::Scope;
use serde::de::DeserializeOwned;

use super::ask::{At, Parameters};
use super::format::{self, Format, Output};
use super::{Failure, output, render};
use crate::admin::model::{Clients, ClusterExplained, Endpoints, Explained, Services, Status};

#[derive(Debug, Args)]
pub(super) struct Read {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    output: Output,
}

impl Read {
    /// Asks, and prints the answer; `table` is told whether it may be wide.
    fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: Parameters,
        table: fn(&T, bool) -> String,
    ) -> Result<(), Failure> {
        let answer = self.at.get(path, parameters)?;
        let read = |answer| {
            let unexpected = || format!("{}: this version of portolan does not understand the answer", self.at);
            serde_json::from_value(answer).with_context(unexpected)
        };
        output::print(&match self.output.format {
            Format::Json => format::json(&answer),
            Format::Yaml => format::yaml(&answer)?,
            Format::Table => table(&read(answer)?, false),
            Format::Wide => table(&read(answer)?, true),
        });
        Ok(())
    }

    pub(super) fn status(&self) -> Result<(), Failure> {
        self.show::<Status>("/api/v1/status", Parameters::default(), render::status)
    }

    pub(super) fn clients(&self) -> Result<(), Failure> {
        self.show::<Clients>("/api/v1/clients", Parameters::default(), render::clients)
    }

    pub(super) fn services(&self) -> Result<(), Failure> {
        self.show::<Services>("/api/v1/services", Parameters::default(), render::services)
    }
}

#[derive(Debug, Args)]
pub(super) struct EndpointsOf {
    /// The service, such as checkout.shop, or checkout.shop:grpc for one of its ports
    service: String,
    /// As clients in this zone see them
    #[arg(long, value_name = "ZONE")]
    from: Option<String>,
    #[command(flatten)]
    read: Read,
}

impl EndpointsOf {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let parameters = Parameters::default().with("from", self.from.as_ref());
        self.read.show::<Endpoints>(&format!("/api/v1/endpoints/{}", self.service), parameters, render::endpoints)
    }
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A service, such as checkout.shop, or cluster=NAME
    what: String,
    /// For clients in this zone
    #[arg(long, value_name = "ZONE")]
    from: Option<String>,
    /// For clients in this cluster, where several span the zone
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    read: Read,
}

impl Explain {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if self.what.contains('=') {
            let scope: Scope = self.what.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
            let Scope::Cluster(name) = scope else {
                return Err(Failure::Usage(format!("`{}`: expected a service or cluster=NAME", self.what)));
            };
            let path = format!("/api/v1/explain/cluster/{name}");
            return self.read.show::<ClusterExplained>(&path, Parameters::default(), render::explain_cluster);
        }
        if self.from.is_none() {
            return Err(Failure::Usage("from which zone? add --from ZONE, such as --from us-east-1a".into()));
        }
        let parameters = Parameters::default().with("from", self.from.as_ref()).with("cluster", self.cluster.as_ref());
        self.read.show::<Explained>(&format!("/api/v1/explain/{}", self.what), parameters, render::explain)
    }
}
