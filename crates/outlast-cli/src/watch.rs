//! `outlast watch`: workers and tasks, live in the terminal.

use crate::{Context, Usage, output};
use outlast::api::{CountsView, Task, Worker};
use outlast::{Client, Error, TaskQuery};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use std::io::IsTerminal;
use std::time::Duration;

/// Between looks at the coordinator.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct View {
    counts: Option<CountsView>,
    workers: Vec<Worker>,
    tasks: Vec<Task>,
    trouble: Option<String>,
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<u8> {
    if !std::io::stdout().is_terminal() {
        let what = "watch needs a terminal; `outlast tasks --json` is for programs";
        return Err(Usage(what.into()).into());
    }
    // Its own errors are shown in the view.
    let client = context.quiet_client()?;
    let mut view = View::default();
    // Before the screen is taken: a wrong key or address is told in plain text.
    view.look(&client).await?;
    let mut terminal = ratatui::try_init()?;
    let end = show(&mut terminal, &client, context.url(), view).await;
    ratatui::restore();
    end?;
    Ok(0)
}

async fn show(
    terminal: &mut DefaultTerminal,
    client: &Client,
    url: String,
    mut view: View,
) -> anyhow::Result<()> {
    loop {
        terminal.draw(|frame| view.draw(frame, &url))?;
        let key = tokio::task::spawn_blocking(|| match event::poll(EVERY) {
            Ok(true) => event::read().map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        });
        if let Some(Event::Key(key)) = key.await?? {
            let interrupt =
                key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
            if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(());
            }
        }
        // What was seen last stays on the screen while the coordinator is away.
        view.trouble = view.look(client).await.err().map(|e| e.to_string());
    }
}

impl View {
    async fn look(&mut self, client: &Client) -> Result<(), Error> {
        self.counts = Some(client.counts().await?);
        self.workers = client.workers().await?.workers;
        let query = TaskQuery { limit: Some(100), ..Default::default() };
        self.tasks = client.tasks(&query).await?.tasks;
        Ok(())
    }

    fn draw(&self, frame: &mut Frame<'_>, url: &str) {
        let rows = (self.workers.len() as u16 + 3).min(frame.area().height / 3).max(4);
        let areas = [Constraint::Length(2), Constraint::Length(rows), Constraint::Min(4)];
        let [head, workers, tasks] = Layout::vertical(areas).areas(frame.area());
        let counts = self.counts.as_ref().map_or(String::new(), |c| {
            format!(
                "{} waiting · {} assigned · {} succeeded · {} failed · {} cancelled",
                c.pending, c.assigned, c.succeeded, c.failed, c.cancelled
            )
        });
        let state = match &self.trouble {
            Some(why) => Line::from(why.clone()).red(),
            None => Line::from(counts),
        };
        let title = Line::from(format!("Outlast at {url}   (q quits)")).bold();
        frame.render_widget(ratatui::widgets::Paragraph::new(vec![title, state]), head);
        let columns = [20, 10, 6, 8, 6, 8, 7].map(Constraint::Length);
        let columns = columns.into_iter().chain([Constraint::Min(10)]);
        let names = ["WORKER", "STATE", "SLOTS", "RUNNING", "HELD", "UNACKED", "RTT", "WHY"];
        let table = Table::new(self.workers.iter().map(worker), columns)
            .header(Row::new(names).bold())
            .block(Block::bordered().title("workers"));
        frame.render_widget(table, workers);
        let columns = [38, 11, 4, 16, 9].map(Constraint::Length);
        let columns = columns.into_iter().chain([Constraint::Min(10)]);
        let names = ["TASK", "STATE", "TRY", "WORKER", "AT", "COMMAND"];
        let table = Table::new(self.tasks.iter().map(task), columns)
            .header(Row::new(names).bold())
            .block(Block::bordered().title("newest tasks"));
        frame.render_widget(table, tasks);
    }
}

fn colour(state: &str) -> Style {
    Style::new().fg(match state {
        "connected" | "succeeded" => Color::Green,
        "suspect" | "cancelled" | "draining" => Color::Yellow,
        "away" | "failed" => Color::Red,
        "assigned" => Color::Cyan,
        _ => Color::Reset,
    })
}

fn worker(w: &Worker) -> Row<'static> {
    let why = if w.gone_at.is_some() { w.gone_reason.clone() } else { String::new() };
    Row::new([
        w.name.clone(),
        w.state.clone(),
        w.slots.to_string(),
        w.running.to_string(),
        w.held.to_string(),
        w.unacked.to_string(),
        format!("{}ms", w.rtt_ms),
        why,
    ])
    .style(colour(&w.state))
}

fn task(t: &Task) -> Row<'static> {
    let at = t.ended_at.as_ref().or(t.started_at.as_ref()).unwrap_or(&t.submitted_at);
    let clock = at.split('T').nth(1).and_then(|c| c.get(..8)).unwrap_or_default();
    Row::new([
        t.id.clone(),
        t.state.clone(),
        t.attempt.to_string(),
        t.worker.clone().unwrap_or_default(),
        clock.to_owned(),
        output::short(&output::command(&t.spec), 80),
    ])
    .style(colour(&t.state))
}
