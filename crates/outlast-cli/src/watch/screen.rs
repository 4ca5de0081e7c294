//! The screen: totals, alerts, workers, newest tasks. Columns that do not fit are omitted from the
//! right.

use super::view::{COLUMNS, View};
use crate::{draw as drawing, output};
use outlast::api::Task;
use outlast_wire::text::visible;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table, Wrap};

/// Width of the sparkline, which follows the round-trip time if there is room.
const SPARK: u16 = 12;
/// Number of alerts that are listed.
const ALERTS: usize = 4;

pub(super) fn draw(view: &mut View, frame: &mut Frame<'_>, url: &str, colour: bool) {
    let area = frame.area();
    let alerts = view.alerts.len().min(ALERTS) as u16;
    let text = view.trouble.clone().unwrap_or_else(|| view.summary());
    let text = visible(&text).into_owned();
    // In full, even on a narrow screen.
    let width = usize::from(area.width.max(1));
    let head =
        1 + (text.chars().count().div_ceil(width.saturating_sub(6).max(1)) as u16).clamp(1, 4);
    let body = area.height.saturating_sub(head + alerts);
    let wanted = view.order.len() as u16 + 3;
    // Workers get two thirds, if there are that many.
    let workers = wanted.clamp(4, (body * 2 / 3).max(4)).min(body);
    let heights = [head, alerts, workers].map(Constraint::Length);
    let areas = heights.into_iter().chain([Constraint::Min(0)]);
    let [head, alert, fleet, tasks] = Layout::vertical(areas).areas(area);
    let paint = |color: Color| if colour { Style::new().fg(color) } else { Style::new() };
    let title = Line::from(format!("Outlast at {url}   (q quits)")).bold();
    let state = match &view.trouble {
        Some(_) => Line::from(text).style(paint(Color::Red)),
        None => Line::from(text),
    };
    let text = Paragraph::new(vec![title, state]).wrap(Wrap { trim: true });
    frame.render_widget(text, head);
    let lines: Vec<Line<'_>> = view
        .alerts
        .iter()
        .take(ALERTS)
        .map(|a| {
            let color = match a.severity.as_str() {
                "critical" => Color::Red,
                "warning" => Color::Yellow,
                _ => Color::Cyan,
            };
            let text = visible(&format!("{}: {}", a.severity, a.message)).into_owned();
            let text = Line::from(text).style(paint(color));
            if a.severity == "critical" { text.add_modifier(Modifier::BOLD) } else { text }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), alert);
    view.first = view.first.min(view.order.len().saturating_sub(1));
    workers_table(view, frame, fleet, &paint);
    tasks_table(&view.tasks, frame, tasks, &paint);
}

fn state_style(state: &str, paint: &dyn Fn(Color) -> Style) -> Style {
    match state {
        "connected" | "succeeded" => paint(Color::Green),
        "suspect" | "cancelled" | "draining" | "unfit" => paint(Color::Yellow),
        "away" | "failed" => paint(Color::Red),
        "assigned" | "running" => paint(Color::Cyan),
        _ => Style::new(),
    }
}

/// Returns the indices of the columns that fit, and whether the sparkline does.
fn fitting(width: u16) -> (Vec<usize>, bool) {
    let inner = width.saturating_sub(2);
    // Names, states and reasons matter most.
    let order = [0, 1, 8, 4, 2, 7, 5, 6, 3];
    let (mut used, mut columns) = (0, Vec::new());
    for n in order {
        let least = if n == 8 { 8 } else { COLUMNS[n].1 };
        if used + least < inner || columns.is_empty() {
            used += least + 1;
            columns.push(n);
        }
    }
    columns.sort_unstable();
    let spark = used + SPARK < inner && columns.contains(&4);
    (columns, spark)
}

