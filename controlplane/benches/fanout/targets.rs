//! What must be reached, and the table that says what was.

use serde_json::{Map, Value};

/// Of each figure the greatest value that is good enough, in the cases `shared`, `single` and `mtls`. Less is better.
const OF_CASES: [(&str, [Option<f64>; 3]); 6] = [
    ("storm_ms", [Some(450.0), Some(800.0), None]),
    ("storm_cpu_us_per_stream", [Some(90.0), Some(110.0), Some(500.0)]),
    ("change_last_ms", [Some(50.0), Some(110.0), None]),
    ("change_cpu_us_per_stream", [Some(10.0), Some(27.0), Some(35.0)]),
    ("rolling_staleness_p99_ms", [Some(200.0), Some(200.0), Some(200.0)]),
    ("idle_stream_bytes", [Some(22_000.0), Some(55_000.0), Some(80_000.0)]),
];
/// The same of the figures that are of no case.
const OF_ALL: [(&str, f64); 3] = [("encodes_per_change", 1.0), ("endpoint_bytes", 300.0), ("start_10k_ms", 5_000.0)];
const CASES: [&str; 3] = ["shared", "single", "mtls"];
/// The cases of the bare server, which nothing is wanted of.
const BARE: [&str; 2] = ["bare_shared", "bare_single"];

fn target(case: Option<&str>, figure: &str) -> Option<f64> {
    match case {
        Some(case) => {
            let position = CASES.iter().position(|it| *it == case)?;
            OF_CASES.iter().find(|(name, _)| *name == figure)?.1[position]
        }
        None => Some(OF_ALL.iter().find(|(name, _)| *name == figure)?.1),
    }
}

/// Prints the table: a line for each figure, with what it must reach. Gives what was missed.
pub(crate) fn print(results: &Map<String, Value>) -> Vec<String> {
    println!("{:<34}{:>12}{:>10}  reached", "", "measured", "target");
    let mut missed = Vec::new();
    let cases = CASES.into_iter().chain(BARE).filter_map(|case| Some((case, results.get(case)?.as_object()?)));
    let of_cases = cases.flat_map(|(case, figures)| figures.iter().map(move |(name, value)| (Some(case), name, value)));
    let of_all = results.iter().filter(|(_, value)| !value.is_object()).map(|(name, value)| (None, name, value));
    for (case, figure, value) in of_cases.chain(of_all) {
        let name = case.map_or_else(|| figure.clone(), |case| format!("{case} {figure}"));
        let measured = value.as_f64().unwrap_or(f64::INFINITY);
        let Some(target) = target(case, figure) else {
            println!("{name:<34}{measured:>12}");
            continue;
        };
        let reached = measured <= target;
        println!("{name:<34}{measured:>12}{target:>10}  {}", if reached { "yes" } else { "NO" });
        if !reached {
            missed.push(format!("{name} is {measured}, not {target}"));
        }
    }
    missed
}
