//! Sentences for people: what a cluster's state means, and what comes next. Pure.

use std::time::Duration;

use portolan_topology::view::Liveness;

use super::model::ClusterShown;

/// How long ago, as tables show it: `740ms` is `0s`, then `74s`, `12m`, `3h`, `2d`.
pub(crate) fn age(milliseconds: u64) -> String {
    let seconds = Duration::from_millis(milliseconds).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A cluster's state, as tables show it.
pub(crate) fn state(state: Liveness) -> &'static str {
    match state {
        Liveness::Fresh => "fresh",
        Liveness::Suspect => "suspect",
        Liveness::Stale => "stale",
        Liveness::Failed => "failed",
        Liveness::Isolated => "isolated",
    }
}

/// What there is to know of a cluster's state.
pub(crate) fn cluster(cluster: &ClusterShown, own_topology: &str) -> Vec<String> {
    if cluster.own {
        let synced = if cluster.complete { "its source is synced" } else { "its source has not been read whole yet" };
        return vec![format!("it is our own cluster: {synced}")];
    }
    let heard = match cluster.heard_ms {
        Some(ago) => format!("nothing heard for {}", age(ago)),
        None => "nothing heard since this control plane started".to_owned(),
    };
    let mut because = vec![match cluster.state {
        Liveness::Fresh => "its control plane is heard; its state is used as it is".to_owned(),
        Liveness::Suspect => format!("{heard}; its endpoints are still used, and probed first-hand"),
        Liveness::Stale => format!("{heard}; its endpoints are still used, but get no more share than they had"),
        Liveness::Failed => {
            format!("{heard}, and its endpoints do not answer first-hand: it gets no traffic until it is heard again")
        }
        Liveness::Isolated => {
            format!("{heard}, as of most regions: it is probably we who are cut off; nothing expires")
        }
    }];
    if !cluster.complete {
        because.push("not everything that it tells has arrived: what is missing here may exist there".to_owned());
    }
    if cluster.region.is_none() {
        because.push("our topology does not have it: it gets no traffic from here".to_owned());
    }
    if let Some(theirs) = cluster.topology.as_ref().filter(|theirs| *theirs != own_topology) {
        because.push(format!("it runs another topology: {theirs}, ours is {own_topology}"));
    }
    because
}
