//! `portolan policy`: writes and reads policy objects.

use std::io::Read as _;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{At, Parameters};
use super::format::{Format, Output};
use super::{Failure, format, output, policy_text};

/// Writes and reads policy objects: TrafficPolicy and Drain
#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates or replaces the objects of a file, all or none
    Apply(Apply),
    /// Shows objects; what `-o yaml` prints can be applied again
    Get(Get),
    /// Shows all objects
    List(List),
    /// Removes objects
    Delete(Delete),
    /// Shows who changed what and when
    History(History),
    /// Writes an object again as it was at a revision
    Rollback(Rollback),
}

#[derive(Debug, Args)]
struct Apply {
    /// The file, YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE|-")]
    file: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

/// How a write is to be done.
#[derive(Debug, Args)]
struct Write {
    /// Checks everything and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Writes only if every object is at this revision; 0: only if it does not exist
    #[arg(long, value_name = "N")]
    expect_revision: Option<u64>,
}

#[derive(Debug, Args)]
struct Get {
    /// TrafficPolicy/NAMESPACE/NAME or Drain/NAME
    #[arg(required = true, value_name = "KIND/NAME", value_parser = key)]
    keys: Vec<String>,
    /// Reads through the leader: sees every write that was acknowledged before
    #[arg(long)]
    consistent: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct List {
    /// Of this kind alone
    #[arg(long, value_parser = kind)]
    kind: Option<&'static str>,
    /// In this namespace alone
    #[arg(id = "in", long = "in", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Reads through the leader: sees every write that was acknowledged before
    #[arg(long)]
    consistent: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Delete {
    /// TrafficPolicy/NAMESPACE/NAME or Drain/NAME
    #[arg(required = true, value_name = "KIND/NAME", value_parser = key)]
    keys: Vec<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct History {
    /// Of this object alone: TrafficPolicy/NAMESPACE/NAME or Drain/NAME
    #[arg(value_name = "KIND/NAME", value_parser = key)]
    key: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct Rollback {
    /// TrafficPolicy/NAMESPACE/NAME or Drain/NAME
    #[arg(value_name = "KIND/NAME", value_parser = key)]
    key: String,
    /// The revision whose object is written again, as `history` shows it
    #[arg(long, value_name = "N")]
    to_revision: u64,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    at: At,
}

impl Policy {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Apply(apply) => apply.run(),
            Command::Get(get) => get.run(),
            Command::List(list) => list.run(),
            Command::Delete(delete) => delete.run(),
            Command::History(history) => history.run(),
            Command::Rollback(rollback) => rollback.run(),
        }
    }
}

impl Write {
    fn parameters(&self) -> Parameters {
        Parameters::default().flag("dryRun", self.dry_run).with("expectRevision", self.expect_revision)
    }
}

impl Apply {
    fn run(self) -> Result<(), Failure> {
        let (name, text) = if self.file == "-" {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text).context("standard input cannot be read")?;
            ("stdin", text)
        } else {
            let text = std::fs::read(&self.file).with_context(|| format!("{} cannot be read", self.file))?;
            (self.file.as_str(), text)
        };
        let parameters = self.write.parameters().with("file", Some(name));
        written(&self.at.post("/api/v1/policies", parameters, text)?, self.output.format)
    }
}

impl Get {
    fn run(self) -> Result<(), Failure> {
        let parameters = || Parameters::default().flag("consistent", self.consistent);
        let ask = |key| self.at.get(&format!("/api/v1/policies/{key}"), parameters());
        let objects: Vec<Value> = self.keys.iter().map(ask).collect::<Result<_, _>>()?;
        match (self.output.format, objects.as_slice()) {
            (Format::Json, [only]) => output::print(&format::json(only)),
            (Format::Json, _) => output::print(&format::json(&json!({"items": objects}))),
            (format, _) => show(&objects, format)?,
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let parameters = Parameters::default()
            .flag("consistent", self.consistent)
            .with("kind", self.kind)
            .with("namespace", self.namespace.as_ref());
        let answer = self.at.get("/api/v1/policies", parameters)?;
        match (self.output.format, answer["items"].as_array()) {
            (Format::Json, _) => output::print(&format::json(&answer)),
            (format, Some(objects)) => show(objects, format)?,
            (_, None) => return Err(anyhow!("{}: an answer without `items`", self.at).into()),
        }
        Ok(())
    }
}

impl Delete {
    fn run(self) -> Result<(), Failure> {
        for key in &self.keys {
            let answer = self.at.delete(&format!("/api/v1/policies/{key}"), self.write.parameters())?;
            written(&answer, self.output.format)?;
        }
        Ok(())
    }
}

impl History {
    fn changes(at: &At, key: Option<&String>) -> anyhow::Result<Vec<Value>> {
        let answer = at.get("/api/v1/history", Parameters::default().with("key", key))?;
        answer["changes"].as_array().cloned().ok_or_else(|| anyhow!("{at}: an answer without `changes`"))
    }

