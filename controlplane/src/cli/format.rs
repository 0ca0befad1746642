//! How answers are shown: tables for people, JSON and YAML for programs.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Failure;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    /// A table with more columns
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// How the answer is shown
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) format: Format,
}

/// `rows` under `header`, each column as wide as its widest cell.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// As JSON.
pub(super) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// As YAML.
pub(super) fn yaml(value: &Value) -> Result<String, Failure> {
    Ok(serde_saphyr::to_string(value)?)
}
