//! How well the default strategy balances, against what people use elsewhere: a deterministic queueing simulation, open
//! loop, 100 clients and 100 servers. See docs/performance.md for what is simulated and how to read the plots.
//!
//! `cargo bench -p portolan-client --bench quality [SCENARIO…] [STRATEGY…] [seed=N] [cold=TIMES]`: a table, plots under
//! `target/quality/`, and one JSON object as the last line; `inference` is the scenario of the strategies for inference.
//! It fails if the baselines do not reproduce what is known of them. Another seed is other requests, tenants and choices;
//! `cold` is how many times slower whatever starts is at first: to see whether what holds, holds there too.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod arguments;
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

use self::arguments::Arguments;
use self::report::Results;
use self::strategies::Strategy;

const INFERENCE: &str = "inference";

fn main() -> ExitCode {
    let mut all = scenarios::all();
    let names: Vec<&str> = all.iter().map(|scenario| scenario.name).chain([INFERENCE]).collect();
    let wanted = match Arguments::parse(std::env::args().skip(1), &names) {
        Ok(wanted) => wanted,
        Err(mistake) => {
            println!("{mistake}");
            return ExitCode::from(2);
        }
    };
    if let Some(coldness) = wanted.coldness {
        all.iter_mut().for_each(|scenario| scenario.start_as_cold_as(coldness));
    }
    let mut results = Results::default();
    println!("{}", report::HEAD);
    for scenario in all.iter().filter(|scenario| wanted.scenario(scenario.name)) {
        for strategy in Strategy::ALL.into_iter().filter(|strategy| wanted.strategy(*strategy)) {
            let measured = strategy.run(scenario, wanted.seed);
            println!("{}", report::line(scenario.name, strategy, &measured));
            results.add(scenario.name, strategy, measured);
        }
        println!();
    }
    if wanted.scenario(INFERENCE) {
        let inference = inference::run();
        println!("{}\n", inference.table());
        results.inference = Some(inference);
    }
    if wanted.is_part() {
        println!("{}", results.json());
        return ExitCode::SUCCESS;
    }
    let known = results.reproduces_prequals_paper();
    match &known {
        Ok(what) => println!("the baselines are what they are known to be: {what}"),
        Err(what) => println!("the baselines are not what they are known to be: {what}"),
    }
    results.pods_for_slo = slo::pods(wanted.seed);
    println!("{}", results.pods_table());
    println!("{}", results.verdict());
    match results.plot() {
        Ok(path) => println!("plots: {}", path.display()),
        Err(error) => println!("no plots: {error}"),
    }
    println!("{}", results.json());
    if known.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