    fn run(self) -> Result<(), Failure> {
        let changes = Self::changes(&self.at, self.key.as_ref())?;
        match self.output.format {
            Format::Table | Format::Wide => output::print(&policy_text::history(&changes)),
            Format::Json => output::print(&format::json(&json!({"changes": changes}))),
            Format::Yaml => output::print(&format::yaml(&json!({"changes": changes}))?),
        }
        Ok(())
    }
}

impl Rollback {
    fn run(self) -> Result<(), Failure> {
        let changes = History::changes(&self.at, Some(&self.key))?;
        let at = |change: &&Value| change["revision"] == self.to_revision;
        let Some(change) = changes.iter().find(at) else {
            let revisions: Vec<String> = changes.iter().map(|change| format!("r{}", change["revision"])).collect();
            let known = if revisions.is_empty() { "none".to_owned() } else { revisions.join(", ") };
            let (key, revision) = (&self.key, self.to_revision);
            return Err(anyhow!("{key} was not changed at revision {revision}; its history has {known}").into());
        };
        if change["object"].is_null() {
            let (key, revision) = (&self.key, self.to_revision);
            return Err(anyhow!("{key} was removed at revision {revision}: there is nothing to write again").into());
        }
        let parameters = self.write.parameters().with("file", Some(format!("{}@r{}", self.key, self.to_revision)));
        let answer = self.at.post("/api/v1/policies", parameters, change["object"].to_string())?;
        written(&answer, self.output.format)
    }
}

/// Objects, but for JSON.
fn show(objects: &[Value], format: Format) -> Result<(), Failure> {
    match format {
        Format::Yaml => {
            let documents: Vec<String> = objects.iter().map(format::yaml).collect::<Result<_, _>>()?;
            output::print(&documents.join("---\n"));
        }
        _ => output::print(&policy_text::objects(objects, format == Format::Wide)),
    }
    Ok(())
}

/// What a write came to.
pub(super) fn written(answer: &Value, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Wide => output::print(&policy_text::written(answer)),
        Format::Json => output::print(&format::json(answer)),
        Format::Yaml => output::print(&format::yaml(answer)?),
    }
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::error(&format!("warning: {warning}"));
    }
    Ok(())
}

/// The kind as it is written, however it was typed.
fn kind(text: &str) -> Result<&'static str, String> {
    let known = ["TrafficPolicy", "Drain"];
    known
        .into_iter()
        .find(|kind| kind.eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("`{text}` is not a kind of policy object: expected TrafficPolicy or Drain"))
}

/// An object's key, the kind however it was typed.
fn key(text: &str) -> Result<String, String> {
    let wanted = "expected TrafficPolicy/NAMESPACE/NAME or Drain/NAME";
    let mut parts = text.split('/');
    let kind = kind(parts.next().unwrap_or_default()).map_err(|_| format!("`{text}` names no object: {wanted}"))?;
    let rest: Vec<&str> = parts.collect();
    let parts = if kind == "Drain" { 1 } else { 2 };
    if rest.len() != parts || rest.iter().any(|part| part.is_empty()) {
        return Err(format!("`{text}` names no object: {wanted}"));
    }
    Ok(format!("{kind}/{}", rest.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_whatever_the_kind_s_case() {
        for (text, wanted) in [
            ("TrafficPolicy/shop/checkout", "TrafficPolicy/shop/checkout"),
            ("trafficpolicy/shop/checkout", "TrafficPolicy/shop/checkout"),
            ("drain/region-us-east", "Drain/region-us-east"),
        ] {
            assert_eq!(key(text).as_deref(), Ok(wanted));
        }
        for text in ["", "drain", "drain/", "drain/a/b", "TrafficPolicy/checkout", "TrafficPolicy//x", "Pod/a"] {
            assert!(key(text).is_err(), "{text}");
        }
    }
}
