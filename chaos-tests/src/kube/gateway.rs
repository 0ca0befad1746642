//! Gateways from the API server, with the rights that the chart gives: what an Envoy of the gateway is sent, and what the
//! objects' owners are told; and routes of Services, which need less. The Gateway API's definitions are its authors', and are installed while the control plane runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type as SecretType;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value as ProtoValue};
use futures::channel::mpsc;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::chart;
use super::objects::{Writer, apply, endpoint};
use super::plane::{Plane, Serve};
use super::suite::{Check, Lab, eventually};

/// For something to be seen, on a loaded machine: a definition may be asked for again only after 10 s.
const SOON: Duration = Duration::from_secs(40);
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const SECRETS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Somebody else who tells routes what it makes of them.
const OTHER: &str = "example.com/other";

pub(super) fn checks() -> Vec<Check> {
    let within = Duration::from_secs(180);
    vec![
        Check::lasting(
            "gateway: objects of the API server reach its Envoys, and conditions say what is amiss",
            within,
            served,
        ),
        Check::lasting("gateway: routes of Services need no flag, and no right to Secrets", within, of_services),
    ]
}

/// Resources, encoded, by type and name.
type Resources = HashMap<(String, String), Vec<u8>>;

/// What a client was sent last: the Envoy of a gateway, or one of no gateway. It accepts everything.
struct Envoy {
    resources: Arc<Mutex<Resources>>,
    _task: AbortOnDropHandle<()>,
}

/// The part that each of these resources has: its name, by the first field.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Envoy {
    /// One of `gateway` that asks for all listeners, and for `routes` and `secrets` by name.
    async fn start(xds: SocketAddr, gateway: Option<&str>, routes: &[&str], secrets: &[&str]) -> anyhow::Result<Self> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{xds}"))?.connect().await?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let (requests, stream) = mpsc::unbounded();
        let says = |gateway: &str| ProtoValue { kind: Some(ValueKind::StringValue(gateway.to_owned())) };
        let says = gateway.map(|gateway| ("portolan.dev/gateway".to_owned(), says(gateway)));
        let node = Node {
            id: "edge-1".to_owned(),
            cluster: "one".to_owned(),
            locality: Some(Locality { region: "here".into(), zone: "here-a".into(), sub_zone: "one".into() }),
            metadata: Some(Struct { fields: says.into_iter().collect() }),
            ..Node::default()
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let asked = HashMap::from([(LISTENERS, vec![]), (ROUTES, names(routes)), (SECRETS, names(secrets))]);
        for (number, (kind, names)) in asked.iter().enumerate() {
            let request = DiscoveryRequest {
                node: (number == 0).then(|| node.clone()),
                resource_names: names.clone(),
                type_url: (*kind).to_owned(),
                ..DiscoveryRequest::default()
            };
            requests.unbounded_send(request).context("the stream is closed")?;
        }
        let mut answers = client.stream_aggregated_resources(stream).await?.into_inner();
        let resources = Arc::<Mutex<Resources>>::default();
        let seen = Arc::clone(&resources);
        let asked: HashMap<String, Vec<String>> =
            asked.into_iter().map(|(kind, names)| (kind.to_owned(), names)).collect();
        let task = tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                for resource in &answer.resources {
                    if let Ok(named) = Named::decode(resource.value.as_ref()) {
                        let key = (answer.type_url.clone(), named.name);
                        seen.lock().insert(key, resource.value.to_vec());
                    }
                }
                let taken = DiscoveryRequest {
                    version_info: answer.version_info,
                    response_nonce: answer.nonce,
                    resource_names: asked.get(&answer.type_url).cloned().unwrap_or_default(),
                    type_url: answer.type_url,
                    ..DiscoveryRequest::default()
                };
                if requests.unbounded_send(taken).is_err() {
                    return;
                }
            }
        });
        Ok(Self { resources, _task: AbortOnDropHandle::new(task) })
    }

    fn has(&self, kind: &str, name: &str) -> Option<Vec<u8>> {
        self.resources.lock().get(&(kind.to_owned(), name.to_owned())).cloned()
    }

    /// The certificate chain of a secret.
    fn chain(&self, name: &str) -> Option<Vec<u8>> {
        let secret = Secret::decode(self.has(SECRETS, name)?.as_slice()).ok()?;
        let Some(SecretType::TlsCertificate(certificate)) = secret.r#type else { return None };
        match certificate.certificate_chain?.specifier? {
            Specifier::InlineBytes(bytes) => Some(bytes),
            Specifier::InlineString(text) => Some(text.into_bytes()),
            _ => None,
        }
    }
}

