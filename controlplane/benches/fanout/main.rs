//! How many streams one control plane serves, and how fast: thousands of light ADS clients on loopback against a real
//! `portolan serve` process, the server on one core and the clients on another.
//!
//! `cargo bench -p portolan-controlplane --bench fanout -- --help` says what it measures. It prints a table, and as its
//! last line one JSON object. It fails if a target was missed.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a benchmark's output is its purpose; it fails loudly"
)]

mod bare;
mod client;
mod frames;
mod server;
mod start;
mod streams;
mod targets;

use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};

use crate::streams::Speaks;

const STREAMS: usize = 5_000;

/// Measures how many streams one control plane serves, and how fast.
///
/// Prints a table, and as the last line one JSON object. Needs two cores: the server has the first, the clients have the
/// second. Other work on the machine shows in every figure. The exit status is 0 if every target that was measured was
/// reached, and 1 if one was missed: the table says which.
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything if nothing is named
    cases: Vec<Case>,
    /// The bare server's own process: started by `bare`
    #[arg(long, hide = true)]
    serve_bare: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Case {
    /// 5,000 streams, 100 a connection
    Shared,
    /// 5,000 streams, 1 a connection
    Single,
    /// 5,000 streams, 1 a connection, with mutual TLS
    Mtls,
    /// A control plane with 10,000 endpoints in 1,000 services
    Start,
    /// What is measured of `shared` and `single`, of a bare tonic server that sends everybody the same bytes
    Bare,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.serve_bare {
        bare::serve();
        return ExitCode::SUCCESS;
    }
    if arguments.cases.is_empty() {
        arguments.cases = Case::value_variants().to_vec();
    }
    pin_to(1);
    let mut results = Map::new();
    let mut encodes = None;
    for case in arguments.cases {
        let (name, per_connection, speaks) = match case {
            Case::Shared => ("shared", 100, Speaks::Plain),
            Case::Single => ("single", 1, Speaks::Plain),
            Case::Mtls => ("mtls", 1, Speaks::MutualTls),
            Case::Bare => {
                for (name, per_connection) in [("bare_shared", 100), ("bare_single", 1)] {
                    let case = streams::Case { name, streams: STREAMS, per_connection, speaks: Speaks::Bare };
                    results.insert(name.to_owned(), streams::run(&case).to_json());
                }
                continue;
            }
            Case::Start => {
                let started = start::run();
                results.insert("endpoint_bytes".to_owned(), json!(started.endpoint_bytes));
                results.insert("start_10k_ms".to_owned(), json!(started.start_ms));
                continue;
            }
        };
        let measured = streams::run(&streams::Case { name, streams: STREAMS, per_connection, speaks });
        results.insert(name.to_owned(), measured.to_json());
        encodes = encodes.max(Some(measured.encodes));
    }
    if let Some(encodes) = encodes {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        results.insert("encodes_per_change".to_owned(), json!(encodes as f64 / streams::CHANGES as f64));
    }
    let missed = targets::print(&results);
    for missed in &missed {
        eprintln!("missed: {missed}");
    }
    println!("{}", Value::Object(results));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says on standard error how far it is.
fn progress(text: &str) {
    eprintln!("fanout: {text}");
}

/// Keeps this process off the server's core.
fn pin_to(core: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if core >= cores {
        return progress("one core alone: server and clients share it, and no figure says much");
    }
    let mut taskset = Command::new("taskset");
    let pinned = taskset.args(["-cp", &core.to_string(), &std::process::id().to_string()]).output();
    if !pinned.is_ok_and(|output| output.status.success()) {
        progress("`taskset` cannot pin the clients: they may take the server's core");
    }
}
