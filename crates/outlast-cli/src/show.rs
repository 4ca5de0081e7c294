//! `outlast workers show`: the view of one worker.

use crate::{draw, output};
use outlast::Client;
use outlast::api::{Interval, LinkCause, Worker, WorkerMetrics, WorkerTimeline};
use outlast_wire::text::visible;
use ratatui::crossterm::style::{Color, Stylize};
use serde_json::Value;
use std::io::IsTerminal;

/// Minimum and maximum width.
const WIDTH: (usize, usize) = (30, 120);
/// Number of intervals of the timeline that are listed.
const TOLD: usize = 12;

struct Page {
    width: usize,
    colour: bool,
}

pub(crate) async fn show(client: &Client, name: &str, last: f64) -> anyhow::Result<()> {
    let (worker, metrics, line) = look(client, name, last).await?;
    let terminal = std::io::stdout().is_terminal();
    let size = if terminal { ratatui::crossterm::terminal::size().ok() } else { None };
    let width = size.map_or(80, |(w, _)| usize::from(w)).clamp(WIDTH.0, WIDTH.1);
    let page = Page { width, colour: terminal && draw::colours() };
    for text in page.lines(&worker, &metrics, &line.intervals, (line.from, line.to), last) {
        output::exactly(&text)?;
    }
    Ok(())
}

/// Prints the worker's document with `metrics` and `timeline`, as JSON.
pub(crate) async fn document(client: &Client, name: &str, last: f64) -> anyhow::Result<Value> {
    let (worker, metrics, line) = look(client, name, last).await?;
    let mut document = serde_json::to_value(worker)?;
    document["metrics"] = serde_json::to_value(metrics)?;
    document["timeline"] = serde_json::to_value(line)?;
    Ok(document)
}

