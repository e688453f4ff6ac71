//! `metrics`: what a service used, drawn with blocks.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::args;
use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use super::table::{Tone, clean, paint};
use crate::http::dto::{Metric, Series};

/// Columns of the plot where there is no terminal.
const WIDTH: usize = 80;
/// Lines of each plot.
const HEIGHT: usize = 6;
/// Columns beside the plot, for the scale.
const SCALE: usize = 12;
/// Eighths of a line.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) async fn metrics(client: &Client, out: &mut Out, wanted: &args::Metrics) -> Result<(), Failure> {
    let since = since(&wanted.since, Timestamp::now()).ok_or_else(|| {
        Failure::Usage(format!(
            "--since {}: 30m, 6h, 7d or a time such as 2026-01-31T08:15:00Z is expected",
            clean(&wanted.since)
        ))
    })?;
    let columns = out.style.width.unwrap_or(WIDTH).saturating_sub(SCALE).clamp(10, 300);
    let points = wanted.points.map_or(columns, |points| points as usize).to_string();
    let query = [("since", since.to_string()), ("points", points)];
    let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let reply = client.get(&["services", &wanted.service, "metrics"], &query).await?;
    if out.json {
        return out.line(&reply.text);
    }
    let series: Series = reply.read()?;
    if series.points.is_empty() {
        let id = clean(&series.id);
        return out.line(&format!(
            "No samples of {id} since {}; it has to run to be measured.",
            local(&series.since)
        ));
    }
    let style = out.style;
    let head = |text: &str| paint(text, Tone::Head, style);
    let part = |title: &str, of: Figure, unit: &str| {
        plot(&series, columns, of).map(|lines| {
            let (least, mean, most) = spread(&series.points, of);
            format!("{}  {mean:.1} {unit} on average, {least:.1} to {most:.1}\n{lines}", head(title))
        })
    };
    let all = [
        part("CPU", |m| [m.cpu_percent_min, m.cpu_percent, m.cpu_percent_max], "%"),
        part("Memory", |m| [m.memory_mb_min, m.memory_mb, m.memory_mb_max], "MiB"),
        part("Response", |m| [m.response_time_ms, m.response_time_ms, m.response_time_ms_max], "ms"),
    ];
    let text: String = all.into_iter().flatten().collect();
    out.text(&format!("{text}{:>SCALE$}{} to {}\n", "", local(&series.since), local(&series.until)))
}

/// Least, mean and most of a point.
type Figure = fn(&Metric) -> [Option<f64>; 3];

/// Of all points together, each as heavy as it has samples.
fn spread(points: &[Metric], of: Figure) -> (f64, f64, f64) {
    let (mut least, mut most, mut sum, mut samples) = (f64::INFINITY, 0.0f64, 0.0, 0.0);
    for point in points {
        if let [Some(min), Some(avg), Some(max)] = of(point) {
            (least, most) = (least.min(min), most.max(max));
            (sum, samples) = (sum + avg * point.samples as f64, samples + point.samples as f64);
        }
    }
    (least, sum / f64::max(samples, 1.0), most)
}

/// The lines of a plot, of which the top is the largest mean; `None` without a value.
fn plot(series: &Series, columns: usize, of: Figure) -> Option<String> {
    let (since, until) = (millis(&series.since)?, millis(&series.until)?);
    let mut bars = vec![None::<f64>; columns];
    for point in &series.points {
        let (Some(at), [_, Some(value), _]) = (millis(&point.timestamp), of(point)) else { continue };
        let share = (at - since) as f64 / (until - since).max(1) as f64;
        let column = ((share * columns as f64) as usize).min(columns - 1);
        bars[column] = Some(bars[column].map_or(value, |other| other.max(value)));
    }
    let top = bars
        .iter()
        .flatten()
        .copied()
        .fold(None, |top: Option<f64>, bar| Some(top.map_or(bar, |t| t.max(bar))))?;
    let scale = if top > 0.0 { (HEIGHT * 8) as f64 / top } else { 0.0 };
    let mut text = String::new();
    for line in (0..HEIGHT).rev() {
        let label = match line {
            0 => "0".into(),
            _ if line == HEIGHT - 1 => format!("{top:.1}"),
            _ => String::new(),
        };
        let bar = |bar: &Option<f64>| match bar {
            // What was measured is seen, however little it is.
            Some(value) => {
                let eighths = ((value * scale).round() as usize).max(1);
                BLOCKS[eighths.saturating_sub(line * 8).min(8)]
            }
            None => ' ',
        };
        let drawn: String = bars.iter().map(bar).collect();
        text.push_str(format!("{label:>width$} ┤{drawn}", width = SCALE - 2).trim_end());
        text.push('\n');
    }
    Some(text)
}

fn millis(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(|at| at.as_millisecond())
}

/// As the reader's clock has it.
fn local(time: &str) -> String {
    let shown = |at: Timestamp| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
    time.parse().map_or_else(|_| clean(time), shown)
}

/// `6h` before `now`, or the time itself.
fn since(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: i64 = text.strip_suffix(unit)?.parse().ok().filter(|count| *count > 0)?;
    Timestamp::from_second(now.as_second().checked_sub(count.checked_mul(seconds)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series {
        let point = |minute: u32, value: f64| Metric {
            timestamp: format!("2026-01-31T08:{minute:02}:00.000Z"),
            samples: 1,
            cpu_percent_min: Some(value),
            cpu_percent: Some(value),
            cpu_percent_max: Some(value * 2.0),
            ..Metric::default()
        };
        Series {
            id: "web".into(),
            since: "2026-01-31T08:00:00.000Z".into(),
            until: "2026-01-31T08:10:00.000Z".into(),
            points: vec![point(0, 0.0), point(2, 48.0), point(4, 24.0), point(9, 30.0)],
        }
    }

    #[test]
    fn a_plot_has_gaps_where_there_was_nothing() {
        let of: Figure = |m| [m.cpu_percent_min, m.cpu_percent, m.cpu_percent_max];
        insta::assert_snapshot!(plot(&series(), 10, of).unwrap(), @r"
              48.0 ┤  █
                   ┤  █
                   ┤  █      ▆
                   ┤  █ █    █
                   ┤  █ █    █
                 0 ┤▁ █ █    █
        ");
        assert_eq!(spread(&series().points, of), (0.0, 25.5, 96.0));
        assert_eq!(plot(&series(), 10, |m| [m.memory_mb; 3]), None);
    }

    #[test]
    fn times_are_durations_or_moments() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        for (text, at) in [
            ("30m", "2026-01-31T07:30:00Z"),
            ("7d", "2026-01-24T08:00:00Z"),
            ("2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(since(text, now), at.parse().ok(), "{text}");
        }
        for text in ["", "h", "-1h", "0h", "1x", "1ü", "99999999999999999d", "9999999999d"] {
            assert_eq!(since(text, now), None, "{text}");
        }
    }
}