fn workers_table(view: &View, frame: &mut Frame<'_>, area: Rect, paint: &dyn Fn(Color) -> Style) {
    let (columns, spark) = fitting(area.width);
    let mut head = Vec::new();
    let mut widths = Vec::new();
    for n in &columns {
        head.push(COLUMNS[*n].0);
        widths.push(if *n == 8 { Constraint::Min(8) } else { Constraint::Length(COLUMNS[*n].1) });
        if *n == 4 && spark {
            head.push("");
            widths.push(Constraint::Length(SPARK));
        }
    }
    let shown = usize::from(area.height.saturating_sub(3));
    let rows = view.order.iter().skip(view.first).take(shown).map(|n| {
        let mut all = view.cells(*n);
        let state = all[1].clone();
        let mut cells = Vec::new();
        for c in &columns {
            cells.push(std::mem::take(&mut all[*c]));
            if *c == 4 && spark {
                let past = view.rtts.get(&view.workers.id[*n]);
                let past: Vec<_> = past.into_iter().flatten().copied().collect();
                cells.push(drawing::sparkline(&past, SPARK.into()));
            }
        }
        Row::new(cells).style(state_style(&state, paint))
    });
    let count = view.order.len();
    let last = (view.first + shown).min(count);
    let title = match count {
        0 => "no workers yet; start one with `outlast worker`".into(),
        n if n > shown => format!("workers {} to {last} of {n}", view.first + 1),
        _ => "workers".to_owned(),
    };
    let rows: Vec<Row<'_>> = rows.collect();
    let table = Table::new(rows, widths)
        .header(Row::new(head).bold())
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn tasks_table(tasks: &[Task], frame: &mut Frame<'_>, area: Rect, paint: &dyn Fn(Color) -> Style) {
    let narrow = area.width < 72;
    let widths: &[u16] = if narrow { &[14, 9] } else { &[38, 11, 4, 16, 9] };
    let names: &[&str] = if narrow {
        &["TASK", "STATE", "COMMAND"]
    } else {
        &["TASK", "STATE", "TRY", "WORKER", "AT", "COMMAND"]
    };
    let widths = widths.iter().map(|w| Constraint::Length(*w)).chain([Constraint::Min(10)]);
    let rows = tasks.iter().map(|t| {
        let command = output::short(&output::command(&t.spec), 80);
        let at = t.ended_at.as_ref().or(t.started_at.as_ref()).unwrap_or(&t.submitted_at);
        let clock = at.split('T').nth(1).and_then(|c| c.get(..8)).unwrap_or_default();
        let cells = if narrow {
            // Ids often share a prefix; their ends differ.
            let skip = t.id.chars().count().saturating_sub(13);
            let end: String = t.id.chars().skip(skip).collect();
            let id = if skip > 0 { format!("…{end}") } else { end };
            vec![id, t.state.to_string(), command]
        } else {
            let worker = visible(t.worker.as_deref().unwrap_or_default()).into_owned();
            vec![
                t.id.clone(),
                t.state.to_string(),
                t.attempt.to_string(),
                worker,
                clock.into(),
                command,
            ]
        };
        Row::new(cells).style(state_style(t.state.as_str(), paint))
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let table = Table::new(rows, widths)
        .header(Row::new(names.iter().copied()).bold())
        .block(Block::bordered().title("newest tasks"));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast::api::{FleetColumns, LinkCause};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn view() -> View {
        let names: Vec<String> = (0..30).map(|n| format!("worker-{n}")).collect();
        let n = names.len();
        let mut states = vec!["connected".to_owned(); n];
        states[3] = "suspect".into();
        let mut causes = vec![LinkCause::Unspecified; n];
        causes[3] = LinkCause::Silent;
        let workers = FleetColumns {
            id: names.clone(),
            name: names,
            state: states,
            slots: vec![4; n],
            running: vec![2; n],
            held: vec![3; n],
            rtt_ms: vec![Some(1.5); n],
            suspicion: vec![None; n],
            stability: vec![0.99; n],
            reconnects_per_minute: vec![0; n],
            goodput: vec![12_000; n],
            alert: vec![String::new(); n],
            since: vec![None; n],
            cause: causes,
        };
        View {
            workers,
            order: std::iter::once(3).chain(0..3).chain(4..n).collect(),
            ..View::default()
        }
    }

    fn drawn(width: u16, height: u16, view: &mut View, colour: bool) -> (String, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|f| draw(view, f, "http://x", colour)).unwrap();
        let buffer = terminal.backend().buffer();
        let painted = buffer.content.iter().any(|c| c.fg != Color::Reset);
        let lines = buffer.content.chunks(width.into());
        let lines: Vec<String> = lines.map(|l| l.iter().map(|c| c.symbol()).collect()).collect();
        (lines.join("\n"), painted)
    }

    #[test]
    fn trouble_is_on_every_screen() {
        for (width, height) in [(20, 10), (40, 12), (80, 24), (200, 50)] {
            let (text, painted) = drawn(width, height, &mut view(), true);
            assert!(text.contains("worker-3") && text.contains("suspect") || width < 30, "{text}");
            assert!(text.contains("silent") || width < 30, "{text}");
            assert!(painted);
        }
        assert!(!drawn(80, 24, &mut view(), false).1, "NO_COLOR");
        let mut down = View { first: 900, ..view() };
        assert!(drawn(80, 24, &mut down, true).0.contains("workers 30 to 30 of 30"));
        assert!(drawn(80, 24, &mut View::default(), true).0.contains("no workers yet"));
    }
}