/// A self-signed certificate with its key.
fn pair() -> anyhow::Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()])?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}

async fn put_secret(lab: &Lab, kubeconfig: &Path, (chain, key): &(String, String)) -> anyhow::Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "edge-cert", "namespace": "shop"},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": chain, "tls.key": key}});
    let file = lab.folder.join("secret.json");
    std::fs::write(&file, secret.to_string())?;
    let file = file.display().to_string();
    lab.kubectl(kubeconfig, &["apply", "--server-side", "--force-conflicts", "-f", &file]).await?.done()?;
    Ok(())
}

/// The condition `kind` of a list, as `STATUS REASON observed GENERATION`.
fn said(conditions: &Value, kind: &str) -> String {
    let found = conditions.as_array().and_then(|all| all.iter().find(|condition| condition["type"] == kind));
    found.map_or_else(String::new, |condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        format!("{} {} observed {}", text("status"), text("reason"), condition["observedGeneration"])
    })
}

struct Objects {
    classes: Api<DynamicObject>,
    gateways: Api<DynamicObject>,
    routes: Api<DynamicObject>,
    grpc_routes: Api<DynamicObject>,
}

impl Objects {
    fn new(client: &Client) -> Self {
        Self {
            classes: Api::all_with(client.clone(), &resource("GatewayClass", "gatewayclasses")),
            gateways: Api::namespaced_with(client.clone(), "shop", &resource("Gateway", "gateways")),
            routes: Api::namespaced_with(client.clone(), "shop", &resource("HTTPRoute", "httproutes")),
            grpc_routes: Api::namespaced_with(client.clone(), "shop", &resource("GRPCRoute", "grpcroutes")),
        }
    }

    async fn put(&self, api: &Api<DynamicObject>, kind: &str, name: &str, spec: Value) -> anyhow::Result<()> {
        let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "spec": spec});
        api.patch(name, &apply(), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// A route of the Gateway `edge` to a port of a Service.
    async fn route(&self, name: &str, prefix: &str, service: &str, port: u16) -> anyhow::Result<()> {
        let rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
            "backendRefs": [{"name": service, "port": port}]});
        self.put(&self.routes, "HTTPRoute", name, json!({"parentRefs": [{"name": "edge"}], "rules": [rule]})).await
    }

    /// Waits until `read` finds what it wants in an object's status.
    async fn says(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        read: impl Fn(&Value) -> Vec<String>,
        wanted: &[&str],
    ) -> anyhow::Result<()> {
        let what = format!("{name} says {wanted:?}");
        eventually(&what, SOON, || async {
            let status = api.get(name).await?.data["status"].take();
            let now = read(&status);
            ensure!(now == wanted, "it says {now:?} in {status}");
            Ok(Some(()))
        })
        .await
    }
}

