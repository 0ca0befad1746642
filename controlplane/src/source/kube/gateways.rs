//! The Gateway API's objects of the API server, and what else gateways need: certificates, and which ports of other
//! clusters' services speak HTTP/2. Pure. A type that the API server does not have is one without objects: it may come.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;

use super::kind::Kind;
use super::project::Projected;
use super::state::{Kept, Name, Noted, Object};
use crate::gateway::objects::{
    CONTROLLER, Certificate, Class, Classes, CleartextHttp2, GatewayObjects, GatewaySpec, GrantSpec, GrpcRule,
    HttpRule, Metadata, Object as GatewayObject, ObjectName, RouteSpec, TLS_SECRET,
};

/// A port that speaks HTTP/2 in plain text says so by this `appProtocol`.
const CLEARTEXT_HTTP2: &str = "kubernetes.io/h2c";

/// The kinds that the routes of Services need. They are always watched.
pub(super) const OF_SERVICES: [Kind; 3] = [Kind::HttpRoute, Kind::GrpcRoute, Kind::ServiceImport];
/// The kinds that gateways need besides.
pub(super) const OF_GATEWAYS: [Kind; 4] = [Kind::GatewayClass, Kind::Gateway, Kind::ReferenceGrant, Kind::Secret];

/// An object of a gateway, whole but for what does not count.
type Spec<S> = Arc<GatewayObject<S>>;

/// What one watch tells.
#[derive(Debug)]
pub(super) enum Seen {
    Class(Event<Object<Class>>),
    Gateway(Event<Object<Spec<GatewaySpec>>>),
    HttpRoute(Event<Object<Spec<RouteSpec<HttpRule>>>>),
    GrpcRoute(Event<Object<Spec<RouteSpec<GrpcRule>>>>),
    Grant(Event<Object<Spec<GrantSpec>>>),
    Secret(Event<Object<Arc<Certificate>>>),
    /// Ports that speak HTTP/2 in plain text.
    Import(Event<Object<Vec<u16>>>),
}

impl Seen {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Class(_) => Kind::GatewayClass,
            Self::Gateway(_) => Kind::Gateway,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::Grant(_) => Kind::ReferenceGrant,
            Self::Secret(_) => Kind::Secret,
            Self::Import(_) => Kind::ServiceImport,
        }
    }

    pub(super) fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Class(Event::Init)
                | Self::Gateway(Event::Init)
                | Self::HttpRoute(Event::Init)
                | Self::GrpcRoute(Event::Init)
                | Self::Grant(Event::Init)
                | Self::Secret(Event::Init)
                | Self::Import(Event::Init)
        )
    }
}

/// Everything that is known of them.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    classes: Kept<Class>,
    gateways: Kept<Spec<GatewaySpec>>,
    http_routes: Kept<Spec<RouteSpec<HttpRule>>>,
    grpc_routes: Kept<Spec<RouteSpec<GrpcRule>>>,
    grants: Kept<Spec<GrantSpec>>,
    secrets: Kept<Arc<Certificate>>,
    imports: Kept<Vec<u16>>,
}

impl Gateways {
    /// Takes what a watch tells; whether something has changed.
    pub(super) fn take(&mut self, seen: Seen) -> bool {
        match seen {
            Seen::Class(event) => !self.classes.take(event).is_empty(),
            Seen::Gateway(event) => !self.gateways.take(event).is_empty(),
            Seen::HttpRoute(event) => !self.http_routes.take(event).is_empty(),
            Seen::GrpcRoute(event) => !self.grpc_routes.take(event).is_empty(),
            Seen::Grant(event) => !self.grants.take(event).is_empty(),
            Seen::Secret(event) => !self.secrets.take(event).is_empty(),
            Seen::Import(event) => !self.imports.take(event).is_empty(),
        }
    }

    /// Whether a kind has been listed.
    pub(super) fn listed(&self, kind: Kind) -> bool {
        match kind {
            Kind::GatewayClass => self.classes.listed,
            Kind::Gateway => self.gateways.listed,
            Kind::HttpRoute => self.http_routes.listed,
            Kind::GrpcRoute => self.grpc_routes.listed,
            Kind::ReferenceGrant => self.grants.listed,
            Kind::Secret => self.secrets.listed,
            Kind::ServiceImport => self.imports.listed,
            Kind::Service | Kind::EndpointSlice | Kind::Node | Kind::Pod => false,
        }
    }

