//! Leads each request to the balancer of its cluster, whatever the transport, and follows the service's routes.
//!
//! A request reads a table that every change replaces whole: no lock, no allocation. A cluster lives as long as the table
//! or a request holds it; then its connections close, once the requests that are open on them have ended. Nothing here
//! sends or repeats a request.

mod breaker;
mod budget;
mod cluster;
mod follow;
mod head;
mod strategy;
mod subset;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub(crate) use self::breaker::Passed;
pub(crate) use self::cluster::{Cluster, Parts};
pub(crate) use self::follow::{AbortOnDrop, follow};
pub(crate) use self::head::Head;
pub use self::strategy::Strategies;
pub use self::subset::Subset;
pub(crate) use self::table::{Routed, RoutingError};

use self::table::Table;
use crate::balancer::{Balancer, PickError, Rng};
use crate::xds::matching::RequestHead;

/// The routes of one service and the clusters behind them. `T` is what the transport keeps with each endpoint.
#[derive(Debug)]
pub(crate) struct Router<T> {
    table: ArcSwap<Table<T>>,
    changed: watch::Sender<()>,
    rng: Rng,
    /// Its channel's hash, for routes by which all of a channel's requests have the same.
    channel: u64,
}

impl<T> Router<T> {
    /// Without routes; requests wait.
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let channel = rng.next();
        Self { table: ArcSwap::from_pointee(Table::Pending), changed: watch::Sender::new(()), rng, channel }
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// Nowhere, or nothing is known yet.
    pub(crate) fn route(&self, request: &impl RequestHead) -> Result<Routed<T>, RoutingError> {
        self.table.load().route(request, self.channel, &mut || self.rng.next())
    }

    /// As [`Router::route`], but waits while nothing is known. Give it a deadline.
    ///
    /// # Errors
    /// Nowhere.
    pub(crate) async fn routed(&self, request: &impl RequestHead) -> Result<Routed<T>, RoutingError> {
        let waits = |routed: &Result<Routed<T>, RoutingError>| {
            matches!(routed, Err(RoutingError::Pick(PickError::NoAssignment)))
        };
        // Who need not wait does not touch the list of those who do.
        let mut routed = self.route(request);
        if waits(&routed) {
            let mut changed = self.changed.subscribe();
            routed = self.route(request);
            while waits(&routed) && changed.changed().await.is_ok() {
                routed = self.route(request);
            }
        }
        routed
    }

    /// The clusters that requests may go to, by name.
    pub(crate) fn clusters(&self) -> Vec<Arc<Cluster<T>>> {
        self.table.load().clusters().cloned().collect()
    }

    /// Their balancers, by their names.
    pub(crate) fn balancers(&self) -> BTreeMap<Arc<str>, Arc<Balancer<T>>> {
        let table = self.table.load();
        table.clusters().map(|cluster| (Arc::clone(&cluster.name), Arc::clone(&cluster.balancer))).collect()
    }

    /// Why no request can be sent anywhere, if that is known of all.
    pub(crate) fn nothing(&self) -> Option<PickError> {
        self.table.load().nothing()
    }

    /// Told at every change of the routes or the set of clusters.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn replace(&self, table: Table<T>) {
        self.table.store(Arc::new(table));
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests;