async fn served(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let (admin, kubeconfig) = (server.client().await?, server.kubeconfig().to_owned());
    chart::put(&lab, &kubeconfig, "install", &["source.watchGateways=true"]).await?;
    let shop = Writer::new(admin.clone(), "shop").await?;
    shop.service("a", json!({"ports": [{"port": 80, "targetPort": 8080}]}), json!({})).await?;
    shop.slice("a-1", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.1", "here-a")]).await?;
    let serve = Serve::alone(&lab.folder, &chart::as_installed(&server)?, &["--watch-gateways"])?;
    let plane = Plane::start(&lab.folder, &serve).await?;
    // Its definitions come while it runs.
    let folder = lab.tools.gateway_api.display().to_string();
    lab.kubectl(&kubeconfig, &["apply", "--server-side", "-f", &folder]).await?.done()?;
    let first = pair()?;
    put_secret(&lab, &kubeconfig, &first).await?;
    let objects = Objects::new(&admin);
    let class = json!({"controllerName": "portolan.dev/gateway"});
    eventually("the definitions are in force", SOON, || async {
        objects.put(&objects.classes, "GatewayClass", "edges", class.clone()).await.map(Some)
    })
    .await?;
    let listeners = json!([
        {"name": "web", "port": 8080, "protocol": "HTTP"},
        {"name": "secure", "port": 8443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "edge-cert"}]}},
    ]);
    let edge = json!({"gatewayClassName": "edges", "listeners": listeners});
    eventually("the Gateway is taken", SOON, || async {
        objects.put(&objects.gateways, "Gateway", "edge", edge.clone()).await?;
        objects.route("web", "/", "a", 80).await?;
        objects.route("lost", "/lost", "nowhere", 80).await.map(Some)
    })
    .await?;

    // What its Envoys are sent.
    let envoy =
        Envoy::start(plane.xds(), Some("shop/edge"), &["shop/edge/8080", "a.shop:80"], &["shop/edge-cert"]).await?;
    eventually("listeners, routes and the certificate reach the Envoy", SOON, || async {
        let listeners = ["shop/edge/8080", "shop/edge/8443"].iter().all(|name| envoy.has(LISTENERS, name).is_some());
        let routes = envoy.has(ROUTES, "shop/edge/8080");
        let leads = routes.is_some_and(|routes| contains(&routes, b"http1/") && contains(&routes, b"/lost"));
        Ok((listeners && leads && envoy.chain("shop/edge-cert").as_deref() == Some(first.0.as_bytes())).then_some(()))
    })
    .await?;

    // What their owners are told.
    let of_class = |status: &Value| vec![said(&status["conditions"], "Accepted")];
    objects.says(&objects.classes, "edges", of_class, &["True Accepted observed 1"]).await?;
    let of_gateway = |status: &Value| {
        let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
        let attached = listeners.iter().map(|it| format!("{} {}", it["name"], it["attachedRoutes"]));
        let whole = ["Accepted", "Programmed"].map(|kind| said(&status["conditions"], kind));
        whole.into_iter().chain(attached).collect()
    };
    let well = ["True Accepted observed 1", "True Programmed observed 1", "\"web\" 2", "\"secure\" 2"];
    objects.says(&objects.gateways, "edge", of_gateway, &well).await?;
    let good = ["True Accepted observed 1", "True ResolvedRefs observed 1"];
    objects.says(&objects.routes, "web", of_route, &good).await?;
    let missing = ["True Accepted observed 1", "False BackendNotFound observed 1"];
    objects.says(&objects.routes, "lost", of_route, &missing).await?;
    let status = plane.status_text().await?;
    let line =
        "HTTPRoute shop/lost: ResolvedRefs no, BackendNotFound: there is no Service shop/nowhere with the port 80";
    ensure!(status.contains(line), "status does not say `{line}`:\n{status}");

    // A route whose parent is a Service steers that service's own clients.
    objects.put(&objects.grpc_routes, "GRPCRoute", "canary", canary("shop")).await?;
    eventually("the clients of the Service get its route", SOON, || async {
        let routes = envoy.has(ROUTES, "a.shop:80").unwrap_or_default();
        Ok((contains(&routes, b"lane") && contains(&routes, b"a.shop.svc.cluster.local:80")).then_some(()))
    })
    .await?;
    objects.says(&objects.grpc_routes, "canary", of_route, &good).await?;

    // Another controller's entry stays, and what has not changed is not written.
    let parents = objects.routes.get("lost").await?.data["status"]["parents"].clone();
    let mut parents = parents.as_array().cloned().context("no parents")?;
    let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let other = json!({"parentRef": {"name": "edge", "group": "gateway.networking.k8s.io", "kind": "Gateway"},
        "controllerName": OTHER, "conditions": [condition]});
    parents.push(other.clone());
    let patch = Patch::Merge(json!({"status": {"parents": parents}}));
    objects.routes.patch_status("lost", &PatchParams::default(), &patch).await?;
    let version = objects.gateways.get("edge").await?.metadata.resource_version;
    let of_web = objects.routes.get("web").await?.metadata.resource_version;
    objects.route("lost", "/lost", "a", 80).await?;
    let found = ["True Accepted observed 2", "True ResolvedRefs observed 2"];
    objects.says(&objects.routes, "lost", of_route, &found).await?;
    let parents = objects.routes.get("lost").await?.data["status"]["parents"].clone();
    let kept = parents.as_array().is_some_and(|all| all.contains(&other));
    ensure!(kept, "another controller's entry is gone: {parents}");
    let after = objects.gateways.get("edge").await?.metadata.resource_version;
    ensure!(after == version, "the Gateway was written and nothing of it had changed");
    let after = objects.routes.get("web").await?.metadata.resource_version;
    ensure!(after == of_web, "the route `web` was written and nothing of it had changed");

    // A rotated certificate.
    let second = pair()?;
    put_secret(&lab, &kubeconfig, &second).await?;
    eventually("the new certificate reaches the Envoy", SOON, || async {
        Ok((envoy.chain("shop/edge-cert").as_deref() == Some(second.0.as_bytes())).then_some(()))
    })
    .await
}

