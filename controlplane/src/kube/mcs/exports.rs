//! What the cluster exports: its ServiceExports, or all services of a namespace that is labelled for it, or everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::DynamicObject;
use kube::runtime::watcher;
use kube::{Api, Client};
use portolan_topology::names::ServiceId;
use portolan_topology::service::{Export, ExportedPort, LocalServices};
use tokio::sync::watch;

use super::super::mirror::{Forbidden, Mirror, Mirrored};
use super::service_export;
use crate::config::Exporting;

/// A namespace with this label exports all its services.
const EXPORT_LABEL: &str = "portolan.dev/export";

/// Which services the other clusters are told of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Exports {
    /// Whether everything that says so has been read: until then absence means nothing.
    pub(crate) synced: bool,
    /// Whether services without an entry are told of, too.
    pub(crate) all: bool,
    /// What there is to be said of each, as the Multi-Cluster Services API wants it.
    pub(crate) services: Arc<BTreeMap<ServiceId, Export>>,
}

impl Exports {
    /// Everything, of which nothing is known but what the source shows: where there is no Kubernetes.
    pub(crate) fn everything() -> Self {
        Self { synced: true, all: true, services: Arc::default() }
    }

    /// The part of `services` that the others are told of.
    pub(crate) fn of(&self, services: &Arc<LocalServices>) -> Arc<LocalServices> {
        if self.all {
            return services.clone();
        }
        let exported = services.services.iter().filter(|(id, _)| self.services.contains_key(id));
        Arc::new(LocalServices {
            synced: services.synced && self.synced,
            services: exported.map(|(id, service)| (id.clone(), service.clone())).collect(),
        })
    }
}

/// What a Service says that matters to other clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    created: i64,
    headless: bool,
    affinity: Option<u32>,
    ports: Vec<ExportedPort>,
    /// Why it cannot be exported.
    refused: Option<&'static str>,
}

/// A ServiceExport.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub(super) created: i64,
    pub(super) uid: Option<String>,
    pub(super) status: serde_json::Value,
}

/// Follows the cluster's exports.
pub(crate) fn follow(client: &Client, exporting: Exporting, forbidden: &Forbidden) -> watch::Receiver<Arc<Exports>> {
    let nothing_read = Exports { all: exporting == Exporting::All, ..Exports::default() };
    let (slot, receiver) = watch::channel(Arc::new(nothing_read));
    let mut services = Mirror::start(Api::all(client.clone()), watcher::Config::default(), forbidden, shape);
    let mut namespaces = Mirror::start(Api::all(client.clone()), watcher::Config::default(), forbidden, labelled);
    let mut declared = declarations(client, forbidden);
    tokio::spawn(async move {
        loop {
            let now = exports(exporting, &services.now(), &namespaces.now(), &declared.now());
            slot.send_if_modified(|before: &mut Arc<Exports>| {
                let changed = **before != now;
                if changed {
                    *before = Arc::new(now);
                }
                changed
            });
            tokio::select! {
                () = services.changed() => {}
                () = namespaces.changed() => {}
                () = declared.changed() => {}
                () = slot.closed() => return,
            }
        }
    });
    receiver
}

/// The cluster's ServiceExports.
pub(super) fn declarations(client: &Client, forbidden: &Forbidden) -> Mirror<Declared> {
    Mirror::start(
        Api::all_with(client.clone(), &service_export()),
        watcher::Config::default(),
        forbidden,
        |export: DynamicObject| {
            Some(Declared {
                created: export.metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
                uid: export.metadata.uid,
                status: export.data.get("status").cloned().unwrap_or_default(),
            })
        },
    )
}

/// The cluster's services, by what they say to others.
pub(super) fn shape(service: Service) -> Option<Shape> {
    let created = service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let spec = service.spec.unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let by_address = spec.session_affinity.as_deref() == Some("ClientIP");
    let limit = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
    // Kubernetes' own default is three hours.
    let affinity = by_address.then(|| limit.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(10_800));
    let external = spec.type_.as_deref() == Some("ExternalName");
    let ports = spec.ports.unwrap_or_default();
    let ports = ports.into_iter().filter_map(|port| {
        Some(ExportedPort {
            number: u16::try_from(port.port).ok().filter(|number| *number > 0)?,
            name: port.name.filter(|name| !name.is_empty()),
            protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol,
        })
    });
    let refused = external.then_some("it is of the type ExternalName");
    Some(Shape { created, headless, affinity, ports: ports.collect(), refused })
}

fn labelled(namespace: Namespace) -> Option<bool> {
    let labels = namespace.metadata.labels.unwrap_or_default();
    Some(labels.get(EXPORT_LABEL).is_some_and(|value| value == "true"))
}

