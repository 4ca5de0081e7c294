//! `outlast watch`: a live view of workers and tasks in the terminal, or lines for a pipe.

mod screen;
mod view;

use self::view::View;
use crate::context::Context;
use crate::{draw, output};
use outlast::Client;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Time between two requests: workers are measured once a second.
const EVERY: Duration = Duration::from_secs(1);

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

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    // Errors are shown in the view.
    let client = context.quiet_client()?;
    let mut view = View::default();
    // Before the screen is cleared, so that a wrong key or address is reported in plain text.
    view.refresh(&client).await?;
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
        match view.refresh(client).await {
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
    let mut refreshed = tokio::time::Instant::now();
    loop {
        terminal.draw(|frame| screen::draw(&mut view, frame, &url, colour))?;
        let wait = EVERY.saturating_sub(refreshed.elapsed());
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
        if refreshed.elapsed() >= EVERY {
            refreshed = tokio::time::Instant::now();
            // The last view stays on the screen while the coordinator is away.
            view.trouble = view.refresh(client).await.err().map(|e| e.to_string());
        }
    }
}
