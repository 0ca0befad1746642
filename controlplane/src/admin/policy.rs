//! Policy objects over HTTP: written through the group's leader, read as this node has applied them.
//!
//! * `GET /api/v1/policies?kind=&namespace=&consistent=`, `GET /api/v1/policies/KEY`: KEY is `TrafficPolicy/NAMESPACE/NAME`
//!   or `Drain/NAME`.
//! * `POST` or `PUT /api/v1/policies?dryRun=&expectRevision=&file=`: the body is YAML or JSON, one object or several,
//!   written all or none. `file` is its name in messages.
//! * `DELETE /api/v1/policies/KEY?dryRun=&expectRevision=`.
//! * `GET /api/v1/history?key=`.
//!
//! The header `x-portolan-user` says who.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use portolan_federation::policy::{Change, Command, Outcome, PolicyChange};
use portolan_topology::policy::document::parse;
use portolan_topology::policy::{Drain, Owner, PolicyObject, PolicySet, StoredPolicy, conflicts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Admin;
use super::drain_reach::{Stranded, stranded, unknown_services};
use super::policy_status::{self, Known};
use super::refusal::Refusal;

/// The longest name of a person that is kept.
const LONGEST_USER: usize = 100;

/// How a write is to be done.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WriteOptions {
    /// Checks everything and writes nothing.
    pub(super) dry_run: bool,
    /// The revision that every object must have; 0: it must not exist.
    pub(super) expect_revision: Option<u64>,
    /// The body's name in messages.
    file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadOptions {
    /// Reads through the leader: sees everything that was acknowledged before.
    consistent: bool,
    kind: Option<String>,
    namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HistoryOptions {
    key: Option<String>,
}

/// In whose name a write is.
pub(super) struct Writer {
    /// Who alone may change what is written.
    pub(super) owner: Owner,
    /// Who asks, for the history.
    pub(super) by: String,
}

/// What a write came to, or would.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    /// Policy's revision after it.
    revision: u64,
    dry_run: bool,
    objects: Vec<WrittenObject>,
    /// What is odd but taken.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenObject {
    key: String,
    change: &'static str,
}

pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/api/v1/policies", get(list).post(apply).put(apply))
        .route("/api/v1/policies/{*key}", get(one).delete(delete))
        .route("/api/v1/history", get(history))
        .with_state(admin)
}

async fn list(State(admin): State<Arc<Admin>>, Query(options): Query<ReadOptions>) -> Result<Json<Value>, Refusal> {
    let (revision, all) = admin.read(options.consistent, |known| (known.set.revision, known.all())).await?;
    let wanted = |object: &Value| {
        let is = |field: &Value, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| field == wanted.as_str());
        is(&object["kind"], &options.kind) && is(&object["metadata"]["namespace"], &options.namespace)
    };
    let items: Vec<Value> = all.into_iter().filter(wanted).collect();
    Ok(Json(json!({"revision": revision, "items": items})))
}

async fn one(
    State(admin): State<Arc<Admin>>,
    Path(key): Path<String>,
    Query(options): Query<ReadOptions>,
) -> Result<Json<Value>, Refusal> {
    let object = admin.read(options.consistent, |known| known.one(&key)).await?;
    object.map(Json).ok_or_else(|| admin.no_such(&key))
}

