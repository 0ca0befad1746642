//! That a Lease changes hands as it should, with the server's own optimistic concurrency.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1 as api;
use kube::{Api, Client};
use portolan_controlplane::kube::lease::{Claim, Lease, Standing, Timing};
use tokio::time::{Instant, timeout};

use super::suite::{Check, Lab};

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("lease: one of two holds it, and it changes hands when it is given up", given_up),
        Check::new("lease: it is taken within 15 s of its holder's end, and not before it has run out", run_out),
    ]
}

fn claim(client: &Client, identity: &str) -> Lease {
    let (namespace, name) = ("default".to_owned(), "portolan".to_owned());
    let claim = Claim { namespace, name, identity: identity.to_owned(), timing: Timing::default() };
    Lease::start(client.clone(), claim)
}

async fn until(lease: &Lease, what: &str, holds: impl Fn(&Standing) -> bool) -> anyhow::Result<Standing> {
    let mut standing = lease.standing();
    let found = timeout(Duration::from_secs(30), standing.wait_for(|standing| holds(standing))).await;
    let found = found.with_context(|| format!("not within 30 s: {what}; it is {:?}", lease.standing().borrow()))?;
    Ok(found.context("the Lease has ended")?.clone())
}

async fn given_up(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    let (one, two) = (claim(&client, "one"), claim(&client, "two"));
    let standing = until(&one, "a holder", |standing| standing.holder.is_some()).await?;
    let (first, second) = if standing.mine { (one, two) } else { (two, one) };
    until(&first, "the first holds it", |standing| standing.mine).await?;
    let seen = until(&second, "the second sees it", |standing| standing.holder.is_some()).await?;
    ensure!(!seen.mine, "both hold it");
    first.release().await;
    let taken = until(&second, "the second holds it", |standing| standing.mine).await?;
    ensure!(taken.transitions > seen.transitions, "{seen:?} then {taken:?}");
    let lease = Api::<api::Lease>::namespaced(client, "default").get("portolan").await?;
    let spec = lease.spec.context("a Lease without a spec")?;
    ensure!(spec.holder_identity == taken.holder, "the object says {:?}, we {:?}", spec.holder_identity, taken.holder);
    Ok(())
}

async fn run_out(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    let first = claim(&client, "one");
    until(&first, "the first holds it", |standing| standing.mine).await?;
    let second = claim(&client, "two");
    until(&second, "the second sees it", |standing| standing.holder.is_some()).await?;
    // As a process ends that is killed.
    drop(first);
    let ended = Instant::now();
    until(&second, "the second holds it", |standing| standing.mine).await?;
    let Timing { duration, interval, .. } = Timing::default();
    let took = ended.elapsed();
    // Its last renewal may be an interval old.
    ensure!(took + interval >= duration, "taken after {took:?}, before it ran out");
    ensure!(took <= Duration::from_secs(15), "taken after {took:?}");
    Ok(())
}
