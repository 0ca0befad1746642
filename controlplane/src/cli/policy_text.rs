//! Policy objects and what became of them, as people read them. Pure: from the admin interface's JSON to text.

use serde_json::Value;

use super::format::table;

/// Objects as a table.
pub(super) fn objects(objects: &[Value], wide: bool) -> String {
    if objects.is_empty() {
        return "no policy objects\n".to_owned();
    }
    let mut header = vec!["KIND", "NAMESPACE", "NAME", "REVISION", "FOR", "ACCEPTED", "PROGRAMMED"];
    if wide {
        header.extend(["BY", "AT", "BECAUSE"]);
    }
    let rows: Vec<_> = objects.iter().map(|object| row(object, wide)).collect();
    table(&header, &rows)
}

fn row(object: &Value, wide: bool) -> Vec<String> {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let mut row = vec![
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
        revision(&status["revision"]),
        purpose(object),
        condition(status, "Accepted"),
        condition(status, "Programmed"),
    ];
    if wide {
        row.extend([text(&status["by"]), text(&status["at"]), because(object)]);
    }
    row
}

/// What the object is for.
fn purpose(object: &Value) -> String {
    let spec = &object["spec"];
    if object["kind"] == "Drain" {
        let mut said = spec["scope"].as_object().map_or(String::new(), |scope| scope_text(scope.iter().next()));
        if spec["percent"] != 100 {
            said.push_str(&format!(" {}%", spec["percent"]));
        }
        if let Some(services) = spec["services"].as_array() {
            let services: Vec<&str> = services.iter().filter_map(Value::as_str).collect();
            said.push_str(&format!(" of {}", services.join(", ")));
        }
        said.push_str(&progress(&object["status"]));
        return said;
    }
    let targets = spec["targetRefs"].as_array().into_iter().flatten().map(|target| {
        let port = target["sectionName"].as_str().map_or(String::new(), |port| format!(":{port}"));
        format!("{} {}{port}", text(&target["kind"]), text(&target["name"]))
    });
    targets.collect::<Vec<_>>().join(", ")
}

