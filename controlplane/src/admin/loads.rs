//! What clients report of a service, as the admin interface shows it.

use portolan_topology::names::ServiceId;

use super::model::{LoadFigures, LoadShown, Loads};
use crate::lrs::store::{Load, LoadSnapshot};

/// The part of `snapshot` that is of `service`.
pub(super) fn of(service: ServiceId, snapshot: LoadSnapshot) -> Loads {
    let mut endpoints: Vec<_> = snapshot.endpoints.into_iter().filter(|(key, _)| key.service == service).collect();
    let loads = snapshot.loads.into_iter().filter(|(key, _)| key.service == service).map(|(key, load)| {
        let own = endpoints.extract_if(.., |(it, _)| it.source == key.source && it.upstream == key.upstream);
        let endpoints = own.filter_map(|(it, load)| Some((it.endpoint?, figures(load)))).collect();
        LoadShown { source: key.source, upstream: key.upstream, total: figures(load), endpoints }
    });
    Loads { loads: loads.collect(), service }
}

#[expect(clippy::cast_precision_loss, reason = "a mean over fewer than 2^53 requests")]
fn figures(load: Load) -> LoadFigures {
    LoadFigures {
        requests_per_second: load.issued_per_second,
        succeeded: load.succeeded,
        failed: load.failed,
        in_progress: load.in_progress,
        hangs: load.hangs(),
        metrics: load.metrics.into_iter().map(|(name, sum)| (name, sum.total / sum.requests as f64)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::lrs::store::{LoadKey, MetricSum};

    #[test]
    fn a_service_is_shown_by_source_destination_and_endpoint() {
        let locality = |zone: &str| {
            serde_json::from_value(json!({"region": "us-east", "zone": zone, "cluster": "use1-a"})).unwrap()
        };
        let key = |service: &str, zone, endpoint: Option<&str>| LoadKey {
            service: service.parse().unwrap(),
            source: locality("a"),
            upstream: locality(zone),
            endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
        };
        let load = Load {
            issued_per_second: 2.5,
            in_progress: 3,
            metrics: BTreeMap::from([("named_metrics.queue".to_owned(), MetricSum { requests: 4, total: 6.0 })]),
            ..Load::default()
        };
        let snapshot = LoadSnapshot {
            loads: [("checkout.shop", "a"), ("checkout.shop", "b"), ("cart.shop", "a")]
                .map(|(service, zone)| (key(service, zone, None), load.clone()))
                .into(),
            endpoints: [(key("checkout.shop", "b", Some("10.0.0.1:80")), Load { failed: 1, ..Load::default() })].into(),
        };
        let shown = serde_json::to_value(of("checkout.shop".parse().unwrap(), snapshot)).unwrap();
        let total = json!({"requestsPerSecond": 2.5, "succeeded": 0, "failed": 0, "inProgress": 3, "hangs": true,
                           "metrics": {"named_metrics.queue": 1.5}});
        let failed = json!({"requestsPerSecond": 0.0, "succeeded": 0, "failed": 1, "inProgress": 0, "hangs": false, "metrics": {}});
        let place = |zone| json!({"region": "us-east", "zone": zone, "cluster": "use1-a"});
        assert_eq!(
            shown,
            json!({"service": "checkout.shop", "loads": [
                {"source": place("a"), "upstream": place("a"), "total": total, "endpoints": {}},
                {"source": place("a"), "upstream": place("b"), "total": total, "endpoints": {"10.0.0.1:80": failed}}]})
        );
    }
}
