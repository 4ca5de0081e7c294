//! `outlast watch`: a live view of workers and tasks in the terminal, or lines for a pipe.

mod screen;

use crate::{Context, draw, output};
use outlast::api::{Alert, CountsView, FleetColumns, FleetTotals, Task};
use outlast::{Client, Error, TaskQuery};
use outlast_wire::text::visible;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Time between two requests: workers are measured once a second.
const EVERY: Duration = Duration::from_secs(1);
/// Number of round-trip times kept per worker for its sparkline.
const REMEMBERED: usize = 24;
/// Number of pages of the fleet that are fetched.
const PAGES: usize = 5;

/// Live view of workers and tasks.
#[derive(clap::Args)]
#[command(after_help = "In the terminal q, Esc or Ctrl-C quits, and ↑ ↓ PgUp PgDn move through the
workers; those in trouble come first. Without a terminal it prints a line whenever something has
changed; with --json it prints a document a second.")]
pub(crate) struct Args {
    /// Print the current state once
    #[arg(long)]
    once: bool,
}

/// The current view.
#[derive(Default, Serialize)]
struct View {
    at: String,
    counts: Option<CountsView>,
    fleet: FleetTotals,
    workers: FleetColumns,
    alerts: Vec<Alert>,
    tasks: Vec<Task>,
    #[serde(skip)]
    trouble: Option<String>,
    #[serde(skip)]
    order: Vec<usize>,
    #[serde(skip)]
    rtts: HashMap<String, VecDeque<Option<f64>>>,
    #[serde(skip)]
    first: usize,
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    // Errors are shown in the view.
    let client = context.quiet_client()?;
    let mut view = View::default();
    // Before the screen is cleared, so that a wrong key or address is reported in plain text.
    view.look(&client).await?;
    if args.once || context.json() || !std::io::stdout().is_terminal() {
        return lines(&client, view, args.once, context.json()).await;
    }
    let mut term = signal(SignalKind::terminate())?;
    // Restores the terminal even after a panic.
    let mut terminal = ratatui::try_init()?;
    let colour = draw::colours();
    let end = tokio::select! {
        end = show(&mut terminal, &client, context.url(), view, colour) => end,
        _ = term.recv() => Ok(()),
    };
    ratatui::restore();
    end?;
    Ok(0)
}

/// Prints lines for pipes and files.
async fn lines(client: &Client, mut view: View, once: bool, json: bool) -> anyhow::Result<u8> {
    let mut last = String::new();
    loop {
        match (json, once) {
            (true, _) => output::json(&view)?,
            (false, true) => view.print()?,
            (false, false) => {
                let line = view.trouble.clone().unwrap_or_else(|| view.summary());
                if line != last {
                    output::line(&format!("{}  {line}", output::time(Some(&view.at))))?;
                    last = line;
                }
            }
        }
        if once {
            return Ok(0);
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(0),
        }
        match view.look(client).await {
            Ok(()) => view.trouble = None,
            // An outdated document would mislead.
            Err(error) if json => return Err(error.into()),
            Err(error) => view.trouble = Some(error.to_string()),
        }
    }
}

async fn show(
    terminal: &mut DefaultTerminal,
    client: &Client,
    url: String,
    mut view: View,
    colour: bool,
) -> anyhow::Result<()> {
    let mut looked = tokio::time::Instant::now();
    loop {
        terminal.draw(|frame| screen::draw(&mut view, frame, &url, colour))?;
        let wait = EVERY.saturating_sub(looked.elapsed());
        let input = tokio::task::spawn_blocking(move || match event::poll(wait) {
            Ok(true) => event::read().map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        });
        if let Some(Event::Key(key)) = input.await?? {
            let interrupt =
                key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
            match key.code {
                _ if interrupt => return Ok(()),
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => view.first += 1,
                KeyCode::Up | KeyCode::Char('k') => view.first = view.first.saturating_sub(1),
                KeyCode::PageDown => view.first += 10,
                KeyCode::PageUp => view.first = view.first.saturating_sub(10),
                KeyCode::Home => view.first = 0,
                _ => {}
            }
        }
        if looked.elapsed() >= EVERY {
            looked = tokio::time::Instant::now();
            // The last view stays on the screen while the coordinator is away.
            view.trouble = view.look(client).await.err().map(|e| e.to_string());
        }
    }
}

impl View {
    async fn look(&mut self, client: &Client) -> Result<(), Error> {
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
            let stopped = w.state[*n] == "away" && w.cause[*n] == "worker_stopped";
            (alert.unwrap_or(3), stopped, state.unwrap_or(4), *n)
        });
        Ok(())
    }

    /// Summarizes the view in one line.
    fn summary(&self) -> String {
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

    fn print(&self) -> std::io::Result<()> {
        output::line(&self.summary())?;
        for alert in &self.alerts {
            output::line(&format!("{}: {}", alert.severity, alert.message))?;
        }
        if !self.order.is_empty() {
            output::line("")?;
            let head = screen::COLUMNS.map(|(name, _)| name);
            let rows: Vec<Vec<String>> = self.order.iter().map(|n| self.cells(*n)).collect();
            output::table(&head, &rows)?;
        }
        Ok(())
    }

    /// Cells of a row, in the order of `screen::COLUMNS`.
    fn cells(&self, n: usize) -> Vec<String> {
        let w = &self.workers;
        let rtt = w.rtt_ms[n].map_or("-".into(), |ms| draw::ms(f64::from(ms)));
        let back = w.reconnects_per_minute[n];
        let mut why = w.cause[n].clone();
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
