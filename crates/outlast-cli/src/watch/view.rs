//! The view of workers and tasks: what is queried, in which order it is shown, and its text.

use crate::{draw, output};
use outlast::api::{Alert, CountsView, FleetColumns, FleetTotals, LinkCause, Task};
use outlast::{Client, Error, TaskQuery};
use outlast_wire::text::visible;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};

/// Number of round-trip times kept per worker for its sparkline.
const REMEMBERED: usize = 24;
/// Number of pages of the fleet that are fetched.
const PAGES: usize = 5;

/// Columns of workers and their widths.
pub(super) const COLUMNS: [(&str, u16); 9] = [
    ("WORKER", 18),
    ("STATE", 9),
    ("BUSY", 9),
    ("HELD", 5),
    ("RTT", 7),
    ("UP", 4),
    ("GOODPUT", 10),
    ("ALERT", 8),
    ("WHY", 24),
];

/// The current view.
#[derive(Default, Serialize)]
pub(super) struct View {
    pub at: String,
    pub counts: Option<CountsView>,
    pub fleet: FleetTotals,
    pub workers: FleetColumns,
    pub alerts: Vec<Alert>,
    pub tasks: Vec<Task>,
    #[serde(skip)]
    pub trouble: Option<String>,
    #[serde(skip)]
    pub order: Vec<usize>,
    #[serde(skip)]
    pub rtts: HashMap<String, VecDeque<Option<f64>>>,
    #[serde(skip)]
    pub first: usize,
}

impl View {
    /// Queries the current state.
    pub async fn refresh(&mut self, client: &Client) -> Result<(), Error> {
        let counts = client.counts().await?;
        let mut page = client.fleet(None).await?;
        let mut workers = std::mem::take(&mut page.workers);
        for _ in 1..PAGES {
            let Some(cursor) = page.next.take() else { break };
            page = client.fleet(Some(&cursor)).await?;
            join(&mut workers, std::mem::take(&mut page.workers));
        }
        let alerts = client.alerts(Some("firing")).await?.alerts;
        let query = TaskQuery { limit: Some(100), ..Default::default() };
        let tasks = client.tasks(&query).await?.tasks;
        let remember = |old: &mut HashMap<String, VecDeque<Option<f64>>>, n: usize| {
            let mut of = old.remove(&workers.id[n]).unwrap_or_default();
            if of.len() == REMEMBERED {
                of.pop_front();
            }
            of.push_back(workers.rtt_ms[n].map(f64::from));
            (workers.id[n].clone(), of)
        };
        let mut old = std::mem::take(&mut self.rtts);
        self.rtts = (0..workers.id.len()).map(|n| remember(&mut old, n)).collect();
        (self.at, self.counts, self.fleet) = (page.at, Some(counts), page.totals);
        (self.workers, self.alerts, self.tasks) = (workers, alerts, tasks);
        self.order = (0..self.workers.id.len()).collect();
        let w = &self.workers;
        self.order.sort_by_key(|n| {
            let alert = ["critical", "warning", "info"].iter().position(|a| *a == w.alert[*n]);
            let state = ["unfit", "suspect", "away", "draining", "connected"];
            let state = state.iter().position(|s| *s == w.state[*n]);
            // A worker that was stopped on purpose is not a problem.
            let stopped = w.state[*n] == "away" && w.cause[*n] == LinkCause::Stopped;
            (alert.unwrap_or(3), stopped, state.unwrap_or(4), *n)
        });
        Ok(())
    }

    /// Summarizes the view in one line.
    pub fn summary(&self) -> String {
        let f = &self.fleet;
        let mut text = format!("{} workers: {} connected", f.workers, f.connected);
        for (count, word) in
            [(f.unfit, "unfit"), (f.draining, "draining"), (f.suspect, "suspect"), (f.away, "away")]
        {
            if count > 0 {
                text += &format!(", {count} {word}");
            }
        }
        text += &format!(" · {} of {} slots busy", f.running, f.slots);
        if let Some(c) = &self.counts {
            text += &format!(
                " · {} waiting, {} assigned ({} running), {} succeeded, {} failed, {} cancelled",
                c.pending, c.assigned, c.running, c.succeeded, c.failed, c.cancelled
            );
            if c.paused > 0 {
                text += &format!(", {} paused", c.paused);
            }
        }
        for (severity, count) in &f.alerts {
            text += &format!(" · {count} {severity}");
        }
        text
    }

    /// Prints the view as text.
    pub fn print(&self) -> std::io::Result<()> {
        output::line(&self.summary())?;
        for alert in &self.alerts {
            output::line(&format!("{}: {}", alert.severity, alert.message))?;
        }
        if !self.order.is_empty() {
            output::line("")?;
            let head = COLUMNS.map(|(name, _)| name);
            let rows: Vec<Vec<String>> = self.order.iter().map(|n| self.cells(*n)).collect();
            output::table(&head, &rows)?;
        }
        Ok(())
    }

    /// Cells of a row, in the order of [`COLUMNS`].
    pub fn cells(&self, n: usize) -> Vec<String> {
        let w = &self.workers;
        let rtt = w.rtt_ms[n].map_or("-".into(), |ms| draw::ms(f64::from(ms)));
        let back = w.reconnects_per_minute[n];
        let mut why = w.cause[n].to_string();
        if back > 0 {
            why = format!("{why} back {back}× in a minute").trim().to_owned();
        }
        vec![
            visible(&w.name[n]).into_owned(),
            w.state[n].clone(),
            format!("{}/{}", w.running[n], w.slots[n]),
            w.held[n].to_string(),
            rtt,
            format!("{:.0}%", w.stability[n] * 100.0),
            output::bytes(w.goodput[n].into()) + "/s",
            w.alert[n].clone(),
            visible(&why).into_owned(),
        ]
    }
}

fn join(all: &mut FleetColumns, more: FleetColumns) {
    all.id.extend(more.id);
    all.name.extend(more.name);
    all.state.extend(more.state);
    all.slots.extend(more.slots);
    all.running.extend(more.running);
    all.held.extend(more.held);
    all.rtt_ms.extend(more.rtt_ms);
    all.suspicion.extend(more.suspicion);
    all.stability.extend(more.stability);
    all.reconnects_per_minute.extend(more.reconnects_per_minute);
    all.goodput.extend(more.goodput);
    all.alert.extend(more.alert);
    all.since.extend(more.since);
    all.cause.extend(more.cause);
}
