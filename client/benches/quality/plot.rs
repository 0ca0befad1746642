//! The figures as one page of SVG.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 56.0;
const COLOURS: [&str; 8] = ["#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#7f7f7f", "#17becf"];

/// A line of a chart: its name and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart with a logarithmic axis of milliseconds.
pub(crate) fn chart(title: &str, across: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (left, right) = points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let high = points().fold(1.0f64, |high, (_, y)| high.max(*y)).log10().ceil();
    let low = points().fold(f64::MAX, |low, (_, y)| low.min(y.max(1.0))).log10().floor().min(high - 1.0);
    let x = |value: f64| MARGIN + (value - left) / (right - left).max(1e-9) * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (value.max(1.0).log10() - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!("<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{HEIGHT}'>", WIDTH + 180.0);
    let text = |svg: &mut String, x: f64, y: f64, text: &str| {
        // Writing to a string cannot fail.
        let _ = write!(svg, "<text x='{x:.0}' y='{y:.0}' font-family='sans-serif' font-size='12'>{text}</text>");
    };
    text(&mut svg, MARGIN, 20.0, title);
    text(&mut svg, WIDTH / 2.0, HEIGHT - 8.0, across);
    for power in low as i32..=high as i32 {
        let at = y(10f64.powi(power));
        let _ = write!(svg, "<path d='M{MARGIN} {at:.0}H{:.0}' stroke='#ddd'/>", WIDTH - MARGIN);
        text(&mut svg, 4.0, at + 4.0, &format!("{} ms", 10f64.powi(power)));
    }
    for step in 0..=4 {
        let value = left + (right - left) * f64::from(step) / 4.0;
        text(&mut svg, x(value) - 8.0, HEIGHT - MARGIN + 18.0, &format!("{value:.2}"));
    }
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> = line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        let _ = write!(svg, "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>", path.join(" "));
        let at = MARGIN + 16.0 * i as f64;
        let _ = write!(svg, "<rect x='{WIDTH}' y='{:.0}' width='12' height='4' fill='{colour}'/>", at - 6.0);
        text(&mut svg, WIDTH + 18.0, at, &line.name);
    }
    svg.push_str("</svg>");
    svg
}

/// A page of charts.
pub(crate) fn page(title: &str, charts: &[String]) -> String {
    let charts = charts.join("<br>\n");
    format!("<!doctype html><meta charset='utf-8'><title>{title}</title><h1>{title}</h1>\n{charts}\n")
}