    /// All of it together. `services` are the cluster's own ports that speak HTTP/2 in plain text.
    pub(super) fn objects<'a>(&self, services: impl Iterator<Item = (&'a Name, &'a [u16])>) -> GatewayObjects {
        let ports = |imported| {
            move |(name, ports): (&Name, &[u16])| {
                let object = object_name(name);
                let port = |port: &u16| CleartextHttp2 { imported, object: object.clone(), port: *port };
                ports.iter().map(port).collect::<Vec<_>>()
            }
        };
        let imports = self.imports.objects.iter().map(|(name, ports)| (name, ports.as_slice()));
        let classes = self.classes.objects.iter().map(|(name, class)| (name.name.to_string(), *class));
        GatewayObjects {
            synced: true,
            classes: Classes(classes.collect()),
            gateways: by_name(&self.gateways),
            http_routes: by_name(&self.http_routes),
            grpc_routes: by_name(&self.grpc_routes),
            grants: by_name(&self.grants),
            certificates: by_name(&self.secrets),
            cleartext_http2: services.flat_map(ports(false)).chain(imports.flat_map(ports(true))).collect(),
        }
    }

    /// What is wrong with or odd about objects.
    pub(super) fn noted(&self) -> impl Iterator<Item = Noted<'_>> {
        let all = [
            (Kind::GatewayClass, &self.classes.notes),
            (Kind::Gateway, &self.gateways.notes),
            (Kind::HttpRoute, &self.http_routes.notes),
            (Kind::GrpcRoute, &self.grpc_routes.notes),
            (Kind::ReferenceGrant, &self.grants.notes),
            (Kind::Secret, &self.secrets.notes),
            (Kind::ServiceImport, &self.imports.notes),
        ];
        all.into_iter().flat_map(|(kind, notes)| notes.iter().map(move |(name, note)| (kind, name, note)))
    }
}

fn object_name(name: &Name) -> ObjectName {
    ObjectName::new(&name.namespace, &name.name)
}

fn by_name<T>(kept: &Kept<Arc<T>>) -> BTreeMap<ObjectName, Arc<T>> {
    kept.objects.iter().map(|(name, object)| (object_name(name), object.clone())).collect()
}

/// An object with a `spec`.
pub(super) fn spec<S: DeserializeOwned>(mut object: DynamicObject) -> Projected<Spec<S>> {
    let spec = object.data.get_mut("spec").map(serde_json::Value::take).unwrap_or_default();
    let spec = S::deserialize(spec).map_err(|error| format!("its spec cannot be read: {error}"));
    Projected::of(spec.map(|spec| Some(Arc::new(GatewayObject { metadata: metadata(object.metadata), spec }))))
}

/// A route, if a Service is among its parents. What is wrong with others is not ours to tell where gateways are not.
pub(super) fn route_of_service<R: DeserializeOwned>(object: DynamicObject) -> Projected<Spec<RouteSpec<R>>> {
    let parents = object.data.get("spec").and_then(|spec| spec["parentRefs"].as_array());
    let is_service = |parent: &serde_json::Value| matches!(parent["kind"].as_str(), Some("Service" | "ServiceImport"));
    let ours = parents.is_some_and(|parents| parents.iter().any(is_service));
    if ours { spec(object) } else { Projected::of(Ok(None)) }
}

fn metadata(of: ObjectMeta) -> Metadata {
    Metadata {
        name: of.name.unwrap_or_default(),
        namespace: of.namespace.unwrap_or_default(),
        generation: of.generation,
        creation_timestamp: of.creation_timestamp.map(|time| time.0.to_string()),
    }
}

/// A GatewayClass, if it is ours.
pub(super) fn class(object: DynamicObject) -> Projected<Class> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let ours = spec["controllerName"].as_str() == Some(CONTROLLER);
    Projected::of(Ok(ours.then(|| Class { parameters: !spec["parametersRef"].is_null() })))
}

/// A Secret, if it is one of certificates. Others are not asked for.
pub(super) fn secret(object: Secret) -> Projected<Arc<Certificate>> {
    let mut data = object.data.unwrap_or_default();
    let mut take = |key: &str| data.remove(key).map(|bytes| bytes.0).unwrap_or_default();
    let certificate = Certificate { chain: take("tls.crt"), key: take("tls.key") };
    Projected::of(Ok((object.type_.as_deref() == Some(TLS_SECRET)).then(|| Arc::new(certificate))))
}

