//! `outlast recovery`: rules and patterns of failure recovery, and operator overrides.

use crate::context::{Context, SHORT, each};
use crate::output;
use outlast::api::{FailurePattern, LearnedKnobs, RecoveryPatterns, RecoveryTable, Strategy};
use serde_json::json;

#[derive(clap::Subcommand)]
#[command(after_help = "A coordinator's own table is a TOML file that it is given with --recovery:
  base_delay = 5                               # seconds
  [errors]
  device = [\"different_worker\", \"escalation\"]
  [[rules]]
  pattern = \"quench detected\"
  class = \"device\"
  [labels.\"team=ml\".errors]
  software = [\"escalation\"]")]
pub(crate) enum RecoveryCommand {
    /// Print the recovery actions for each class of failure, in order
    Show,
    /// List repeated failures, quarantined workers, and knob values that worked
    Patterns {
        /// Also list the failures themselves
        #[arg(long, short)]
        all: bool,
    },
    /// End the quarantine of workers
    Release {
        /// Worker names
        #[arg(required = true)]
        workers: Vec<String>,
    },
    /// Quarantine workers: they get no work except, after a while, a probe
    Quarantine {
        /// Worker names
        #[arg(required = true)]
        workers: Vec<String>,
    },
    /// Discard the failures of a type of task, so that it may run on any hardware again
    Allow {
        /// Type of task
        task_type: String,
    },
    /// Forget the knob values that worked
    Forget {
        /// Only for this type of task
        #[arg(required_unless_present = "all")]
        task_type: Option<String>,
        /// For all types of tasks
        #[arg(long, conflicts_with = "task_type")]
        all: bool,
    },
}

pub(crate) async fn run(context: &Context, what: RecoveryCommand) -> anyhow::Result<u8> {
    let client = context.client(SHORT)?;
    match what {
        RecoveryCommand::Show => {
            let table = client.recovery().await?;
            if context.json() { output::json(&table)? } else { show(&table)? }
        }
        RecoveryCommand::Patterns { all } => {
            let found = client.recovery_patterns().await?;
            if context.json() { output::json(&found)? } else { patterns(&found, all)? }
        }
        RecoveryCommand::Release { workers } => {
            let release = async |worker: &str| {
                client.release(worker).await?;
                standing(context, &client, worker, "gets work again").await
            };
            return each(&workers, release).await;
        }
        RecoveryCommand::Quarantine { workers } => {
            let quarantine = async |worker: &str| {
                client.quarantine(worker).await?;
                standing(context, &client, worker, "gets no work except probes").await
            };
            return each(&workers, quarantine).await;
        }
        RecoveryCommand::Allow { task_type } => {
            client.allow_type(&task_type).await?;
            let note = format!("{task_type}: previous failures are discarded");
            context.done(&json!({ "type": task_type, "allowed": true }), &note)?;
        }
        RecoveryCommand::Forget { task_type, all: _ } => {
            client.forget_knobs(task_type.as_deref()).await?;
            let which = task_type.as_deref().unwrap_or("all");
            let note = format!("{which}: starts with its first values");
            context.done(&json!({ "type": task_type, "forgotten": true }), &note)?;
        }
    }
    Ok(0)
}

fn show(table: &RecoveryTable) -> anyhow::Result<()> {
    let ladder = |(class, rungs): (&String, &Vec<Strategy>)| {
        let rungs: Vec<_> = rungs.iter().map(|rung| rung.as_str()).collect();
        vec![class.clone(), rungs.join(", ")]
    };
    output::table(
        &["AFTER", "IN THIS ORDER"],
        &table.errors.iter().map(ladder).collect::<Vec<_>>(),
    )?;
    output::line("")?;
    let head = ["ELSE ON", "IN THIS ORDER"];
    output::table(&head, &table.hardware.iter().map(ladder).collect::<Vec<_>>())?;
    output::line("")?;
    let (base, max) = (table.base_delay, table.max_delay);
    let jitter = table.jitter * 100.0;
    output::line(&format!("delays: {base} s, doubled each time up to {max} s, ± {jitter:.0}%"))?;
    let p = &table.patterns;
    output::line(&format!(
        "patterns: {} similar failures within {} s, of the last {}; a quarantined worker gets a probe after {} s",
        p.count, p.window, p.history, p.probation
    ))?;
    let knobs = if table.remember { "are remembered" } else { "are not remembered" };
    output::line(&format!("knobs that worked: {knobs}"))?;
    for rule in &table.rules {
        output::line(&format!("rule: {:?} is {}", rule.pattern, rule.class.as_str()))?;
    }
    for (label, with) in &table.labels {
        output::line(&format!("tasks with {label}: {}", serde_json::to_string(with)?))?;
    }
    Ok(())
}

fn patterns(found: &RecoveryPatterns, all: bool) -> anyhow::Result<()> {
    if found.patterns.is_empty() {
        output::line("no patterns: no repeated failures lately")?;
    } else {
        let row = |p: &FailurePattern| {
            vec![
                p.kind.clone(),
                p.subject.clone(),
                p.class.clone(),
                p.count.to_string(),
                p.tasks.to_string(),
                p.workers.to_string(),
                output::time(Some(&p.last)),
                output::short(&p.evidence, 60),
            ]
        };
        let rows: Vec<_> = found.patterns.iter().map(row).collect();
        let head = ["SHARED", "WHICH", "FAILURE", "COUNT", "TASKS", "WORKERS", "LAST", "EVIDENCE"];
        output::table(&head, &rows)?;
    }
    for q in &found.quarantined {
        output::line("")?;
        let until = output::time(Some(&q.until));
        output::line(&format!("worker {} is {}: {}", q.worker, q.state, q.reason))?;
        let probes = q.failed_probes;
        output::line(&format!(
            "  a probe from {until} on ({probes} failed); `outlast recovery release {}` ends this",
            q.worker
        ))?;
    }
    if !found.learned.is_empty() {
        output::line("")?;
        let row = |l: &LearnedKnobs| {
            let knobs: Vec<String> = l.knobs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            vec![l.task_type.clone(), l.hardware.clone(), knobs.join(" "), l.task.clone()]
        };
        let rows: Vec<_> = found.learned.iter().map(row).collect();
        output::table(&["TYPE", "ON", "STARTS WITH", "SINCE TASK"], &rows)?;
    }
    if all && !found.failures.is_empty() {
        output::line("")?;
        let rows: Vec<Vec<String>> = (found.failures.iter())
            .map(|f| {
                vec![
                    output::time(Some(&f.at)),
                    format!("{}.{}", f.task, f.attempt),
                    f.task_type.clone(),
                    f.worker.clone(),
                    f.hardware.clone(),
                    f.class.clone(),
                    output::short(&f.evidence, 60),
                ]
            })
            .collect();
        let head = ["WHEN", "TASK", "TYPE", "WORKER", "ON", "FAILURE", "EVIDENCE"];
        output::table(&head, &rows)?;
    }
    Ok(())
}

/// Reads the file of a table.
pub(crate) fn file(path: &std::path::Path) -> Result<serde_json::Value, crate::exit::Usage> {
    let wrong = |e: &dyn std::fmt::Display| crate::exit::Usage(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| wrong(&e))?;
    // JSON would turn them into null, as if they were omitted.
    if let Some(name) = infinite(&table) {
        return Err(wrong(&format!("{name} is not a finite number")));
    }
    serde_json::to_value(table).map_err(|e| wrong(&e))
}

/// Prints a worker's quarantine state as JSON, or the note as text.
async fn standing(
    context: &Context,
    client: &outlast::Client,
    worker: &str,
    note: &str,
) -> anyhow::Result<()> {
    match context.json() {
        true => output::json(&client.worker(worker).await?)?,
        false => eprintln!("{worker}: {note}"),
    }
    Ok(())
}

/// Finds the first number that is not finite, by its name.
fn infinite(table: &toml::Table) -> Option<String> {
    table.iter().find_map(|(name, value)| match value {
        toml::Value::Float(number) if !number.is_finite() => Some(name.clone()),
        toml::Value::Table(inner) => infinite(inner).map(|of| format!("{name}.{of}")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_refused() {
        let named = |text: &str| infinite(&text.parse().unwrap());
        assert_eq!(named("base_delay = nan"), Some("base_delay".into()));
        assert_eq!(named("max_delay = inf"), Some("max_delay".into()));
        let label = "[labels.\"team=ml\"]\njitter = -inf";
        assert_eq!(named(label), Some("labels.team=ml.jitter".into()));
        assert_eq!(named("base_delay = 5.5"), None);
    }
}
