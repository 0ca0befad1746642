//! What a person sees while a scenario runs: lines, and on a terminal a progress bar and a live table of who sends where.
//! The one place of this crate that writes to standard output.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where a run tells how it goes.
#[derive(Debug)]
pub struct Terminal {
    /// On a terminal: the bar, and the table below it.
    live: Option<(MultiProgress, ProgressBar, ProgressBar)>,
    colour: bool,
}

/// How a word is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It is well.
    Good,
    /// It is not.
    Bad,
}

impl Terminal {
    /// By what standard output is.
    #[must_use]
    pub fn new() -> Self {
        let tty = std::io::stdout().is_terminal();
        // https://no-color.org: any value but an empty one.
        let colour = tty && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let live = tty.then(|| {
            let all = MultiProgress::new();
            let (bar, table) = (all.add(ProgressBar::hidden()), all.add(ProgressBar::hidden()));
            (all, bar, table)
        });
        Self { live, colour }
    }

    /// Lines alone, wherever they go.
    #[must_use]
    pub fn plain() -> Self {
        Self { live: None, colour: false }
    }

    /// One line.
    pub fn say(&self, line: &str) {
        match &self.live {
            Some((all, ..)) => all.suspend(|| write_line(line)),
            None => write_line(line),
        }
    }

    /// Shows progress over `duration` from now on.
    pub fn begin(&mut self, duration: Duration) {
        let Some((all, bar, table)) = &mut self.live else { return };
        *bar = all.add(ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)));
        *table = all.add(ProgressBar::new_spinner());
        // Templates without a mistake, as a test shows.
        bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
        table.set_style(ProgressStyle::with_template(TABLE).unwrap_or_else(|_| ProgressStyle::default_spinner()));
    }

    /// How far it is, and the table. Without a terminal the table is for those lines that [`Terminal::say`] gets.
    pub fn tick(&self, at: Duration, table: &[String]) {
        if let Some((_, bar, rows)) = &self.live {
            bar.set_position(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
            bar.set_message(format!("{:.0} s", at.as_secs_f64()));
            rows.set_message(table.join("\n"));
        }
    }

    /// Takes the bar and the table away.
    pub fn end(&mut self) {
        if let Some((_, bar, table)) = &self.live {
            bar.finish_and_clear();
            table.finish_and_clear();
        }
    }

    /// Whether there is a live table.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// A word, set off where colours are shown.
    #[must_use]
    pub fn tone(&self, word: &str, tone: Tone) -> String {
        match (self.colour, tone) {
            (false, _) => word.to_owned(),
            (true, Tone::Good) => format!("\x1b[32m{word}\x1b[0m"),
            (true, Tone::Bad) => format!("\x1b[31m{word}\x1b[0m"),
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

const BAR: &str = "{bar:40} {msg}";
const TABLE: &str = "{msg}";

fn write_line(line: &str) {
    // Nobody reads any more: the run still ends in order, and its exit status says how.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_right() {
        for template in [BAR, TABLE] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn without_a_terminal_there_is_no_colour() {
        let plain = Terminal { live: None, colour: false };
        assert_eq!(plain.tone("PASS", Tone::Good), "PASS");
        assert_eq!(Terminal { colour: true, ..plain }.tone("FAIL", Tone::Bad), "\x1b[31mFAIL\x1b[0m");
    }
}