/// A route for the clients of the Service `a` of a namespace.
fn canary(namespace: &str) -> Value {
    json!({
        "parentRefs": [{"group": "", "kind": "Service", "namespace": namespace, "name": "a"}],
        "rules": [{"matches": [{"headers": [{"name": "lane", "value": "blue"}]}],
            "backendRefs": [{"name": "a", "port": 80}]}],
    })
}

/// What we say of a route: whether it is accepted, and whether its backends are there.
fn of_route(status: &Value) -> Vec<String> {
    let parents = status["parents"].as_array().cloned().unwrap_or_default();
    let ours = parents.iter().find(|parent| parent["controllerName"] == "portolan.dev/gateway");
    let conditions = ours.map_or(Value::Null, |parent| parent["conditions"].clone());
    ["Accepted", "ResolvedRefs"].map(|kind| said(&conditions, kind)).to_vec()
}

async fn of_services(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let (admin, kubeconfig) = (server.client().await?, server.kubeconfig().to_owned());
    chart::put(&lab, &kubeconfig, "install", &[]).await?;
    let shop = Writer::new(admin.clone(), "shop").await?;
    shop.service("a", json!({"ports": [{"port": 80, "targetPort": 8080}]}), json!({})).await?;
    shop.slice("a-1", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.1", "here-a")]).await?;
    let serve = Serve::alone(&lab.folder, &chart::as_installed(&server)?, &[])?;
    let plane = Plane::start(&lab.folder, &serve).await?;
    // Without the Gateway API there are no routes, and nobody waits for any.
    let client = Envoy::start(plane.xds(), None, &["a.shop:80"], &[]).await?;
    eventually("the client gets the Service's own route", SOON, || async {
        Ok(client.has(ROUTES, "a.shop:80").map(|routes| contains(&routes, b"lane")))
    })
    .await
    .and_then(|lane| if lane { Err(anyhow::anyhow!("there is no route yet")) } else { Ok(()) })?;
    let folder = lab.tools.gateway_api.display().to_string();
    lab.kubectl(&kubeconfig, &["apply", "--server-side", "-f", &folder]).await?.done()?;
    let objects = Objects::new(&admin);
    eventually("the routes are taken", SOON, || async {
        objects.put(&objects.grpc_routes, "GRPCRoute", "canary", canary("shop")).await?;
        objects.put(&objects.grpc_routes, "GRPCRoute", "consumer", canary("till")).await?;
        objects.route("edge", "/", "a", 80).await.map(Some)
    })
    .await?;
    eventually("the client gets the route", SOON, || async {
        Ok(contains(&client.has(ROUTES, "a.shop:80").unwrap_or_default(), b"lane").then_some(()))
    })
    .await?;
    let good = ["True Accepted observed 1", "True ResolvedRefs observed 1"];
    objects.says(&objects.grpc_routes, "canary", of_route, &good).await?;
    let refused = ["False UnsupportedValue observed 1", "True ResolvedRefs observed 1"];
    objects.says(&objects.grpc_routes, "consumer", of_route, &refused).await?;
    let status = plane.status_text().await?;
    let line = "! GRPCRoute shop/consumer: Accepted no, UnsupportedValue: a route for the Service till/a must stand in";
    ensure!(status.contains(line), "status does not say `{line}`:\n{status}");
    ensure!(!status.contains("forbidden"), "the chart's rights do not suffice:\n{status}");
    // A route of a gateway is somebody else's here.
    let of_gateway = objects.routes.get("edge").await?.data;
    ensure!(of_gateway["status"]["parents"].is_null(), "a route of a gateway was told of: {of_gateway}");
    let definition = "grpcroutes.gateway.networking.k8s.io";
    lab.kubectl(&kubeconfig, &["delete", "-n", "shop", definition, "canary"]).await?.done()?;
    eventually("the route goes", SOON, || async {
        Ok((!contains(&client.has(ROUTES, "a.shop:80").unwrap_or_default(), b"lane")).then_some(()))
    })
    .await
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