/// What is exported. Pure.
fn exports(
    exporting: Exporting,
    services: &Mirrored<Shape>,
    namespaces: &Mirrored<bool>,
    declared: &Mirrored<Declared>,
) -> Exports {
    let all = exporting == Exporting::All;
    let labelled: BTreeSet<&str> =
        namespaces.objects.iter().filter(|(_, labelled)| ***labelled).map(|((_, name), _)| name.as_str()).collect();
    let exported = services.objects.iter().filter(|(_, shape)| shape.refused.is_none()).filter_map(|(name, shape)| {
        let since = match declared.objects.get(name) {
            Some(declared) => declared.created,
            None if all || labelled.contains(name.0.as_str()) => shape.created,
            None => return None,
        };
        let id: ServiceId = format!("{}.{}", name.1, name.0).parse().ok()?;
        let (headless, affinity, ports) = (shape.headless, shape.affinity, shape.ports.clone());
        Some((id, Export { since, headless, affinity, ports }))
    });
    // What was declared once must not go because the kind cannot be listed any more.
    let synced = services.synced && namespaces.synced && (all || declared.synced);
    Exports { synced, all, services: Arc::new(exported.collect()) }
}

/// Whether a declared export can be followed, in the words of its `Valid` condition.
pub(super) fn validity(shape: Option<&Shape>) -> (bool, &'static str, String) {
    match shape {
        None => (false, "NoService", "there is no Service of this name in the namespace".to_owned()),
        Some(Shape { refused: Some(why), .. }) => {
            (false, "InvalidServiceType", format!("the Service cannot be exported: {why}"))
        }
        Some(_) => (true, "Valid", "the Service is exported".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mirrored<T>(objects: Vec<(&str, &str, T)>) -> Mirrored<T> {
        let named =
            |(namespace, name, object): (&str, &str, T)| ((namespace.to_owned(), name.to_owned()), Arc::new(object));
        Mirrored { synced: true, objects: objects.into_iter().map(named).collect() }
    }

    fn service(spec: serde_json::Value) -> Shape {
        let metadata = json!({"name": "x", "creationTimestamp": "1970-01-01T00:00:05Z"});
        shape(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()).unwrap()
    }

    fn names(exports: &Exports) -> Vec<String> {
        exports.services.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_service_is_exported_by_its_export_its_namespace_or_for_all() {
        let plain = || service(json!({"ports": [{"port": 80}]}));
        let services =
            mirrored(vec![("shop", "cart", plain()), ("shop", "checkout", plain()), ("open", "door", plain())]);
        let namespaces = mirrored(vec![("", "shop", false), ("", "open", true)]);
        let export = Declared { created: 9, uid: None, status: json!(null) };
        let declared = mirrored(vec![
            ("shop", "checkout", export),
            ("shop", "none", Declared { created: 9, uid: None, status: json!(null) }),
        ]);
        let some = exports(Exporting::Declared, &services, &namespaces, &declared);
        assert_eq!(names(&some), ["door.open", "checkout.shop"]);
        assert_eq!(some.services[&"checkout.shop".parse().unwrap()].since, 9);
        assert_eq!(some.services[&"door.open".parse().unwrap()].since, 5);
        let all = exports(Exporting::All, &services, &namespaces, &Mirrored::default());
        assert_eq!((all.services.len(), all.synced), (3, true));
    }

    #[test]
    fn nothing_is_said_before_everything_was_read() {
        let services = mirrored(vec![("shop", "checkout", service(json!({"ports": [{"port": 80}]})))]);
        let unread = exports(Exporting::Declared, &services, &mirrored(vec![]), &Mirrored::default());
        assert!(!unread.synced);
        let local = Arc::new(LocalServices { synced: true, services: BTreeMap::new() });
        assert!(!unread.of(&local).synced);
        assert!(Exports::everything().of(&local).synced);
    }

    #[test]
    fn a_service_says_its_type_its_affinity_and_its_ports() {
        let said = service(json!({
            "clusterIP": "None", "sessionAffinity": "ClientIP",
            "ports": [{"name": "grpc", "port": 8080, "appProtocol": "h2c"}, {"port": -1}, {"port": 70000}, {"port": 53, "protocol": "UDP", "name": ""}],
        }));
        assert_eq!((said.headless, said.affinity, said.ports.len()), (true, Some(10_800), 2));
        assert_eq!((said.ports[0].protocol.as_str(), said.ports[0].app_protocol.as_deref()), ("TCP", Some("h2c")));
        assert_eq!((said.ports[1].protocol.as_str(), said.ports[1].name.as_deref()), ("UDP", None));
        let external = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(validity(Some(&external)).1, "InvalidServiceType");
        assert_eq!((validity(None).1, validity(Some(&said)).0), ("NoService", true));
    }
}
