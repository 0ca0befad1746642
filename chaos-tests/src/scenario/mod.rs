//! Scenarios: what is to happen to a federation, and what must hold while it does.
//!
//! A file is parsed and checked whole against the topology that it runs on; a bad one is refused with every mistake's
//! place. Nothing here runs anything.

pub mod builtin;
mod check;
mod document;
mod expectations;
mod model;
mod roles;

#[cfg(test)]
mod tests;

use portolan_topology::diagnostic::{Diagnostics, Source};
use portolan_topology::document::{self as documents, Fields};
use portolan_topology::topology::Topology;

pub use model::{Action, Between, Clients, Expectation, Scenario, Service, Step, Target, Wanted};

/// The version of scenarios that is read here.
pub const API_VERSION: &str = "portolan.dev/v1alpha1";

/// What a scenario calls itself.
const KIND: &str = "Scenario";

/// The fewest calls that an expectation may rest on.
pub const FEWEST_CALLS: usize = 1_000;

/// The fewest calls that a share may rest on.
pub const FEWEST_CALLS_BEHIND_A_SHARE: usize = 5_000;

/// The topology file that a scenario names, as written there.
pub fn topology_path(file: &str, text: &str) -> Result<Option<String>, Diagnostics> {
    let document = documents::parse_one(file, text)?;
    if let Some(other) = document.text_at(&["kind"]).filter(|kind| kind.value != KIND) {
        let mut report = document.report();
        report.error(other.span, format!("this is a {}", other.value)).expected(format!("a {KIND}"));
        report.finish()?;
    }
    Ok(document.text_at(&["spec", "topology"]).map(|path| path.value.to_owned()))
}

/// Reads and checks a scenario for `topology`.
pub fn parse(file: &str, text: &str, topology: &Topology) -> Result<Scenario, Diagnostics> {
    let document = documents::parse_one(file, text)?;
    let mut report = document.report();
    let scenario = document
        .read_into::<document::File>(Fields::Known, &mut report)
        .and_then(|file| check::check(file, topology, &mut report));
    report.finish()?;
    let unreadable = || Source::new(file, text).refuse(document.span(), "the scenario could not be read");
    scenario.ok_or_else(unreadable)
}
