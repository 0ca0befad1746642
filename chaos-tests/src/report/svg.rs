//! Plots over time as inline SVG: stacked areas, bars and lines, with marks at moments. Colours come from the page's
//! style sheet by class, so that they follow its light and dark themes.

use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 26.0;

/// A plot's frame: the time axis, the value axis and the marks.
#[derive(Debug, Clone)]
pub(super) struct Frame<'a> {
    /// What a screen reader says.
    pub(super) title: String,
    /// Its height in pixels, at full width.
    pub(super) height: f64,
    /// The time axis, in seconds.
    pub(super) seconds: f64,
    /// The top of the value axis; above 0.
    pub(super) top: f64,
    /// What stands behind the numbers of the value axis.
    pub(super) unit: &'a str,
    /// Moments with a name, in seconds.
    pub(super) marks: &'a [(f64, String)],
}

impl Frame<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let bottom = self.height - BOTTOM;
        bottom - (bottom - TOP) * (value / self.top).clamp(0.0, 1.0)
    }

    /// The whole plot around `content`.
    pub(super) fn draw(&self, content: &str) -> String {
        let Self { title, height, .. } = self;
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{}</title>\n", escape(title));
        for step in 0..=4 {
            let value = self.top * f64::from(step) / 4.0;
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(value),
                self.unit,
            );
        }
        svg.push_str(content);
        let every =
            [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 600.0].into_iter().find(|step| self.seconds / step <= 12.0);
        let every = every.unwrap_or(self.seconds);
        let mut at = 0.0;
        while at <= self.seconds {
            let (x, y) = (self.x(at), height - BOTTOM + 16.0);
            let _ =
                writeln!(svg, "<text class=\"axis\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{at} s</text>");
            at += every;
        }
        for (at, name) in self.marks {
            let x = self.x(*at);
            let (anchor, label) = if x > WIDTH * 0.9 { ("end", x - 4.0) } else { ("start", x + 4.0) };
            let _ = writeln!(
                svg,
                "<path class=\"mark\" d=\"M{x:.1} {:.1}V{:.1}\"/><text class=\"mark\" x=\"{label:.1}\" y=\"{:.1}\" \
                 text-anchor=\"{anchor}\">{}</text>",
                TOP - 12.0,
                height - BOTTOM,
                TOP - 8.0,
                escape(name),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Areas on top of each other, one for each class; each has a value for each window of `window` seconds.
    pub(super) fn stacked(&self, window: f64, layers: &[(String, String, Vec<f64>)]) -> String {
        let mut svg = String::new();
        let count = layers.iter().map(|(.., values)| values.len()).max().unwrap_or(0);
        let mut floor = vec![0.0; count];
        for (class, name, values) in layers {
            let top: Vec<f64> = floor.iter().zip(values).map(|(floor, value)| floor + value).collect();
            let mut path = String::new();
            // A window is a step: slopes would show changes before they happened.
            for (index, value) in top.iter().enumerate() {
                let (from, until) = (index as f64 * window, (index + 1) as f64 * window);
                let verb = if index == 0 { 'M' } else { 'L' };
                let y = self.y(*value);
                let _ = write!(path, "{verb}{:.1} {y:.1}H{:.1}", self.x(from), self.x(until));
            }
            for (index, value) in floor.iter().enumerate().rev() {
                let (from, until) = (index as f64 * window, (index + 1) as f64 * window);
                let _ = write!(path, "L{:.1} {:.1}H{:.1}", self.x(until), self.y(*value), self.x(from));
            }
            let _ = writeln!(svg, "<path class=\"area {class}\" d=\"{path}Z\"><title>{}</title></path>", escape(name));
            floor = top;
        }
        svg
    }

    /// A bar for each window with a value above 0.
    pub(super) fn bars(&self, window: f64, class: &str, values: &[f64]) -> String {
        let mut svg = String::new();
        for (index, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let (from, until) = (self.x(index as f64 * window), self.x((index + 1) as f64 * window));
            let y = self.y(*value);
            let _ = writeln!(
                svg,
                "<rect class=\"bar {class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{} at \
                 {:.1} s</title></rect>",
                (until - from - 0.5).max(0.5),
                self.y(0.0) - y,
                number(*value),
                index as f64 * window,
            );
        }
        svg
    }

    /// A line with gaps where there is no value.
    pub(super) fn line(&self, window: f64, class: &str, name: &str, values: &[Option<f64>]) -> String {
        let mut path = String::new();
        let mut pen_up = true;
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else {
                pen_up = true;
                continue;
            };
            let verb = if pen_up { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", self.x((index as f64 + 0.5) * window), self.y(*value));
            pen_up = false;
        }
        format!("<path class=\"line {class}\" d=\"{path}\"><title>{}</title></path>\n", escape(name))
    }
}

/// The next round figure at or above `value`, so that an axis ends well.
pub(super) fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text as HTML and SVG take it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_figures() {
        let rounded: Vec<f64> = [0.0, 0.3, 1.0, 1.1, 4.5, 7.0, 61.0].into_iter().map(round_up).collect();
        assert_eq!(rounded, [1.0, 0.4, 1.0, 2.0, 5.0, 10.0, 100.0]);
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let marks = [(1.0, "<script>".to_owned())];
        let frame = Frame { title: "a & b".into(), height: 100.0, seconds: 10.0, top: 1.0, unit: "%", marks: &marks };
        let svg = frame.draw("");
        assert!(svg.contains("&lt;script&gt;") && svg.contains("a &amp; b") && !svg.contains("<script>"));
    }

    #[test]
    fn stacked_layers_lie_on_each_other() {
        let frame = Frame { title: String::new(), height: 148.0, seconds: 2.0, top: 100.0, unit: "", marks: &[] };
        let layers = [("a".into(), "a".into(), vec![100.0, 25.0]), ("b".into(), "b".into(), vec![0.0, 75.0])];
        let svg = frame.stacked(1.0, &layers);
        // 0 is at y = 122, 100 at y = 22, 25 at y = 97: the second layer begins where the first ends.
        assert!(svg.contains("M58.0 22.0H473.0L473.0 97.0H888.0"), "{svg}");
        assert!(svg.contains("M58.0 22.0H473.0L473.0 22.0H888.0L888.0 97.0H473.0"), "{svg}");
    }
}
