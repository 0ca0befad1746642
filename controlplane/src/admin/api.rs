//! `/api/v1/…`: the questions.

use std::sync::Arc;

use axum::extract::{Path, Query as Parameters, State};
use axum::routing::get;
use axum::{Json, Router};
use portolan_topology::diagnostic::nearest;
use portolan_topology::names::{ClusterName, Locality, ServiceId, ZoneName};
use serde::Deserialize;

use super::Admin;
use super::model::{Clients, ClusterExplained, Endpoints, EndpointsOf, Explained, Loads, Services, Status};
use super::refusal::Refusal;
use crate::catalog::served::Query;
use crate::resources::name::ResourceName;

pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/services", get(services))
        .route("/api/v1/endpoints/{service}", get(endpoints))
        .route("/api/v1/loads/{service}", get(loads))
        .route("/api/v1/explain/{service}", get(explain))
        .route("/api/v1/explain/cluster/{name}", get(explain_cluster))
        .with_state(admin)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    Json(admin.status())
}

async fn clients(State(admin): State<Arc<Admin>>) -> Json<Clients> {
    Json(admin.clients())
}

async fn services(State(admin): State<Arc<Admin>>) -> Json<Services> {
    Json(admin.services())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    /// The client's zone.
    from: Option<String>,
    /// Its cluster, where several span the zone.
    cluster: Option<String>,
}

async fn endpoints(
    State(admin): State<Arc<Admin>>,
    Path(service): Path<String>,
    Parameters(from): Parameters<From>,
) -> Result<Json<Endpoints>, Refusal> {
    let query = admin.query(&service, &from)?;
    let listed = admin.catalog.endpoints(&query).ok_or_else(|| admin.unknown_service(&service))?;
    let localities = listed.endpoints.into_iter();
    Ok(Json(Endpoints {
        service: query.service,
        port: listed.port,
        client: query.client,
        localities: localities.map(|(locality, endpoints)| EndpointsOf { locality, endpoints }).collect(),
        waiting: listed.waiting,
    }))
}

async fn loads(State(admin): State<Arc<Admin>>, Path(service): Path<String>) -> Result<Json<Loads>, Refusal> {
    let query = admin.query(&service, &From { from: None, cluster: None })?;
    if admin.catalog.endpoints(&query).is_none() {
        return Err(admin.unknown_service(&service));
    }
    Ok(Json(super::loads::of(query.service, admin.loads.snapshot())))
}

async fn explain(
    State(admin): State<Arc<Admin>>,
    Path(service): Path<String>,
    Parameters(from): Parameters<From>,
) -> Result<Json<Explained>, Refusal> {
    if from.from.is_none() {
        return Err(Refusal::invalid("from which zone? add `from`, such as ?from=us-east-1a"));
    }
    let query = admin.query(&service, &from)?;
    let explained = admin.catalog.explain(&query).ok_or_else(|| admin.unknown_service(&service))?;
    let routes = admin.xds.services().routes(&query.service).filter(|_| query.client.cluster == admin.cluster);
    let routes = routes.and_then(|routes| Some(routes.of(explained.port, query.scope)?.len()));
    Ok(Json(Explained {
        routes: routes.unwrap_or_default(),
        service: query.service,
        port: explained.port,
        client: query.client,
        watched: explained.watched,
        plan: explained.plan,
        duplicates: explained.duplicates,
        waiting: explained.waiting,
    }))
}

async fn explain_cluster(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<ClusterExplained>, Refusal> {
    let known = ClusterName::new(&name).ok().and_then(|name| admin.explain_cluster(&name));
    known.map(Json).ok_or_else(|| {
        let topology = admin.topology.borrow();
        let names = topology.clusters().map(|cluster| cluster.name.as_str());
        Refusal::not_found(format!("no cluster `{name}` is known{}", meant(&name, names)))
    })
}

impl Admin {
    fn query(&self, service: &str, from: &From) -> Result<Query, Refusal> {
        let name: ResourceName = service.parse().map_err(|error| Refusal::invalid(format!("{error}")))?;
        Ok(name.query(self.client(from)?))
    }

    /// The place that `from` means. Of several clusters in one zone ours is meant, unless it says otherwise.
    fn client(&self, from: &From) -> Result<Locality, Refusal> {
        let topology = self.topology.borrow().clone();
        let named = match &from.cluster {
            None => None,
            Some(name) => {
                let names = topology.clusters().map(|cluster| cluster.name.as_str());
                let unknown = || Refusal::not_found(format!("no cluster `{name}` is known{}", meant(name, names)));
                let known = topology.clusters().find(|cluster| cluster.name.as_str() == name).ok_or_else(unknown)?;
                Some(known.name.clone())
            }
        };
        let Some(zone) = &from.from else {
            let cluster = named.as_ref().unwrap_or(&self.cluster);
            return topology.locality(cluster, None).ok_or_else(|| self.left_the_topology());
        };
        let zones = topology.regions.iter().flat_map(|region| &region.zones).map(ZoneName::as_str);
        let unknown = || Refusal::not_found(format!("the topology has no zone `{zone}`{}", meant(zone, zones)));
        let zone = ZoneName::new(zone).ok().filter(|zone| topology.region_of_zone(zone).is_some());
        let zone = zone.ok_or_else(unknown)?;
        let spans = |name: &&ClusterName| topology.cluster(name).is_some_and(|cluster| cluster.zones.contains(&zone));
        let cluster = match &named {
            Some(named) if spans(&named) => Some(named),
            Some(named) => return Err(Refusal::invalid(format!("cluster `{named}` does not span the zone `{zone}`"))),
            None => Some(&self.cluster).filter(spans).or_else(|| topology.clusters().map(|it| &it.name).find(spans)),
        };
        let cluster = cluster.ok_or_else(|| Refusal::not_found(format!("no cluster spans the zone `{zone}`")))?;
        topology.locality(cluster, Some(&zone)).ok_or_else(|| self.left_the_topology())
    }

    fn left_the_topology(&self) -> Refusal {
        Refusal::not_found(format!("the topology has no cluster `{}` any more", self.cluster))
    }

    fn unknown_service(&self, name: &str) -> Refusal {
        let services = self.services().services;
        let known: Vec<String> = services.iter().map(|service| service.service.to_string()).collect();
        let host = name.split_once(':').map_or(name, |(host, _)| host);
        let is_known = host.parse::<ServiceId>().is_ok_and(|id| services.iter().any(|service| service.service == id));
        if is_known {
            return Refusal::not_found(format!(
                "the service `{host}` has no such port, or none in that scope: `{name}`"
            ));
        }
        let mend = match meant(host, known.iter().map(String::as_str)) {
            none if none.is_empty() => "; `portolan services` shows those that there are".to_owned(),
            meant => meant,
        };
        Refusal::not_found(format!("no service `{host}` is known{mend}"))
    }
}

/// ``; did you mean `X`?``, or nothing.
fn meant<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map_or(String::new(), |meant| format!("; did you mean `{meant}`?"))
}
