//! What a run leaves behind: `report.json` for programs and `report.html` for people. Pure up to [`write`].

mod html;
mod json;
mod series;
mod svg;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub use json::{Report, Verdict, report};

use crate::scenario::Scenario;
use crate::verdict::Observed;

/// Writes both files into `folder`, which is made.
pub fn write(folder: &Path, report: &Report, scenario: &Scenario, observed: &Observed) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let html = html::page(report, scenario, observed);
    std::fs::create_dir_all(folder)?;
    for (name, text) in [("report.json", json), ("report.html", html)] {
        replace(folder, name, &text)?;
    }
    Ok(())
}

/// A reader sees the old file or the new one, never a half.
fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let half = folder.join(format!(".{name}.{}", std::process::id()));
    std::fs::write(&half, text)?;
    std::fs::rename(half, folder.join(name))
}
