//! Drains by what they are for: `POST /api/v1/drains?dryRun=` with a Drain's `spec`, whose name is made from its scope;
//! `DELETE /api/v1/drains/SCOPE?dryRun=` ends every Drain of that scope, whatever its name.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{delete, post};
use axum::{Json, Router};
use portolan_federation::policy::PolicyChange;
use portolan_topology::policy::document::parse;
use portolan_topology::policy::{Drain, PolicyObject, Scope};
use portolan_topology::topology::API_VERSION;
use serde_json::{Value, json};

use super::Admin;
use super::policy::{WriteOptions, Writer, Written};
use super::refusal::{Refusal, without_places};

pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new().route("/api/v1/drains", post(begin)).route("/api/v1/drains/{scope}", delete(end)).with_state(admin)
}

async fn begin(
    State(admin): State<Arc<Admin>>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Written>, Refusal> {
    let spec: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::invalid(format!("the body is not a Drain's spec in JSON: {error}")))?;
    let name = spec["scope"].as_object().into_iter().flatten().find_map(|(kind, name)| {
        // What the scope lacks is told with everything else that is wrong.
        name.as_str().map(|name| format!("{kind}-{name}"))
    });
    let metadata = json!({"name": name.as_deref().unwrap_or("drain")});
    let document = json!({"apiVersion": API_VERSION, "kind": "Drain", "metadata": metadata, "spec": spec});
    let topology = admin.topology.borrow().clone();
    let objects =
        parse("drain", &document.to_string(), Some(&topology)).map_err(|mistakes| without_places(&mistakes))?;
    admin.write(PolicyChange::Apply(objects), &options, Writer::of(&headers)).await.map(Json)
}

async fn end(
    State(admin): State<Arc<Admin>>,
    Path(scope): Path<String>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
) -> Result<Json<Written>, Refusal> {
    let scope: Scope = scope.parse().map_err(Refusal::invalid)?;
    let set = admin.federation.policy().set().borrow().clone();
    let drains = || {
        set.objects.iter().filter_map(|(key, stored)| match &stored.object {
            PolicyObject::Drain(drain) => Some((key, drain)),
            PolicyObject::TrafficPolicy(_) => None,
        })
    };
    let keys: Vec<String> =
        drains().filter(|(_, drain)| drain.spec.scope == scope).map(|(key, _)| key.clone()).collect();
    if keys.is_empty() {
        return Err(not_drained(&scope, drains().map(|(_, drain)| drain)));
    }
    admin.write(PolicyChange::Delete(keys), &options, Writer::of(&headers)).await.map(Json)
}

fn not_drained<'a>(scope: &Scope, drains: impl Iterator<Item = &'a Drain>) -> Refusal {
    let scopes: Vec<String> = drains.map(|drain| drain.spec.scope.to_string()).collect();
    let there = if scopes.is_empty() { "nothing is".to_owned() } else { format!("drained: {}", scopes.join(", ")) };
    Refusal::not_found(format!("{scope} is not drained; {there}"))
}
