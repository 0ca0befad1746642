//! `portolan drain` and `portolan undrain`: take a region, cluster or zone out, and give it back.

use clap::Args;
use jiff::Timestamp;
use portolan_topology::duration::DurationText;
use portolan_topology::names::ServiceId;
use portolan_topology::policy::Scope;
use serde_json::{Map, Value, json};

use super::Failure;
use super::ask::{At, Parameters};
use super::format::Output;
use super::policy::written;

/// Takes a region, cluster or zone out of service
#[derive(Debug, Args)]
pub(super) struct Drain {
    /// What: region=NAME, cluster=NAME or zone=NAME
    #[arg(value_name = "SCOPE")]
    scope: Scope,
    /// Why, for the people who find it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long the way out takes [default: 5m]
    #[arg(long, value_name = "DURATION")]
    over: Option<DurationText>,
    /// How long the way back takes [default: 10m]
    #[arg(long, value_name = "DURATION")]
    restore_over: Option<DurationText>,
    /// How much of its capacity is taken away [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: Option<u32>,
    /// For this service alone; may be given again
    #[arg(long = "service", value_name = "SERVICE.NAMESPACE")]
    services: Vec<ServiceId>,
    /// From when, such as 2026-12-01T02:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    start_time: Option<Timestamp>,
    /// Until when [default: until it is given back]
    #[arg(long, value_name = "TIME")]
    end_time: Option<Timestamp>,
    /// Even if a service has nowhere left
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    write: Write,
}

/// Gives a region, cluster or zone back
#[derive(Debug, Args)]
pub(super) struct Undrain {
    /// What: region=NAME, cluster=NAME or zone=NAME
    #[arg(value_name = "SCOPE")]
    scope: Scope,
    #[command(flatten)]
    write: Write,
}

#[derive(Debug, Args)]
struct Write {
    /// Checks everything and writes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

impl Write {
    fn parameters(&self) -> Parameters {
        Parameters::default().flag("dryRun", self.dry_run)
    }
}

impl Drain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let answer = self.write.at.post("/api/v1/drains", self.write.parameters(), self.spec().to_string())?;
        written(&answer, self.write.output.format)
    }

    /// The Drain's `spec`, with what was said alone: the control plane knows the defaults.
    fn spec(&self) -> Value {
        let given: [(&str, Option<Value>); 9] = [
            ("scope", Some(json!(self.scope))),
            ("reason", Some(json!(self.reason))),
            ("services", (!self.services.is_empty()).then(|| json!(self.services))),
            ("percent", self.percent.map(|percent| json!(percent))),
            ("over", self.over.map(|over| json!(over))),
            ("restoreOver", self.restore_over.map(|over| json!(over))),
            ("startTime", self.start_time.map(|time| json!(time))),
            ("endTime", self.end_time.map(|time| json!(time))),
            ("force", self.force.then_some(Value::Bool(true))),
        ];
        let given = given.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

impl Undrain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let path = format!("/api/v1/drains/{}", self.scope);
        let answer = self.write.at.delete(&path, self.write.parameters())?;
        written(&answer, self.write.output.format)
    }
}
