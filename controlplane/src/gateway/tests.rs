//! Manifests in, plans and conditions out.

mod conditions;
mod mesh;
mod order;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::listeners::{CertificateState, Certificates};
use super::objects::{Certificate, GatewayObjects};
use super::plan::{Action, Backend, Known, PathMatch, PortPlan, RoutePlan, ServiceRoutes, Site, TextMatch, Upstream};
use super::planner::{Planned, plan};
use crate::source::manifest;

pub(crate) const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: portolan
  listeners:
  - {name: web, port: 8080, protocol: HTTP}
";

/// The objects of a file, all there.
pub(crate) fn objects(text: &str) -> GatewayObjects {
    let (manifest, warnings) = manifest::parse("m.yaml", text).unwrap_or_else(|refused| panic!("{refused}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    GatewayObjects { synced: true, ..manifest.gateways().cloned().unwrap_or_default() }
}

/// The file's Secrets, all of them usable.
pub(crate) fn usable(objects: &GatewayObjects) -> Certificates {
    let usable = |certificate: &Arc<Certificate>| CertificateState::Usable(certificate.clone());
    objects.certificates.iter().map(|(name, certificate)| (name.clone(), usable(certificate))).collect()
}

/// What a file comes to. Services whose names begin with `gone` are not there, with `late` not known yet.
pub(crate) fn planned(text: &str) -> Planned {
    let objects = objects(text);
    plan(&objects, &usable(&objects), known)
}

/// The routes of a service that a file comes to.
pub(crate) fn service_routes(text: &str, service: &str) -> Option<Arc<ServiceRoutes>> {
    planned(text).services.get(&service.parse().unwrap()).cloned()
}

pub(crate) fn known(backend: &Backend) -> Known {
    match backend.service.name() {
        name if name.starts_with("gone") => Known::Absent,
        name if name.starts_with("late") => Known::NotYet,
        _ => Known::Present,
    }
}

/// What is served, one line a route.
pub(crate) fn shown(planned: &Planned) -> String {
    let mut text = String::new();
    for (name, gateway) in &planned.gateways {
        let address = gateway.address.map(|address| format!(" at {address}")).unwrap_or_default();
        writeln!(text, "{name}{address}").unwrap();
        for (port, plan) in &gateway.ports {
            match plan {
                PortPlan::Http(site) => {
                    writeln!(text, " {port} http").unwrap();
                    show_site(&mut text, site);
                }
                PortPlan::Https(sites) => {
                    for tls in sites {
                        let secrets: Vec<_> = tls.certificates.iter().map(ToString::to_string).collect();
                        let (listener, host) = (&tls.listener, &tls.hostname);
                        writeln!(text, " {port} https {listener} {host} by {}", secrets.join(", ")).unwrap();
                        show_site(&mut text, &tls.site);
                    }
                }
            }
        }
    }
    text
}

fn show_site(text: &mut String, site: &Site) {
    for (host, routes) in &site.hosts {
        writeln!(text, "  {host}").unwrap();
        for route in routes {
            writeln!(text, "   {}", show_route(route)).unwrap();
        }
    }
}

fn show_route(route: &RoutePlan) -> String {
    let matching = &route.matching;
    let mut text = match &matching.path {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => format!("{path}/*"),
        PathMatch::Regex(pattern) => format!("~{pattern}"),
    };
    if matching.grpc {
        text.insert_str(0, "grpc ");
    }
    text.extend(matching.method.iter().map(|method| format!(" {method}")));
    let named = |of: &'static str, texts: &[TextMatch]| {
        let show = |it: &TextMatch| format!(" {of}{}{}{}", it.name, if it.regex { "~" } else { "=" }, it.value);
        texts.iter().map(show).collect::<String>()
    };
    text += &named("", &matching.headers);
    text += &named("?", &matching.query);
    match &route.action {
        Action::Redirect(redirect) => write!(text, " -> {} {redirect:?}", redirect.status).unwrap(),
        Action::Forward(forward) => {
            text += " ->";
            for share in &forward.shares {
                let to = share.upstream.as_ref().map_or_else(|| "refused".to_owned(), show_upstream);
                write!(text, " {to}*{}", share.weight).unwrap();
            }
        }
    }
    text
}

fn show_upstream(upstream: &Upstream) -> String {
    let Backend { service, port, scope } = &upstream.backend;
    format!("{}{service}:{port:?}:{scope:?}", if upstream.http2 { "h2 " } else { "" })
        .replace("Number(", "")
        .replace(')', "")
        .replace(":Cluster", "")
        .replace(":Federation", "@all")
}

/// The troubles, one line each.
pub(crate) fn troubles(planned: &Planned) -> Vec<String> {
    let line = |trouble: super::conditions::Trouble| {
        let condition = trouble.condition;
        format!("{}: {} {}: {}", trouble.object, condition.r#type, condition.reason, condition.message)
    };
    planned.statuses.troubles().into_iter().map(line).collect()
}

#[test]
fn a_small_gateway() {
    let text = format!(
        "{GATEWAY}  - name: secure
    port: 8443
    protocol: HTTPS
    hostname: '*.example.com'
    tls: {{certificateRefs: [{{name: edge-cert}}]}}
    allowedRoutes: {{namespaces: {{from: All}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: edge-cert, namespace: shop}}
type: kubernetes.io/tls
data: {{tls.crt: Y2VydA==, tls.key: a2V5}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: checkout, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /cart}}}}, {{path: {{type: Exact, value: /cart/now}}}}]
    backendRefs:
    - {{name: checkout, port: 8080, weight: 90}}
    - {{group: multicluster.x-k8s.io, kind: ServiceImport, name: checkout, port: 8080, weight: 10}}
  - backendRefs: [{{name: web, port: 80}}, {{name: gone, port: 80}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: pay, namespace: billing}}
spec:
  parentRefs: [{{name: edge, namespace: shop, sectionName: secure}}]
  hostnames: [shop.example.com, pay.example.com]
  rules:
  - matches: [{{method: {{service: pay.v1.Pay, method: Charge}}}}, {{method: {{service: pay.v1.Pay}}}}]
    backendRefs: [{{name: pay, port: 9000}}]
"
    );
    let planned = planned(&text);
    assert_eq!(
        shown(&planned),
        "\
shop/edge
 8080 http
  *
  shop.example.com
   =/cart/now -> checkout.shop:8080*90 checkout.shop:8080@all*10
   /cart/* -> checkout.shop:8080*90 checkout.shop:8080@all*10
   /* -> web.shop:80*1 refused*1
 8443 https secure *.example.com by shop/edge-cert
  *.example.com
  pay.example.com
   grpc =/pay.v1.Pay/Charge -> h2 pay.billing:9000*1
   grpc /pay.v1.Pay/* -> h2 pay.billing:9000*1
  shop.example.com
   grpc =/pay.v1.Pay/Charge -> h2 pay.billing:9000*1
   grpc /pay.v1.Pay/* -> h2 pay.billing:9000*1
   =/cart/now -> checkout.shop:8080*90 checkout.shop:8080@all*10
   /cart/* -> checkout.shop:8080*90 checkout.shop:8080@all*10
   /* -> web.shop:80*1 refused*1
"
    );
    assert_eq!(
        troubles(&planned),
        ["HTTPRoute shop/checkout: ResolvedRefs BackendNotFound: there is no Service shop/gone with the port 80"]
    );
    let gateway = &planned.statuses.gateways.values().next().unwrap();
    let attached: BTreeMap<_, _> =
        gateway.listeners.iter().map(|listener| (listener.name.as_str(), listener.attached_routes)).collect();
    assert_eq!(attached, [("secure", 2), ("web", 1)].into());
    assert_eq!(format!("{planned:?}").matches("a2V5").count(), 0, "keys are shown nowhere");
}