async fn look(
    client: &Client,
    name: &str,
    last: f64,
) -> anyhow::Result<(Worker, WorkerMetrics, WorkerTimeline)> {
    let from = now().saturating_sub((last * 1000.0) as i64).max(0);
    let worker = client.worker(name).await?;
    // The last five minutes are available by the second.
    let resolution = match last {
        s if s <= 300.0 => "1s",
        s if s <= 86_400.0 => "1m",
        _ => "1h",
    };
    let metrics = client.worker_metrics(name, resolution, Some(from)).await?;
    let line = client.timeline(name, Some(from)).await?;
    Ok((worker, metrics, line))
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn colour(state: &str) -> Color {
    match state {
        "connected" => Color::Green,
        "resync" => Color::Cyan,
        "suspect" | "draining" => Color::Yellow,
        "away" | "unfit" => Color::Red,
        _ => Color::DarkGrey,
    }
}

impl Page {
    fn paint(&self, text: &str, colour: Color) -> String {
        let text = visible(text);
        if self.colour { text.with(colour).to_string() } else { text.into_owned() }
    }

    fn lines(
        &self,
        w: &Worker,
        m: &WorkerMetrics,
        intervals: &[Interval],
        (from, to): (i64, i64),
        last: f64,
    ) -> Vec<String> {
        let mut lines = self.head(w);
        let l = &m.link;
        let rtt = match &l.rtt {
            None => "not measured yet".to_owned(),
            Some(r) => format!(
                "median {} · p95 {} · min {} · jitter {} ({} samples)",
                draw::ms(r.median),
                draw::ms(r.p95),
                draw::ms(r.min),
                draw::ms(r.jitter),
                r.samples
            ),
        };
        let opt = |v: Option<f64>, of: &dyn Fn(f64) -> String| v.map_or("-".into(), of);
        let percent = |v: f64| format!("{:.1}%", v * 100.0);
        lines.push(String::new());
        self.pair(&mut lines, "round trip", &rtt);
        let quality = format!(
            "{} of the time up · loss {} · suspicion {} · {} reconnects ({} in the last minute)",
            percent(m.connection_stability),
            opt(l.loss, &percent),
            opt(l.suspicion, &|phi| format!("{phi:.1}")),
            l.reconnects,
            l.reconnects_per_minute,
        );
        self.pair(&mut lines, "link", &quality);
        let dials = format!(
            "{} of {} succeeded · mean outage {} · longest {} · resync {}",
            m.successful_connections,
            m.connection_attempts,
            opt(m.avg_reconnect_time, &|s| format!("{s:.1} s")),
            opt(m.max_reconnect_time, &|s| format!("{s:.1} s")),
            l.resync_ms.map_or("-".into(), |ms| format!("{ms} ms")),
        );
        self.pair(&mut lines, "dials", &dials);
        let goodput = format!(
            "{}/s up · {}/s down · {} and {} in total",
            output::bytes(l.goodput_up as u64),
            output::bytes(l.goodput_down as u64),
            output::bytes(l.bytes_up),
            output::bytes(l.bytes_down),
        );
        self.pair(&mut lines, "goodput", &goodput);
        let tasks = format!(
            "{} ended · {} succeeded · {} each · {} checkpoints created, {} restored",
            m.tasks_executed,
            opt(m.task_success_rate, &percent),
            opt(m.avg_task_execution_time_ms, &|ms| output::duration(ms as i64)),
            m.checkpoints_created,
            m.checkpoints_restored,
        );
        self.pair(&mut lines, "tasks", &tasks);
        for (n, a) in m.adaptation.iter().enumerate() {
            let text = format!("{} ({}): {} · {}", a.setting, a.side, a.to, a.why);
            self.pair(&mut lines, if n == 0 { "adapted" } else { "" }, &text);
        }
        lines.push(String::new());
        let span = output::duration((last * 1000.0) as i64);
        lines.push(format!("last {span}"));
        let s = &m.series;
        let both: Vec<Option<f64>> =
            s.goodput_up.iter().zip(&s.goodput_down).map(|(a, b)| Some((*a)? + (*b)?)).collect();
        // All three have the same time axis, which begins with the first value.
        let begin = intervals.first().map_or(from, |i| i.from.max(from));
        let first = s.at.partition_point(|at| at + (s.step_ms as i64) <= begin);
        self.spark(&mut lines, "rtt", &s.rtt_ms[first..], &draw::ms);
        self.spark(&mut lines, "goodput", &both[first..], &|v| output::bytes(v as u64) + "/s");
        self.timeline(&mut lines, intervals, (from, to));
        lines
    }

    fn head(&self, w: &Worker) -> Vec<String> {
        let state = self.paint(&w.state, colour(&w.state));
        let mut head = format!("{}  {state}", visible(&w.name));
        if w.gone_cause != LinkCause::Unspecified {
            head += &visible(&format!("  {}: {}", w.gone_cause, w.gone_reason));
        }
        if w.gone_at.is_none() && !w.unfit.is_empty() {
            head += &format!("  {} since {}", w.unfit, output::time(w.unfit_since.as_deref()));
        }
        let load = format!(
            "{} of {} slots busy · {} held · {} queued · {} unacknowledged",
            w.running, w.slots, w.held, w.queued, w.unacked
        );
        let store = format!("store {} · version {}", w.store_id, w.version);
        vec![head, load, visible(&store).into_owned()]
    }

    /// Adds a name and its text, wrapped to the width.
    fn pair(&self, lines: &mut Vec<String>, name: &str, text: &str) {
        let (room, text) = (self.width.saturating_sub(12).max(16), visible(text));
        let (mut line, mut first) = (String::new(), true);
        for part in text.split(" · ") {
            if !line.is_empty() && line.chars().count() + part.chars().count() + 3 > room {
                lines.push(format!("{:<12}{line}", if first { name } else { "" }));
                (line, first) = (String::new(), false);
            }
            if !line.is_empty() {
                line += " · ";
            }
            line += part;
        }
        lines.push(format!("{:<12}{line}", if first { name } else { "" }));
    }

    fn spark(
        &self,
        lines: &mut Vec<String>,
        name: &str,
        values: &[Option<f64>],
        of: &dyn Fn(f64) -> String,
    ) {
        let Some(most) = values.iter().flatten().copied().reduce(f64::max) else {
            return lines.push(format!("{name:<12}no measurements"));
        };
        let room = self.room();
        let drawn = draw::sparkline(&draw::stretch(values, room), room);
        lines.push(format!("{name:<12}{} max {}", self.paint(&drawn, Color::Cyan), of(most)));
    }

    /// Width in characters of drawings over time, without their name and highest value.
    fn room(&self) -> usize {
        self.width.saturating_sub(12 + 16).max(12)
    }

    fn timeline(&self, lines: &mut Vec<String>, intervals: &[Interval], (from, to): (i64, i64)) {
        let Some(first) = intervals.first() else {
            return lines.push(format!("{:<12}no data", "timeline"));
        };
        let from = first.from.max(from);
        let bar = draw::bar(intervals, from, to, self.room());
        let mut drawn = String::new();
        for (c, state) in bar {
            drawn += &self.paint(&c.to_string(), colour(state));
        }
        lines.push(format!("{:<12}{drawn}", "timeline"));
        let seen = draw::STATES.iter().filter(|(s, _)| intervals.iter().any(|i| i.state == *s));
        let legend: Vec<String> = seen.map(|(s, c)| format!("{c} {s}")).collect();
        self.pair(lines, "", &legend.join(" · "));
        lines.push(String::new());
        let hidden = intervals.len().saturating_sub(TOLD);
        if hidden > 0 {
            lines.push(format!("{hidden} earlier intervals; --json shows all"));
        }
        for i in &intervals[hidden..] {
            let length = output::duration(i.to.unwrap_or(to) - i.from);
            let length = if i.to.is_none() { format!("{length} so far") } else { length };
            let why = match (i.cause.word(), i.reason.as_str()) {
                // The length already says so.
                _ if i.state == "resync" => String::new(),
                ("", reason) => reason.to_owned(),
                (cause, "") => cause.to_owned(),
                (cause, reason) => format!("{cause}: {reason}"),
            };
            let state = format!("{:<9}", i.state);
            let room = self.width.saturating_sub(40).max(12);
            let text = format!(
                "  {}  {} {length:<15} {}",
                output::clock(i.from),
                self.paint(&state, colour(&i.state)),
                output::short(&why, room)
            );
            lines.push(text.trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(width: usize) -> Vec<String> {
        let worker = json!({"name": "w", "store_id": "s", "state": "suspect", "incarnation": 1,
            "connection": 1, "slots": 2, "held": 1, "running": 0, "queued": 0, "unacked": 0,
            "rtt_ms": 3, "capabilities": {}, "version": "1", "gone_cause": "silent",
            "gone_reason": "silent for 15 s"});
        let series = json!({"resolution": "1m", "step_ms": 60000, "at": [0, 60000, 120000],
            "connected": [null, 1.0, 1.0], "rtt_ms": [null, 2.0, 4.0], "rtt_max_ms": [null, 1, 1],
            "suspicion": [null, 0, 0], "goodput_up": [null, 1000, 0], "goodput_down": [null, 0, 0],
            "messages": [], "reconnects": [], "heartbeats_lost": [], "tasks_executed": [],
            "tasks_failed": [], "checkpoints": [], "running": []});
        let link = json!({"rtt": null, "worker_rtt_ms": 0, "reconnects_per_minute": 1,
            "reconnects": 2, "failed_connections": 0, "connection_success_rate": 1.0,
            "heartbeats_lost": 0, "goodput_up": 0.0, "goodput_down": 0.0, "bytes_up": 1200,
            "bytes_down": 5});
        let metrics = json!({"id": "s", "name": "w", "state": "suspect", "at": "x",
            "connection_attempts": 3, "successful_connections": 3, "connection_stability": 0.987,
            "messages_sent": 1, "messages_received": 1, "message_errors": 0, "tasks_executed": 0,
            "checkpoints_created": 0, "checkpoints_restored": 0, "compression_time_ms": 0.0,
            "decompression_time_ms": 0.0, "link": link, "series": series,
            "adaptation": [{"side": "worker", "setting": "batch", "from": "256 kB", "to": "64 kB",
                "why": "it carries 128 kB/s", "at": "x"}]});
        let intervals = json!([
            {"state": "connected", "from": 60_000, "to": 120_000},
            {"state": "suspect", "from": 120_000, "to": null, "cause": "silent",
             "reason": "silent for 15 s"}]);
        let page = Page { width, colour: false };
        let read = |v| serde_json::from_value(v).unwrap();
        let intervals: Vec<Interval> = serde_json::from_value(intervals).unwrap();
        page.lines(
            &read(worker),
            &serde_json::from_value(metrics).unwrap(),
            &intervals,
            (0, 180_000),
            180.0,
        )
    }

    #[test]
    fn a_worker_is_drawn_wide_and_narrow() {
        for width in [30, 48, 80, 120] {
            let lines = page(width);
            let text = lines.join("\n");
            assert!(text.contains("98.7% of the time up") && !text.contains("nothing"));
            assert!(text.contains("▄█") && text.contains("█ max 4.0 ms"), "{text}");
            assert!(text.contains("█▁") && text.contains("▁ max 1000 B/s"), "{text}");
            assert!(text.contains("━ connected · ▒ suspect") || width < 40, "{text}");
            assert!(text.contains("adapted     batch (worker): 64 kB"), "{text}");
            assert!(text.contains("silent: "), "{text}");
            // Only unbreakable texts may be longer than the terminal is wide.
            let long = lines.iter().skip(3).filter(|l| l.chars().count() > width.max(62)).count();
            assert_eq!(long, 0, "{text}");
            assert!(!text.contains('\u{1b}'));
        }
    }
}
