//! `cargo kube`: checks against a real Kubernetes API server, one line each. No fake of a server stands here; what a real
//! one does not do on demand is done by a proxy in front of it.
//!
//! [`tools`] finds or builds the server, [`namespace`] makes a network of the run's own, [`suite`] runs the checks of the
//! topics below, each of which gets a [`suite::Lab`] to start [`apiserver::ApiServer`]s in.

mod access;
mod apiserver;
mod bench;
mod calls;
mod chart;
mod commands;
mod gateway;
mod kubelet;
mod lease;
mod mcs;
mod namespace;
mod nodes;
mod objects;
mod plane;
mod pods;
mod policy;
mod proxy;
mod server;
mod source;
mod subscriber;
mod suite;
mod tools;
mod whole;

use std::process::ExitCode;

use crate::terminal::Terminal;

/// What is to be run.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Run only the checks whose names contain one of these.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// List the checks.
    #[arg(long, conflicts_with = "names")]
    list: bool,
    /// Measure instead, with 10,000 Pods in 1,000 Services; the last line is JSON.
    #[arg(long, conflicts_with_all = ["names", "list"])]
    bench: bool,
}

/// The same inside of the run's network, with what was found before.
#[derive(Debug, Clone, clap::Args)]
pub struct Inside {
    #[command(flatten)]
    arguments: Arguments,
    #[command(flatten)]
    tools: tools::Tools,
}

/// Every check, by topic.
fn checks() -> Vec<suite::Check> {
    let topics = [
        server::checks(),
        lease::checks(),
        policy::checks(),
        mcs::checks(),
        gateway::checks(),
        source::checks(),
        whole::checks(),
        nodes::checks(),
        access::checks(),
        chart::checks(),
    ];
    topics.into_iter().flatten().collect()
}

/// Gets what the checks need and goes on as [`inside`] in a network of its own. Returns only when there is nothing to
/// run, or if that fails.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    if arguments.list {
        checks().iter().for_each(|check| terminal.say(check.name));
        return Ok(ExitCode::SUCCESS);
    }
    suite::chosen(checks(), &arguments.names)?;
    let tools = tools::Tools::find(arguments.bench)?;
    let mut command = vec![namespace::INSIDE.to_owned()];
    command.extend(tools.flags());
    command.extend(arguments.bench.then(|| "--bench".to_owned()));
    command.extend(arguments.names.iter().cloned());
    Err(namespace::enter(&command))
}

/// Runs the checks.
pub async fn inside(inside: Inside, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    if inside.arguments.bench {
        let folder = suite::folder()?;
        let lab = suite::Lab { tools: inside.tools, folder: folder.path().to_owned() };
        let missed = bench::run(&lab, terminal).await?;
        return Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let checks = suite::chosen(checks(), &inside.arguments.names)?;
    let failed = suite::run(checks, inside.tools, terminal).await?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
