//! `report.html`: one file without anything from outside, readable in light and dark.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use portolan_topology::names::RegionName;

use super::json::{Report, Verdict};
use super::series::Series;
use super::svg::{Frame, escape, round_up};
use crate::scenario::Scenario;
use crate::verdict::{Observed, percents};

/// Colours are repeated after so many regions.
const COLOURS: usize = 8;

const STYLE: &str = include_str!("style.css");

/// The page.
pub(super) fn page(report: &Report, scenario: &Scenario, observed: &Observed) -> String {
    let (class, verdict) = match report.verdict {
        Verdict::Pass => ("pass", "PASS"),
        Verdict::Fail => ("fail", "FAIL"),
    };
    let name = escape(&report.scenario);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{verdict}: {name}</title>\n<style>\n{STYLE}</style></head><body><main>\n\
         <h1>{name} <span class=\"verdict {class}\">{verdict}</span></h1>\n"
    );
    let requests = &report.requests;
    let _ = writeln!(
        page,
        "<p>{} calls in {:.0} s, {} failed; {} were in flight at a kill. Portolan {}.</p>",
        requests.total,
        scenario.duration.as_secs_f64(),
        requests.failed,
        requests.in_flight_at_kill,
        escape(&report.portolan),
    );
    expectations(&mut page, report);
    steps(&mut page, report);
    plots(&mut page, scenario, observed);
    clients(&mut page, report);
    page.push_str("</main></body></html>\n");
    page
}

fn expectations(page: &mut String, report: &Report) {
    page.push_str("<h2>Expectations</h2>\n<table><tr><th></th><th>Name</th><th>Measured</th><th>Wanted</th></tr>\n");
    for outcome in &report.expectations {
        let (class, sign) = if outcome.held { ("pass", "✓") } else { ("fail", "✗") };
        let _ = writeln!(
            page,
            "<tr><td class=\"{class}\">{sign}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&outcome.name),
            escape(&outcome.measured),
            escape(&outcome.wanted),
        );
    }
    page.push_str("</table>\n");
}

fn steps(page: &mut String, report: &Report) {
    if report.steps.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Steps</h2>\n<table><tr><th>At</th><th>Name</th><th>Action</th><th>Moved after</th><th>Then answered \
         by</th></tr>\n",
    );
    for step in &report.steps {
        let moved = step.moved_after_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
        let _ = writeln!(
            page,
            "<tr><td>{:.1} s</td><td>{}</td><td>{}</td><td>{moved}</td><td>{}</td></tr>",
            step.at,
            escape(&step.name),
            escape(&step.action),
            escape(&percents(&step.shares)),
        );
    }
    page.push_str("</table>\n");
}

fn plots(page: &mut String, scenario: &Scenario, observed: &Observed) {
    let series = Series::new(&observed.record, scenario.duration);
    let window = series.window.as_secs_f64();
    let marks: Vec<(f64, String)> = scenario
        .steps
        .iter()
        .zip(&observed.steps)
        .map(|(step, time)| (time.began.as_secs_f64(), step.name.clone()))
        .collect();
    let frame = |title: String, height: f64, top: f64, unit: &'static str| Frame {
        title,
        height,
        seconds: scenario.duration.as_secs_f64(),
        top,
        unit,
        marks: &marks,
    };
    let regions: Vec<RegionName> = {
        let from = series.answered.keys();
        let to = series.answered.values().flat_map(|by_region| by_region.keys());
        from.chain(to).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    };
    let class = |region: &RegionName| {
        let place = regions.iter().position(|other| other == region).unwrap_or(0);
        format!("c{}", place % COLOURS)
    };

    page.push_str("<h2>Who answers</h2>\n<p class=\"legend\">");
    for region in &regions {
        let _ = write!(page, "<span><i class=\"{}\"></i>{region}</span>", class(region));
    }
    page.push_str("</p>\n");
    for (from, by_region) in &series.answered {
        let title = format!("Successful calls of clients in {from}, by the answering region");
        let frame = frame(title.clone(), 170.0, 100.0, "%");
        let totals: Vec<usize> =
            (0..series.calls.len()).map(|index| by_region.values().map(|values| values[index]).sum()).collect();
        let layers: Vec<_> = by_region
            .iter()
            .map(|(to, values)| {
                let percent = |(value, total): (&usize, &usize)| 100.0 * *value as f64 / (*total).max(1) as f64;
                (class(to), to.to_string(), values.iter().zip(&totals).map(percent).collect())
            })
            .collect();
        figure(page, &title, &frame.draw(&frame.stacked(window, &layers)));
    }

    let failed: Vec<f64> = series.failed.iter().map(|count| *count as f64).collect();
    let most = failed.iter().copied().fold(0.0, f64::max);
    let title = format!("Failed calls in each {} ms", series.window.as_millis());
    page.push_str("<h2>Errors</h2>\n");
    // An axis of whole calls.
    let frame_of_errors = frame(title.clone(), 130.0, round_up(most).max(4.0), "");
    figure(page, &title, &frame_of_errors.draw(&frame_of_errors.bars(window, "failed", &failed)));

    let millis = |values: &[Option<Duration>]| -> Vec<Option<f64>> {
        values.iter().map(|value| value.map(|latency| latency.as_secs_f64() * 1e3)).collect()
    };
    let (p50, p99) = (millis(&series.p50), millis(&series.p99));
    let highest = p99.iter().flatten().copied().fold(0.0, f64::max);
    let frame_of_latency = frame("Latency".to_owned(), 190.0, round_up(highest), " ms");
    let lines =
        frame_of_latency.line(window, "p50", "median", &p50) + &frame_of_latency.line(window, "p99", "p99", &p99);
    page.push_str("<h2>Latency</h2>\n<p class=\"legend\"><span><i class=\"p50\"></i>median</span>");
    page.push_str("<span><i class=\"p99\"></i>99th percentile</span></p>\n");
    figure(page, "Latency of successful calls", &frame_of_latency.draw(&lines));
}

fn figure(page: &mut String, caption: &str, svg: &str) {
    let _ = writeln!(page, "<figure><figcaption>{}</figcaption>\n{svg}</figure>", escape(caption));
}

fn clients(page: &mut String, report: &Report) {
    page.push_str("<h2>Clients</h2>\n<table><tr><th>Zone</th><th>Client</th><th>Calls</th><th>Failed</th></tr>\n");
    for client in &report.clients {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{} {}</td><td>{}</td><td>{}</td></tr>",
            client.zone,
            escape(&client.language),
            escape(&client.version),
            client.calls,
            client.failed,
        );
    }
    page.push_str("</table>\n");
}