/// A ServiceImport's ports that speak HTTP/2 in plain text, if it has any.
pub(super) fn import(object: DynamicObject) -> Projected<Vec<u16>> {
    let ports = object.data.get("spec").and_then(|spec| spec["ports"].as_array());
    let ports = ports.into_iter().flatten().filter(|port| is_cleartext_http2(port["appProtocol"].as_str()));
    let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port["port"].as_u64()?).ok()).collect();
    Projected::of(Ok((!ports.is_empty()).then_some(ports)))
}

pub(super) fn is_cleartext_http2(app_protocol: Option<&str>) -> bool {
    app_protocol == Some(CLEARTEXT_HTTP2)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::super::state::{Failure, State, Update, Watched};
    use super::*;

    fn state() -> State {
        State::new("kube".into(), Watched { pods: false, gateways: true })
    }

    fn of_services_alone() -> State {
        State::new("kube".into(), Watched::default())
    }

    fn take(state: &mut State, updates: impl IntoIterator<Item = Update>) -> Vec<String> {
        updates.into_iter().flat_map(|update| state.take(update, Timestamp::UNIX_EPOCH)).collect()
    }

    fn listed<P>(of: impl Fn(Event<Object<P>>) -> Update, objects: Vec<Object<P>>) -> Vec<Update> {
        let objects = objects.into_iter().map(Event::InitApply);
        [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).map(of).collect()
    }

    fn object<P>(name: &str, projected: Projected<P>) -> Object<P> {
        Object { name: Name { namespace: "shop".into(), name: name.into() }, uid: None, projected }
    }

    fn read(body: serde_json::Value) -> DynamicObject {
        serde_json::from_value(body).unwrap()
    }

    fn edge(port: u32) -> Object<Spec<GatewaySpec>> {
        let listener = json!({"name": "web", "port": port, "protocol": "HTTP"});
        let spec_of = json!({"gatewayClassName": "portolan", "listeners": [listener]});
        let metadata = json!({"name": "edge", "namespace": "shop", "generation": 3});
        object("edge", spec(read(json!({"metadata": metadata, "spec": spec_of}))))
    }

    fn without(kinds: &[Kind]) -> Vec<Update> {
        kinds.iter().map(|kind| Update::Failed(*kind, Failure::Missing)).collect()
    }

    #[test]
    fn types_that_are_not_installed_have_no_objects_and_may_come() {
        let mut state = state();
        take(&mut state, listed(Update::Service, vec![]));
        take(&mut state, without(&OF_SERVICES));
        take(&mut state, without(&OF_GATEWAYS[..3]));
        assert!(state.gateways().is_none(), "of the last kind nothing is known yet");
        let told = take(&mut state, without(&OF_GATEWAYS[3..]));
        assert!(told.is_empty() && state.status().errors.is_empty(), "{told:?}");
        let shown = state.gateways().unwrap();
        assert!(shown.synced && shown.is_empty() && shown.classes.0.is_empty());
        take(&mut state, listed(|it| Update::Gateways(Seen::Gateway(it)), vec![edge(80)]));
        let shown = state.gateways().unwrap();
        let gateway = &shown.gateways[&ObjectName::new("shop", "edge")];
        assert_eq!((gateway.metadata.generation, gateway.spec.listeners[0].port), (Some(3), 80));
        assert!(state.gateways().is_none(), "told once");
        // Its definition goes while we cannot look: that is named, and what was seen stands.
        let told = take(&mut state, without(&[Kind::Gateway]));
        assert!(told[0].contains("gateways.gateway.networking.k8s.io are no longer known"), "{told:?}");
        assert_eq!((state.status().errors.len(), state.gateways().is_none()), (1, true));
    }

    #[test]
    fn routes_that_rbac_forbids_keep_gateways_back_and_secrets_and_services_not() {
        let mut state = state();
        take(&mut state, listed(Update::Service, vec![]));
        take(&mut state, listed(Update::Slice, vec![]));
        take(&mut state, listed(Update::Node, vec![]));
        take(&mut state, without(&OF_GATEWAYS));
        take(&mut state, without(&OF_SERVICES[1..]));
        take(&mut state, [Update::Failed(Kind::HttpRoute, Failure::Forbidden("no".into()))]);
        assert!(state.services().is_some() && state.gateways().is_none());
        let status = state.status();
        assert!(status.errors["httproutes.gateway.networking.k8s.io"].contains("are forbidden"), "{:?}", status.errors);
        // Without Secrets the rest is served.
        take(&mut state, without(&[Kind::HttpRoute]));
        take(&mut state, [Update::Failed(Kind::Secret, Failure::Forbidden("no".into()))]);
        assert!(state.gateways().is_some() && state.status().errors["secrets"].contains("secrets are forbidden"));
    }

    #[test]
    fn without_gateways_the_routes_of_services_are_known_once_their_kinds_are() {
        let mut state = of_services_alone();
        take(&mut state, listed(Update::Service, vec![]));
        take(&mut state, without(&OF_SERVICES[..2]));
        assert!(state.gateways().is_none(), "of ServiceImports nothing is known yet");
        take(&mut state, without(&OF_SERVICES[2..]));
        assert!(state.gateways().unwrap().is_empty());
    }

    #[test]
    fn routes_of_services_that_rbac_never_allowed_are_none_and_named() {
        let mut state = of_services_alone();
        take(&mut state, listed(Update::Service, vec![]));
        take(&mut state, OF_SERVICES.map(|kind| Update::Failed(kind, Failure::Forbidden("no".into()))));
        assert!(state.gateways().unwrap().is_empty());
        let errors = state.status().errors;
        assert!(errors["grpcroutes.gateway.networking.k8s.io"].contains("are forbidden"), "{errors:?}");
    }

    #[test]
    fn where_gateways_are_not_watched_only_the_routes_of_services_are_kept() {
        let of = |parents: serde_json::Value, rules: serde_json::Value| {
            let object = json!({"metadata": {"name": "r", "namespace": "shop"},
                "spec": {"parentRefs": parents, "rules": rules}});
            route_of_service::<HttpRule>(read(object)).kept
        };
        let (service, gateway) = (json!({"group": "", "kind": "Service", "name": "a"}), json!({"name": "edge"}));
        let kept = of(json!([gateway, service]), json!([])).unwrap().unwrap();
        assert_eq!((kept.metadata.name.as_str(), kept.spec.parent_refs.len()), ("r", 2));
        let import = json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "a"});
        assert!(of(json!([import]), json!([])).unwrap().is_some());
        assert!(of(json!([gateway]), json!([])).unwrap().is_none());
        // Somebody else's that we cannot read is not ours to complain of; one of a Service is.
        assert!(of(json!([gateway]), json!("?")).unwrap().is_none());
        assert!(of(json!([service]), json!("?")).is_err());
    }

    #[test]
    fn a_gateway_that_cannot_be_read_is_named_and_its_last_good_state_stands() {
        let mut state = state();
        take(&mut state, listed(Update::Service, vec![]));
        take(&mut state, without(&OF_SERVICES));
        take(&mut state, without(&OF_GATEWAYS));
        take(&mut state, listed(|it| Update::Gateways(Seen::Gateway(it)), vec![edge(80)]));
        state.gateways();
        take(&mut state, [Update::Gateways(Seen::Gateway(Event::Apply(edge(70_000))))]);
        assert!(state.gateways().is_none());
        let warnings = state.status().warnings;
        assert!(warnings["Gateway shop/edge"].contains("its last good state stands"), "{warnings:?}");
    }

    #[test]
    fn a_class_is_ours_by_its_controller_and_a_secret_by_its_type() {
        let of = |spec| class(read(json!({"metadata": {"name": "x"}, "spec": spec}))).kept.unwrap();
        assert_eq!(of(json!({"controllerName": "example.com/other"})), None);
        assert_eq!(of(json!({"controllerName": CONTROLLER})), Some(Class { parameters: false }));
        let parameters = json!({"group": "x", "kind": "y", "name": "z"});
        let with = of(json!({"controllerName": CONTROLLER, "parametersRef": parameters}));
        assert_eq!(with, Some(Class { parameters: true }));
        let of = |kind: &str| {
            let data = json!({"tls.crt": "YQ==", "tls.key": "Yg=="});
            secret(serde_json::from_value(json!({"metadata": {"name": "x"}, "type": kind, "data": data})).unwrap())
        };
        let wanted = Certificate { chain: b"a".to_vec(), key: b"b".to_vec() };
        assert_eq!(of(TLS_SECRET).kept.unwrap().as_deref(), Some(&wanted));
        assert_eq!(of("Opaque").kept.unwrap(), None);
        let ports = json!([{"port": 80, "appProtocol": "kubernetes.io/h2c"}, {"port": 81}]);
        let kept = import(read(json!({"metadata": {"name": "x"}, "spec": {"ports": ports}}))).kept.unwrap();
        assert_eq!(kept, Some(vec![80]));
    }
}