async fn apply(
    State(admin): State<Arc<Admin>>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Written>, Refusal> {
    let file = options.file.as_deref().unwrap_or("body");
    let text = std::str::from_utf8(&body).map_err(|error| Refusal::invalid(format!("{file}: not UTF-8: {error}")))?;
    let topology = admin.topology.borrow().clone();
    let objects = parse(file, text, Some(&topology))?;
    if objects.is_empty() {
        return Err(Refusal::invalid(format!("{file}: there is no object in it; expected a TrafficPolicy or a Drain")));
    }
    admin.write(PolicyChange::Apply(objects), &options, Writer::of(&headers)).await.map(Json)
}

async fn delete(
    State(admin): State<Arc<Admin>>,
    Path(key): Path<String>,
    Query(options): Query<WriteOptions>,
    headers: HeaderMap,
) -> Result<Json<Written>, Refusal> {
    admin.write(PolicyChange::Delete(vec![key]), &options, Writer::of(&headers)).await.map(Json)
}

async fn history(State(admin): State<Arc<Admin>>, Query(options): Query<HistoryOptions>) -> Json<Value> {
    let shown = |change: Change| {
        let Change { revision, key, by, at, object } = change;
        let object = object.map(|object| object.to_json());
        json!({"revision": revision, "key": key, "by": by, "at": at, "object": object})
    };
    let changes = admin.federation.policy().history(options.key.as_deref());
    Json(json!({"changes": changes.into_iter().map(shown).collect::<Vec<_>>()}))
}

impl Admin {
    /// Reads what this node has applied.
    pub(super) async fn read<T>(&self, consistent: bool, read: impl FnOnce(Known<'_>) -> T) -> Result<T, Refusal> {
        let policy = self.federation.policy();
        if consistent {
            policy.read_barrier().await?;
        }
        let set = policy.set().borrow().clone();
        let inputs = self.catalog.inputs();
        Ok(read(Known { set: &set, inputs: &inputs, nacked: self.federation.nacked(), now: Timestamp::now() }))
    }

    /// Checks a change against how things are, and writes it.
    pub(super) async fn write(
        &self,
        change: PolicyChange,
        options: &WriteOptions,
        writer: Writer,
    ) -> Result<Written, Refusal> {
        let (Writer { owner, by }, at) = (writer, Timestamp::now());
        let policy = self.federation.policy();
        let before = policy.set().borrow().clone();
        let after = preview(&before, &change);
        let mut warnings = Vec::new();
        if let PolicyChange::Apply(objects) = &change {
            warnings = self.check_reach(&after, objects, at)?;
            let conflicts = conflicts(&after);
            for (key, conflict) in objects.iter().filter_map(|object| conflicts.get_key_value(&object.key())) {
                let said = conflict.iter().map(policy_status::conflict);
                warnings.extend(said.map(|said| format!("{key} is Conflicted: {said}")));
            }
        }
        let objects = change.keys().into_iter().map(|key| {
            let change = match (before.objects.get(&key), after.objects.get(&key)) {
                (None, Some(_)) => "created",
                (Some(before), Some(after)) if before.object == after.object => "unchanged",
                (_, Some(_)) => "changed",
                (_, None) => "deleted",
            };
            WrittenObject { key, change }
        });
        let objects = objects.collect();
        let dry_run = options.dry_run;
        let take_over = self.are_abandoned(&before, &change, &owner);
        let command = Command { change, expected_revision: options.expect_revision, owner, take_over, by, at };
        let outcome = if dry_run { foretell(&before, &command) } else { policy.write(command).await? };
        match outcome {
            Outcome::Applied { revision } | Outcome::Unchanged { revision } => {
                Ok(Written { revision, dry_run, objects, warnings })
            }
            Outcome::NotFound { key } => Err(self.no_such(&key)),
            Outcome::Owned { key, owner } => Err(owned(&key, &owner)),
            Outcome::Conflict { key, found } => Err(conflict(&key, found, options.expect_revision)),
            Outcome::Nothing => Err(Refusal::conflict("Nothing", "the leader did not take it for a change of policy")),
        }
    }

    /// Whether what `change` names and another owns has an owner that cannot speak for it any more: a cluster that the
    /// topology does not name as a config cluster now.
    fn are_abandoned(&self, set: &PolicySet, change: &PolicyChange, writer: &Owner) -> bool {
        let topology = self.topology.borrow();
        let abandoned = |owner: &Owner| match owner {
            Owner::Admin => false,
            Owner::Kubernetes(cluster) => !topology.is_config(cluster),
        };
        let keys = change.keys();
        let owners = keys.iter().filter_map(|key| set.objects.get(key)).map(|stored| &stored.owner);
        let mut others = owners.filter(|owner| *owner != writer).peekable();
        // Nobody's to take over: then nobody's is, whoever writes it meanwhile.
        others.peek().is_some() && others.all(abandoned)
    }

    /// Refuses Drains that would leave a service nothing, and warns of those that say that they know.
    fn check_reach(&self, after: &PolicySet, objects: &[PolicyObject], now: Timestamp) -> Result<Vec<String>, Refusal> {
        let inputs = self.catalog.inputs();
        let drains = || {
            objects.iter().filter_map(|object| match object {
                PolicyObject::Drain(drain) => Some(drain),
                PolicyObject::TrafficPolicy(_) => None,
            })
        };
        let (forced, careful): (Vec<&Drain>, Vec<&Drain>) = drains().partition(|drain| drain.spec.force);
        let refused = stranded(&inputs, after, &careful, now);
        if !refused.is_empty() {
            let services: Vec<String> = refused.iter().map(|stranded| stranded.service.to_string()).collect();
            let error = format!("{}; force it if that is meant", left_nothing(&refused));
            return Err(Refusal::conflict("LeavesNothing", error).with("services", services));
        }
        let left = stranded(&inputs, after, &forced, now);
        let mut warnings: Vec<String> = (!left.is_empty()).then(|| left_nothing(&left)).into_iter().collect();
        for drain in drains() {
            let unknown = unknown_services(&inputs, &drain.spec);
            warnings.extend(unknown.iter().map(|service| format!("no cluster tells of a service {service}")));
        }
        Ok(warnings)
    }

    fn no_such(&self, key: &str) -> Refusal {
        let set = self.federation.policy().set().borrow().clone();
        let nearest = portolan_topology::diagnostic::nearest(key, set.objects.keys().map(String::as_str));
        let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean `{nearest}`?"));
        Refusal::not_found(format!("there is no {key}{hint}"))
    }
}

fn left_nothing(stranded: &[Stranded]) -> String {
    let names: Vec<String> = stranded.iter().map(ToString::to_string).collect();
    let which = if let [only] = names.as_slice() {
        only.clone()
    } else {
        format!("{} services ({})", names.len(), names.join(", "))
    };
    format!("this leaves {which} nothing ready that is not drained, so what is drained would serve on")
}

/// The set as it will be. A new object is younger than all others.
fn preview(before: &PolicySet, change: &PolicyChange) -> PolicySet {
    let mut after = before.clone();
    match change {
        PolicyChange::Apply(objects) => {
            for object in objects {
                let created = before.objects.get(&object.key()).map_or(u64::MAX, |stored| stored.created);
                let (by, at) = (String::new(), Timestamp::UNIX_EPOCH);
                let (key, object, owner) = (object.key(), object.clone(), Owner::default());
                after.objects.insert(key, StoredPolicy { object, owner, created, revision: u64::MAX, by, at });
            }
        }
        PolicyChange::Delete(keys) => {
            for key in keys {
                after.objects.remove(key);
            }
        }
    }
    after
}

/// What the group would say, as far as this node knows.
fn foretell(set: &PolicySet, command: &Command) -> Outcome {
    for key in command.change.keys() {
        let stored = set.objects.get(&key);
        let found = stored.map_or(0, |stored| stored.revision);
        if let Some(stored) = stored.filter(|stored| stored.owner != command.owner && !command.take_over) {
            return Outcome::Owned { key, owner: stored.owner.clone() };
        }
        if command.expected_revision.is_some_and(|expected| expected != found) {
            return Outcome::Conflict { key, found };
        }
        if found == 0 && matches!(command.change, PolicyChange::Delete(_)) {
            return Outcome::NotFound { key };
        }
    }
    Outcome::Unchanged { revision: set.revision }
}

fn owned(key: &str, owner: &Owner) -> Refusal {
    let mend = match owner {
        Owner::Admin => format!("`portolan policy delete {key}` gives it up"),
        Owner::Kubernetes(_) => "change or delete the object there, with kubectl".to_owned(),
    };
    let error = format!("{key} belongs to {owner}, and only there it can be changed: {mend}");
    Refusal::conflict("Owned", error).with("key", key).with("owner", owner.to_string())
}

fn conflict(key: &str, found: u64, expected: Option<u64>) -> Refusal {
    let is = if found == 0 { format!("{key} does not exist") } else { format!("{key} is at revision {found}") };
    let wanted = match expected {
        Some(0) => "it was expected not to exist".to_owned(),
        Some(expected) => format!("revision {expected} was expected"),
        None => "another was expected".to_owned(),
    };
    let error = format!("{is}, {wanted}; nothing was written: read it and try again");
    Refusal::conflict("Conflict", error).with("key", key).with("found", found)
}

impl Writer {
    /// People, through the admin interface.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { owner: Owner::Admin, by: user(headers) }
    }
}

/// Who asks, as they say.
fn user(headers: &HeaderMap) -> String {
    let said = headers.get("x-portolan-user").and_then(|value| value.to_str().ok()).map(str::trim);
    said.filter(|said| !said.is_empty()).unwrap_or("unknown").chars().take(LONGEST_USER).collect()
}