/// How far a Drain has got, and what still goes there.
fn progress(status: &Value) -> String {
    let way = match (status["phase"].as_str(), &status["percent"]) {
        (None, _) => return String::new(),
        (Some("Complete"), _) => None,
        (Some(phase @ ("Ramping" | "Restoring")), percent) => Some(format!("{} {percent}%", phase.to_lowercase())),
        (Some(phase), _) => Some(phase.to_lowercase()),
    };
    let left = status["remainingRequestsPerSecond"].as_u64().map(|left| format!("{left} rps left"));
    let said: Vec<String> = way.into_iter().chain(left).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

fn scope_text(scope: Option<(&String, &Value)>) -> String {
    scope.map_or(String::new(), |(kind, name)| format!("{kind}={}", text(name)))
}

/// A condition's status, and its reason if it is not as it should be.
fn condition(status: &Value, kind: &str) -> String {
    let Some(condition) = status["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == kind))
    else {
        return "–".to_owned();
    };
    match condition["status"].as_str() {
        Some("True") => "yes".to_owned(),
        Some("False") => format!("no: {}", text(&condition["reason"])),
        _ => text(&condition["reason"]),
    }
}

/// A Drain's reason, or what its conditions say.
fn because(object: &Value) -> String {
    let reason = object["spec"]["reason"].as_str();
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let said: Vec<&str> = reason.into_iter().chain(conditions.filter_map(|one| one["message"].as_str())).collect();
    if said.is_empty() { "–".to_owned() } else { said.join("; ") }
}

/// What a write came to, a line for each object.
pub(super) fn written(answer: &Value) -> String {
    let objects = answer["objects"].as_array().into_iter().flatten();
    let line = |object: &Value| {
        let (key, change) = (text(&object["key"]), text(&object["change"]));
        match (answer["dryRun"] == true, change.as_str()) {
            (_, "unchanged") => format!("{key} unchanged\n"),
            (true, _) => format!("{key} would be {change} (dry run)\n"),
            (false, _) => format!("{key} {change} at {}\n", revision(&answer["revision"])),
        }
    };
    objects.map(line).collect()
}

/// Changes as a table, the oldest first.
pub(super) fn history(changes: &[Value]) -> String {
    if changes.is_empty() {
        return "no changes\n".to_owned();
    }
    let row = |change: &Value| {
        let what = if change["object"].is_null() { "removed" } else { "written" };
        let [at, by, key] = ["at", "by", "key"].map(|field| text(&change[field]));
        vec![revision(&change["revision"]), at, by, key, what.to_owned()]
    };
    table(&["REVISION", "AT", "BY", "OBJECT", "CHANGE"], &changes.iter().map(row).collect::<Vec<_>>())
}

fn revision(value: &Value) -> String {
    value.as_u64().map_or("–".to_owned(), |revision| format!("r{revision}"))
}

/// A text field; `–` where there is none. What others wrote cannot steer a terminal.
fn text(value: &Value) -> String {
    value.as_str().map_or("–".to_owned(), |text| text.replace(char::is_control, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn two() -> Vec<Value> {
        let condition =
            |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason});
        vec![
            json!({
                "kind": "Drain",
                "metadata": {"name": "zone-us-east-1a"},
                "spec": {"scope": {"zone": "us-east-1a"}, "percent": 50, "services": ["cart.shop"], "reason": "CHG-1"},
                "status": {"revision": 12, "by": "ada", "at": "2026-12-01T02:00:00Z", "phase": "Ramping", "percent": 40, "remainingRequestsPerSecond": 310, "conditions": [
                    condition("Accepted", "True", "Accepted"), condition("Programmed", "Unknown", "NotHeard"),
                ]},
            }),
            json!({
                "kind": "TrafficPolicy",
                "metadata": {"name": "checkout", "namespace": "shop"},
                "spec": {"targetRefs": [
                    {"kind": "Service", "name": "checkout", "sectionName": "grpc"}, {"kind": "Namespace", "name": "shop"},
                ]},
                "status": {"revision": 9, "by": "eve\u{1b}[2J", "at": "2026-12-01T02:00:00Z", "conditions": [
                    {"type": "Accepted", "status": "False", "reason": "Conflicted", "message": "old is older"},
                    condition("Programmed", "True", "AllClusters"),
                ]},
            }),
        ]
    }

    #[test]
    fn a_table_of_objects() {
        assert_eq!(
            objects(&two(), false),
            "\
KIND           NAMESPACE  NAME             REVISION  FOR                                                           ACCEPTED        PROGRAMMED
Drain          –          zone-us-east-1a  r12       zone=us-east-1a 50% of cart.shop (ramping 40%, 310 rps left)  yes             NotHeard
TrafficPolicy  shop       checkout         r9        Service checkout:grpc, Namespace shop                         no: Conflicted  yes
"
        );
    }

    #[test]
    fn a_wide_table_says_who_and_why_and_steers_no_terminal() {
        let wide = objects(&two(), true);
        let ends: Vec<&str> =
            wide.lines().filter_map(|line| line.split_once("2026-12-01T02:00:00Z  ")).map(|(_, why)| why).collect();
        assert_eq!(ends, ["CHG-1", "old is older"]);
        assert!(wide.contains("eve\u{fffd}[2J") && !wide.contains('\u{1b}'), "{wide:?}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(objects(&[], false), "no policy objects\n");
        assert_eq!(history(&[]), "no changes\n");
    }

    #[test]
    fn what_a_write_came_to() {
        let answer = |dry: bool| {
            let object = |key: &str, change: &str| json!({"key": key, "change": change});
            let objects = [object("Drain/a", "created"), object("Drain/b", "unchanged"), object("Drain/c", "deleted")];
            json!({"revision": 7, "dryRun": dry, "objects": objects})
        };
        assert_eq!(written(&answer(false)), "Drain/a created at r7\nDrain/b unchanged\nDrain/c deleted at r7\n");
        assert_eq!(
            written(&answer(true)),
            "Drain/a would be created (dry run)\nDrain/b unchanged\nDrain/c would be deleted (dry run)\n"
        );
    }

    #[test]
    fn a_history_as_a_table() {
        let changes = [
            json!({"revision": 7, "at": "2026-12-01T02:00:00Z", "by": "ada", "key": "Drain/a", "object": {"kind": "Drain"}}),
            json!({"revision": 11, "at": "2026-12-01T03:00:00Z", "by": "grace", "key": "Drain/a", "object": null}),
        ];
        assert_eq!(
            history(&changes),
            "\
REVISION  AT                    BY     OBJECT   CHANGE
r7        2026-12-01T02:00:00Z  ada    Drain/a  written
r11       2026-12-01T03:00:00Z  grace  Drain/a  removed
"
        );
    }
}
