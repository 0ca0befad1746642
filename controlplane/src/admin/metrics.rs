//! `/metrics`: what the stages count, in Prometheus' text format, gathered when it is asked for.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Admin;
use super::model::Status;
use crate::xds::counters::Counts;

type Labels = Vec<(&'static str, String)>;

/// One metric with its values.
#[derive(Debug, Clone, PartialEq)]
struct Metric {
    name: &'static str,
    help: &'static str,
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, f64)>),
}

/// Metrics as they are now.
#[derive(Debug)]
struct Snapshot(Vec<Metric>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let kind = match metric.values {
                Values::Counter(_) => MetricType::Counter,
                Values::Gauge(_) => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            match &metric.values {
                Values::Counter(values) => {
                    for (labels, value) in values {
                        labelled(&mut encoder, labels, |encoder| {
                            encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
                        })?;
                    }
                }
                Values::Gauge(values) => {
                    for (labels, value) in values {
                        labelled(&mut encoder, labels, |encoder| encoder.encode_gauge(value))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Encodes one value; without labels it has no braces.
fn labelled(
    encoder: &mut MetricEncoder<'_>,
    labels: &Labels,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { encode(encoder) } else { encode(&mut encoder.encode_family(labels)?) }
}

impl Admin {
    /// Everything that is counted, as text.
    pub(super) fn metrics(&self) -> String {
        let mut metrics = of_status(&self.status());
        metrics.extend(of_xds(self.xds.counts(), self.xds.encodes()));
        metrics.push(Metric {
            name: "portolan_load_reports",
            help: "Load reports of a service and locality that were taken or dropped",
            values: Values::Counter(vec![
                (vec![("result", "taken".to_owned())], self.loads.reports()),
                (vec![("result", "dropped".to_owned())], self.loads.dropped()),
            ]),
        });
        let ports = [("xds", &self.xds_refusals), ("peer", self.federation.refusals())];
        let refusals = ports.iter().flat_map(|(port, refusals)| {
            let labels = |reason: &'static str| vec![("port", (*port).to_owned()), ("reason", reason.to_owned())];
            refusals.counts().into_iter().map(move |(refusal, count)| (labels(refusal.label()), count))
        });
        metrics.push(Metric {
            name: "portolan_refused_connections",
            help: "Connections and messages that were refused",
            values: Values::Counter(refusals.collect()),
        });
        text(metrics)
    }
}

fn text(metrics: Vec<Metric>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(metrics)));
    let mut text = String::new();
    // Writing to a string has no way to fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric { name, help, values: Values::Gauge(vec![(Labels::new(), value)]) }
}

fn of_status(status: &Status) -> Vec<Metric> {
    let flag = |yes: bool| if yes { 1.0 } else { 0.0 };
    let cluster = |name: &dyn ToString| vec![("cluster", name.to_string())];
    let info = vec![
        ("cluster", status.cluster.to_string()),
        ("node", status.node.to_string()),
        ("version", status.version.clone()),
        ("topology", status.topology.hash.clone()),
    ];
    let states = status.clusters.iter().map(|it| {
        let state = super::words::state(it.state).to_owned();
        ([cluster(&it.name), vec![("state", state)]].concat(), 1.0)
    });
    let endpoints = status.clusters.iter().flat_map(|it| {
        let labels = |state: &str| [cluster(&it.name), vec![("state", state.to_owned())]].concat();
        [(labels("ready"), it.ready as f64), (labels("listed"), it.total as f64)]
    });
    let heard = status.clusters.iter().filter_map(|it| Some((cluster(&it.name), it.heard_ms? as f64 / 1000.0)));
    vec![
        Metric {
            name: "portolan_build",
            help: "The control plane that answers; always 1",
            values: Values::Gauge(vec![(info, 1.0)]),
        },
        gauge("portolan_ready", "Whether clients may be sent here", flag(status.not_ready.is_empty())),
        gauge("portolan_source_synced", "Whether the source has been read whole", flag(status.source.synced)),
        gauge(
            "portolan_source_errors",
            "Files or folders of the source that are refused now",
            status.source.errors.len() as f64,
        ),
        gauge(
            "portolan_topology_refused",
            "Whether the topology file as it is now was refused",
            flag(status.topology.file.error.is_some()),
        ),
        gauge(
            "portolan_certificate_expires_in_seconds",
            "Seconds until the control plane's own certificate expires; negative once it has",
            status.certificate.expires_in_seconds as f64,
        ),
        gauge(
            "portolan_certificate_refused",
            "Whether the certificate files as they are now were refused",
            flag(status.certificate.error.is_some()),
        ),
        gauge("portolan_policy_revision", "The last policy change applied here", status.policy.revision as f64),
        gauge("portolan_policy_leader_known", "Whether a policy leader is known", flag(status.policy.leader.is_some())),
        gauge("portolan_policy_voters_answering", "Voters that answer us", status.policy.answering as f64),
        gauge("portolan_clients", "Open streams of xDS clients", status.clients as f64),
        gauge(
            "portolan_clients_refusing",
            "Open streams whose client refuses what it was sent",
            status.clients_refusing as f64,
        ),
        gauge(
            "portolan_duplicate_addresses",
            "Addresses that two localities list",
            status.duplicates.values().map(|duplicates| duplicates.len()).sum::<usize>() as f64,
        ),
        Metric {
            name: "portolan_cluster_state",
            help: "How much each cluster's state is trusted; 1 for the state it is in",
            values: Values::Gauge(states.collect()),
        },
        Metric {
            name: "portolan_cluster_endpoints",
            help: "Endpoints of each cluster, every service's first port",
            values: Values::Gauge(endpoints.collect()),
        },
        Metric {
            name: "portolan_cluster_silent_seconds",
            help: "Seconds since another cluster was last heard, of those that are not fresh",
            values: Values::Gauge(heard.collect()),
        },
    ]
}

fn of_xds(counts: Counts, encodes: u64) -> Vec<Metric> {
    // The counters' own names serve: they are the fields of one struct.
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(counts) else { return Vec::new() };
    let event = |name: &str| name.chars().flat_map(snake).collect::<String>();
    let events = fields.iter().filter_map(|(name, count)| Some((vec![("event", event(name))], count.as_u64()?)));
    vec![
        Metric {
            name: "portolan_xds_events",
            help: "What happened on the streams of xDS clients",
            values: Values::Counter(events.collect()),
        },
        Metric {
            name: "portolan_xds_encodes",
            help: "Resources encoded; each is encoded once for all who get it",
            values: Values::Counter(vec![(Labels::new(), encodes)]),
        },
    ]
}

fn snake(c: char) -> impl Iterator<Item = char> {
    c.is_ascii_uppercase().then_some('_').into_iter().chain(std::iter::once(c.to_ascii_lowercase()))
}

pub(super) async fn serve(admin: axum::extract::State<Arc<Admin>>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], admin.metrics())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_read_as_prometheus_wants_them() {
        let metrics = vec![
            gauge("portolan_ready", "Whether clients may be sent here", 1.0),
            Metric {
                name: "portolan_xds_events",
                help: "What happened",
                values: Values::Counter(vec![(vec![("event", "bad_frames".to_owned())], 3)]),
            },
        ];
        assert_eq!(
            text(metrics),
            "# HELP portolan_ready Whether clients may be sent here\n# TYPE portolan_ready gauge\nportolan_ready 1.0\n\
             # HELP portolan_xds_events What happened\n# TYPE portolan_xds_events counter\n\
             portolan_xds_events_total{event=\"bad_frames\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn every_counter_of_the_xds_server_is_there() {
        let counts = Counts { stale_requests: 7, ..Counts::default() };
        let shown = text(of_xds(counts, 9));
        assert!(shown.contains("portolan_xds_events_total{event=\"stale_requests\"} 7\n"), "{shown}");
        assert!(shown.contains("portolan_xds_encodes_total 9\n"), "{shown}");
    }
}
