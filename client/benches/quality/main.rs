//! How well the default strategy balances, against what people use elsewhere: a deterministic queueing simulation, open
//! loop, 100 clients and 100 servers. See docs/performance.md for what is simulated and how to read the plots.
//!
//! `cargo bench -p portolan-client --bench quality [SCENARIO…]`: a table, plots under `target/quality/`, and one JSON
//! object as the last line; `inference` is the scenario of the strategies for inference. It fails if the baselines do not
//! reproduce what is known of them.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod baselines;
mod draws;
mod inference;
mod measure;
mod ours;
mod plot;
mod policy;
mod report;
mod scenarios;
mod server;
mod sim;
mod slo;
mod strategies;

use std::process::ExitCode;

use self::report::Results;
use self::strategies::Strategy;

const INFERENCE: &str = "inference";

fn main() -> ExitCode {
    // Cargo says `--bench` to a benchmark without a harness; everything else names a scenario.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let all = scenarios::all();
    let names: Vec<&str> = all.iter().map(|scenario| scenario.name).chain([INFERENCE]).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        println!("there is no scenario `{unknown}`; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut results = Results::default();
    println!("{}", report::HEAD);
    for scenario in all.iter().filter(|scenario| is_wanted(scenario.name)) {
        for strategy in Strategy::ALL {
            let measured = strategy.run(scenario);
            println!("{}", report::line(scenario.name, strategy, &measured));
            results.add(scenario.name, strategy, measured);
        }
        println!();
    }
    if is_wanted(INFERENCE) {
        let inference = inference::run();
        println!("{}\n", inference.table());
        results.inference = Some(inference);
    }
    if !wanted.is_empty() {
        println!("{}", results.json());
        return ExitCode::SUCCESS;
    }
    let known = results.reproduces_prequals_paper();
    match &known {
        Ok(what) => println!("the baselines are what they are known to be: {what}"),
        Err(what) => println!("the baselines are not what they are known to be: {what}"),
    }
    results.pods_for_slo = slo::pods();
    println!("{}", results.pods_table());
    println!("{}", results.verdict());
    match results.plot() {
        Ok(path) => println!("plots: {}", path.display()),
        Err(error) => println!("no plots: {error}"),
    }
    println!("{}", results.json());
    if known.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
