//! What a running control plane says of itself, judged. Pure.

use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;

use super::finding::Finding;
use crate::admin::model::Status;
use crate::admin::words::age;

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Judges one control plane; `topology` is the file that the cluster should run, where one was given.
pub(super) fn judge(status: &Status, topology: Option<&Topology>) -> Vec<Finding> {
    let mut findings = vec![version(status), ready(status), source(status), policy(status)];
    findings.extend(running_topology(status, topology));
    findings.extend(status.clusters.iter().filter(|cluster| !cluster.own).map(|cluster| {
        let name = &cluster.name;
        let heard = cluster.heard_ms.map_or("never heard".to_owned(), |ago| format!("last heard {} ago", age(ago)));
        let next = format!("portolan explain cluster={name}");
        match cluster.state {
            Liveness::Fresh => Finding::good("clusters", format!("{name} is heard")),
            Liveness::Suspect => Finding::warning("clusters", format!("{name} is quiet: {heard}"), next),
            Liveness::Stale | Liveness::Isolated if cluster.heard_ms.is_some() => {
                Finding::warning("clusters", format!("{name} is silent: {heard}"), next)
            }
            Liveness::Stale | Liveness::Isolated | Liveness::Failed => {
                Finding::bad("clusters", format!("{name} is not there: {heard}"), next)
            }
        }
    }));
    findings
}

fn version(status: &Status) -> Finding {
    let (node, theirs) = (&status.node, &status.version);
    if theirs == VERSION {
        Finding::good("version", format!("{node} runs {theirs}, as this program is"))
    } else {
        let mend = "use one version on both sides; answers may not be understood";
        Finding::warning("version", format!("{node} runs {theirs}, this program is {VERSION}"), mend)
    }
}

fn ready(status: &Status) -> Finding {
    if status.not_ready.is_empty() {
        return Finding::good("readiness", format!("{} is ready", status.node));
    }
    let left: Vec<_> = status.not_ready.iter().map(String::as_str).collect();
    Finding::bad("readiness", format!("{} waits for: {}", status.node, left.join(", ")), "portolan status says more")
}

fn source(status: &Status) -> Finding {
    match status.source.errors.iter().next() {
        None => Finding::good("source", status.source.source.clone()),
        Some((what, error)) => Finding::bad(
            "source",
            format!("{what}: {} ({} in all)", first_line(error), status.source.errors.len()),
            "portolan status shows each; the last good content stands until then",
        ),
    }
}

fn policy(status: &Status) -> Finding {
    let policy = &status.policy;
    match (&policy.group, &policy.leader) {
        (_, Some(leader)) => {
            let seen = format!("{leader} leads, {} of {} voters answer", policy.answering, policy.voters);
            if policy.answering == policy.voters {
                Finding::good("policy", seen)
            } else {
                Finding::warning("policy", seen, "portolan status shows who is silent")
            }
        }
        (None, None) => Finding::bad(
            "policy",
            "there is no group yet",
            "it forms once every voter of the topology runs, with one topology file; without a voter there is no policy",
        ),
        (Some(_), None) => Finding::bad(
            "policy",
            format!("read-only: no leader is known, {} of {} voters answer", policy.answering, policy.voters),
            "bring a majority of the voters back",
        ),
    }
}

fn running_topology(status: &Status, given: Option<&Topology>) -> Vec<Finding> {
    let ours = &status.topology;
    let mut findings = Vec::new();
    if let Some(error) = &ours.file.error {
        let mend = "mend the file; the topology in force is an older one";
        findings.push(Finding::bad("topology", first_line(error), mend));
    }
    let given = given.map(Topology::short_hash);
    // The warnings of a file that was given here were told with the file.
    if given.as_ref() != Some(&ours.hash) {
        findings.extend(ours.file.warnings.iter().map(|warning| topology_warning("topology", warning)));
    }
    if let Some(given) = given.filter(|given| *given != ours.hash) {
        let seen = format!("{} runs {}, the file given here is {given}", status.cluster, ours.hash);
        findings.push(Finding::bad("topology", seen, "give the cluster this file (helm upgrade)"));
    }
    for cluster in &status.clusters {
        if let Some(theirs) = cluster.topology.as_ref().filter(|theirs| **theirs != ours.hash) {
            let seen = format!("{} runs {theirs}, {} runs {}", cluster.name, status.cluster, ours.hash);
            findings.push(Finding::warning("topology", seen, "give both the same file"));
        }
    }
    if findings.is_empty() {
        findings
            .push(Finding::good("topology", format!("{} {}, the same wherever it was heard", ours.name, ours.hash)));
    }
    findings
}

/// What is probably not meant in a topology, without the excerpt.
pub(super) fn topology_warning(what: &'static str, warning: &str) -> Finding {
    let seen = first_line(warning).replacen(": warning: ", ": ", 1);
    Finding::warning(what, seen, "portolan topology check shows the place")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}
