//! What the runs came to: the table, the JSON object, the plots, and the comparisons.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::inference;
use crate::measure::Measured;
use crate::plot::{Line, chart, page};
use crate::scenarios::LOADS;
use crate::slo;
use crate::strategies::Strategy;

pub(crate) const HEAD: &str =
    "SCENARIO            STRATEGY                  P50 ms    P99 ms  P99.9 ms   ERRORS  P99/MEAN LOAD";

/// How much worse than a baseline still counts as the same.
const SAME: f64 = 1.03;
/// A p99 so many times that of the lightest load is a collapse.
const COLLAPSE: f64 = 3.0;

pub(crate) fn line(scenario: &str, strategy: Strategy, measured: &Measured) -> String {
    let ms = |quantile| measured.quantile_ms(quantile);
    let Measured { errors, .. } = measured;
    let load = measured.p99_over_mean_load();
    let (p50, p99, p999) = (ms(0.5), ms(0.99), ms(0.999));
    format!("{scenario:20}{:22}{p50:10.1}{p99:10.1}{p999:10.1}{errors:9}{load:15.2}", strategy.name())
}

#[derive(Default)]
pub(crate) struct Results {
    runs: Vec<(&'static str, Strategy, Measured)>,
    pub(crate) pods_for_slo: Vec<(Strategy, Option<usize>)>,
    pub(crate) inference: Option<inference::Results>,
}

impl Results {
    pub(crate) fn add(&mut self, scenario: &'static str, strategy: Strategy, measured: Measured) {
        self.runs.push((scenario, strategy, measured));
    }

    fn of(&self, scenario: &str, strategy: Strategy) -> Option<&Measured> {
        self.runs.iter().find(|run| run.0 == scenario && run.1 == strategy).map(|run| &run.2)
    }

    fn scenarios(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.runs.iter().map(|run| run.0).collect();
        names.dedup();
        names
    }

    /// The first load at which a strategy's p99 is a multiple of that at the lightest.
    fn collapse(&self, strategy: Strategy) -> Option<(&'static str, f64)> {
        let p99 = |name| self.of(name, strategy).map(|measured| measured.quantile_ms(0.99));
        let lightest = p99(LOADS[0].0)?;
        LOADS.into_iter().find(|(name, _)| p99(name).is_some_and(|p99| p99 > lightest * COLLAPSE))
    }

    /// Weighted round robin evens out CPU, so it collapses as soon as demand exceeds what is promised (1.03 in figure 6 of
    /// Prequal's paper); Prequal holds to 1.74.
    pub(crate) fn reproduces_prequals_paper(&self) -> Result<String, String> {
        let weighted = self.collapse(Strategy::WeightedRoundRobin);
        let prequal = self.collapse(Strategy::Prequal);
        let told = |found: Option<(&str, f64)>| match found {
            Some((name, _)) => format!("collapses at {name}"),
            None => "holds to 1.74".to_owned(),
        };
        let what = format!("weighted round robin {}, Prequal {}", told(weighted), told(prequal));
        let as_known = weighted.is_some_and(|(_, load)| (0.94..1.2).contains(&load)) && prequal.is_none();
        if as_known { Ok(what) } else { Err(what) }
    }

    /// Where a baseline beats the default, in words.
    fn behind(&self) -> Vec<String> {
        let mut behind = Vec::new();
        for scenario in self.scenarios() {
            let Some(ours) = self.of(scenario, Strategy::Default) else { continue };
            for strategy in Strategy::ALL {
                let Some(theirs) = self.of(scenario, strategy) else { continue };
                let (p99, against) = (ours.quantile_ms(0.99), theirs.quantile_ms(0.99));
                if p99 > against * SAME {
                    let percent = (p99 / against - 1.0) * 100.0;
                    behind.push(format!("{scenario}: p99 {percent:.1}% above {}", strategy.name()));
                }
                if ours.errors > theirs.errors {
                    let (mine, other) = (ours.errors, theirs.errors);
                    behind.push(format!("{scenario}: {mine} errors, {} {other}", strategy.name()));
                }
            }
        }
        behind
    }

    pub(crate) fn verdict(&self) -> String {
        let behind = self.behind();
        if behind.is_empty() {
            return "the default is at least as good as every baseline in every scenario".to_owned();
        }
        format!("the default is behind here:\n  {}", behind.join("\n  "))
    }

    pub(crate) fn pods_table(&self) -> String {
        let (load, p99) = (slo::LOAD, slo::P99_MS);
        let mut table = format!("fewest servers that hold p99 under {p99} ms, at the demand of load-{load}:");
        for (strategy, pods) in &self.pods_for_slo {
            let pods = pods.map_or("more than were tried".to_owned(), |pods| pods.to_string());
            // Writing to a string cannot fail.
            let _ = write!(table, "\n  {:22}{pods}", strategy.name());
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let of = |measured: &Measured| {
            json!({
                "p50_ms": measured.quantile_ms(0.5),
                "p99_ms": measured.quantile_ms(0.99),
                "p999_ms": measured.quantile_ms(0.999),
                "errors": measured.errors,
                "p99_over_mean_load": measured.p99_over_mean_load(),
            })
        };
        let strategies = |scenario: &str| {
            let runs = self.runs.iter().filter(|run| run.0 == scenario);
            runs.map(|run| (run.1.name().to_owned(), of(&run.2))).collect::<Map<String, Value>>()
        };
        let scenarios: Vec<Value> =
            self.scenarios().iter().map(|name| json!({"name": name, "strategies": strategies(name)})).collect();
        let pods: Map<String, Value> =
            self.pods_for_slo.iter().map(|(strategy, pods)| (strategy.name().to_owned(), json!(pods))).collect();
        let inference = self.inference.as_ref().map(inference::Results::json);
        json!({"scenarios": scenarios, "pods_for_slo": pods, "behind": self.behind(), "inference": inference})
    }

    /// Writes the charts and returns where.
    pub(crate) fn plot(&self) -> std::io::Result<PathBuf> {
        // Benchmarks run in their package's folder; the target folder is the workspace's.
        let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("../target"), PathBuf::from);
        let folder = folder.join("quality");
        std::fs::create_dir_all(&folder)?;
        let by_load = |quantile: f64| -> Vec<Line> {
            let line = |strategy: Strategy| {
                let point = |(name, load)| Some((load, self.of(name, strategy)?.quantile_ms(quantile)));
                Line { name: strategy.name().to_owned(), points: LOADS.into_iter().filter_map(point).collect() }
            };
            Strategy::ALL.into_iter().map(line).collect()
        };
        let over = "demand over what is promised";
        let mut charts =
            vec![chart("p99 by load", over, &by_load(0.99)), chart("p99.9 by load", over, &by_load(0.999))];
        for scenario in self.scenarios().into_iter().filter(|name| LOADS.iter().all(|load| load.0 != *name)) {
            let line = |strategy: Strategy| {
                let seconds = self.of(scenario, strategy).map_or(&[][..], |measured| &measured.by_second);
                let points = seconds.iter().enumerate().skip(10).map(|(at, p99)| (at as f64, *p99)).collect();
                Line { name: strategy.name().to_owned(), points }
            };
            let lines: Vec<Line> = Strategy::ALL.into_iter().map(line).collect();
            charts.push(chart(&format!("{scenario}: p99 of each second"), "second", &lines));
        }
        let path = folder.join("index.html");
        std::fs::write(&path, page("portolan-client: quality of balancing", &charts))?;
        Ok(path)
    }
}
