//! `outlast submit`.

use crate::context::Context;
use crate::exit::Usage;
use crate::{args, browser, logs, output, process};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use outlast::api::{TaskResult, TaskState};
use outlast::{KeepCheckpoints, LateResult, NewTask, OnLeaseExpired, Rerun, Run, TaskSpec};
use outlast_wire::recovery::Recovery;
use outlast_wire::trace::{TRACEPARENT, TRACESTATE, TraceParent, is_tracestate};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Results that are awaited at the same time.
const WAITING: usize = 64;
/// Time for which a submission tries to reach the coordinator.
const PATIENCE: Duration = Duration::from_secs(60);

/// Submit tasks.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  outlast submit -- make -j4 test
  outlast submit --shell 'sleep 3 && date' --wait
  outlast submit --array 1-1000 --wait -- ./simulate --seed {}
  outlast submit --file commands.txt --label run=nightly
  outlast submit --browser square.js --args '{\"n\": 12}' --requires webgpu --wait
  echo '{\"shell\":\"uname -a\",\"requires\":{\"os\":\"linux\"}}' | outlast submit --file -

With --array, {} in a command is replaced by the task's number, which is also in
OUTLAST_ARRAY_INDEX. Write {{}} for a literal {}, or choose another placeholder with
--index-token. In a file, each line is a task as JSON if it begins with {\" (or { and \"),
or else a shell command.
With --id, repeating a submission returns the same task.

--knob batch_size=64,32,16 sets OUTLAST_KNOB_BATCH_SIZE for a command, and replaces
{knob.batch_size} in it. A task that runs out of memory is retried with the next value,
from its checkpoint, and the next task of its type starts with the value that worked.")]
pub(crate) struct Args {
    /// Program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Command line for /bin/sh, instead of a program
    #[arg(long, value_name = "LINE", conflicts_with = "command")]
    shell: Option<String>,
    /// JavaScript file to run in a browser; see `outlast browser --help`
    #[arg(long, value_name = "SCRIPT", conflicts_with_all = ["command", "shell", "file"])]
    browser: Option<PathBuf>,
    #[command(flatten)]
    given: browser::Given,
    /// Submit one task per number: 1-1000, 1,3,5-9, 0-100:5
    #[arg(long, value_name = "NUMBERS", conflicts_with = "file")]
    array: Option<String>,
    /// Placeholder for the number in the command of an array task
    #[arg(long, value_name = "TEXT", default_value = "{}", requires = "array",
        value_parser = clap::builder::NonEmptyStringValueParser::new())]
    index_token: String,
    /// Submit one task per line of this file; - is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["command", "shell"])]
    file: Option<PathBuf>,
    /// Id of the task, or common prefix of the ids of several
    #[arg(long)]
    id: Option<String>,
    /// Set an environment variable
    #[arg(long = "env", short = 'e', value_parser = args::pair, value_name = "KEY=VALUE")]
    env: Vec<(String, String)>,
    /// Working directory on the worker [default: a new one]
    #[arg(long, value_name = "FOLDER")]
    cwd: Option<String>,
    /// Longest duration of an attempt
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    timeout: Option<f64>,
    /// Priority; tasks of higher priority are assigned first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Number of slots that the task occupies
    #[arg(long, default_value_t = 1)]
    slots: u32,
    /// Capability that the worker must have: gpu, os=linux, cores>=8
    #[arg(long = "requires", value_parser = args::demand, value_name = "DEMAND")]
    requires: Vec<(String, String)>,
    /// Add a label
    #[arg(long = "label", value_parser = args::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Queue of the task; queues of equal priority are served in rotation
    #[arg(long, default_value = "")]
    queue: String,
    /// Number of retries after its worker was lost
    #[arg(long, default_value_t = 3, value_name = "N")]
    max_retries: u32,
    /// Also retry the task when it fails by itself
    #[arg(long)]
    retry_failures: bool,
    /// Time for which a disconnected worker keeps the task
    #[arg(long, value_parser = args::seconds, default_value = "10m", value_name = "TIME")]
    reconnect_window: f64,
    /// Treatment of a result that arrives after that time: accept or fence
    #[arg(long, value_parser = ["accept", "fence"], default_value = "accept", value_name = "WHAT")]
    late_result: String,
    /// Action of the worker when that time has passed without a link
    #[arg(long, value_parser = ["continue", "pause", "stop"], default_value = "continue", value_name = "WHAT")]
    on_lease_expired: String,
    /// Interval at which the task is asked for a checkpoint [default: never]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    checkpoint_interval: Option<f64>,
    /// Signal that asks for a checkpoint: USR1, USR2 or HUP [default: none; see `outlast task control`]
    #[arg(long, value_name = "SIGNAL")]
    checkpoint_signal: Option<String>,
    /// Number of newest checkpoints to keep
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    keep_checkpoints: u32,
    /// Also keep the first checkpoint of each interval of this length
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    keep_checkpoints_every: Option<f64>,
    /// Apply these limits also if the task fails
    #[arg(long)]
    prune_failed: bool,
    /// Time between SIGTERM and SIGKILL when the task is stopped
    #[arg(long, value_parser = args::seconds, default_value = "5s", value_name = "TIME")]
    kill_grace: f64,
    /// Permission to run again after an interruption: allowed or never
    #[arg(long, value_parser = ["allowed", "never"], default_value = "allowed", value_name = "WHAT")]
    rerun: String,
    /// Setting that recovery may change, with its values in order of preference; see below
    #[arg(long = "knob", value_parser = args::knob, value_name = "NAME=V1,V2")]
    knobs: Vec<(String, Vec<serde_json::Value>)>,
    /// Type that the task shares with similar tasks [default: its label type, or its program]
    #[arg(long = "type", default_value = "", hide_default_value = true, value_name = "NAME")]
    task_type: String,
    /// Number of retries after it ran out of memory [default: one per step of each knob]
    #[arg(long, value_name = "N")]
    max_oom_retries: Option<u32>,
    /// Recovery rules for this task (TOML), over the general ones; see `outlast recovery --help`
    #[arg(long, value_name = "FILE")]
    recovery: Option<PathBuf>,
    /// Wait until all tasks have ended; for a single task, print its output and return its exit code
    #[arg(long, short)]
    wait: bool,
    /// Do not print ids
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    let tasks = tasks_of(&args)?;
    let client = context.client(PATIENCE)?;
    let done = match &tasks[..] {
        [one] => {
            let (task, created) = client.submit(one).await?;
            vec![outlast::api::SubmittedTask { id: task.id, created, state: task.state }]
        }
        many => client.submit_all(many).await?,
    };
    if !args.wait {
        if context.json() {
            output::json(&done)?;
        } else if !args.quiet {
            for task in &done {
                output::line(&task.id)?;
            }
        }
        let old = done.iter().filter(|t| !t.created).count();
        if old > 0 && !args.quiet {
            eprintln!("{old} of {} existed already", done.len());
        }
        return Ok(0);
    }
    let ids: Vec<String> = done.into_iter().map(|t| t.id).collect();
    tokio::select! {
        code = wait(context, &ids) => code,
        _ = tokio::signal::ctrl_c() => {
            let first = &ids[0];
            eprintln!("\nStopped waiting; {} tasks continue.", ids.len());
            eprintln!("List them with `outlast tasks`, or wait with `outlast task result --wait {first}`;");
            eprintln!("cancel with `outlast task cancel {first}`.");
            Ok(130)
        }
    }
}

async fn wait(context: &Context, ids: &[String]) -> anyhow::Result<u8> {
    // Without a time limit: the coordinator may be away for hours.
    let client = context.client(Duration::MAX)?;
    if let [id] = ids {
        let result = client.wait(id).await?;
        return one(context, &result).await;
    }
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(ids.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    let style = "{bar:30} {pos}/{len}  {msg}  {elapsed} (left {eta})";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let (mut results, mut bad) = (Vec::new(), 0);
    let mut waiting = futures_util::stream::iter(ids)
        .map(|id| {
            let client = client.clone();
            async move { client.wait(id).await }
        })
        .buffer_unordered(WAITING);
    while let Some(result) = waiting.next().await {
        let result = result?;
        if result.state != TaskState::Succeeded {
            bad += 1;
            if bad <= 10 && !context.json() {
                bar.suspend(|| eprintln!("{}: {} {}", result.id, result.state, result.message));
            }
            bar.set_message(format!("{bad} failed"));
        }
        bar.inc(1);
        if context.json() {
            results.push(result);
        }
    }
    bar.finish_and_clear();
    if context.json() {
        output::json(&results)?;
    } else {
        eprintln!("{} of {} tasks succeeded", ids.len() - bad, ids.len());
    }
    Ok(u8::from(bad > 0))
}

/// Prints a task's output and returns its exit code.
async fn one(context: &Context, result: &TaskResult) -> anyhow::Result<u8> {
    if context.json() {
        output::json(result)?;
    } else {
        logs::written(context, result, false).await?;
        logs::written(context, result, true).await?;
        if result.state != TaskState::Succeeded {
            eprintln!("outlast: task {} {}: {}", result.id, result.state, result.message);
        }
        if !result.value.is_null() {
            output::exactly(result.value.get())?;
        }
    }
    Ok(match (result.state, result.exit_code) {
        (TaskState::Succeeded, _) => 0,
        (_, Some(code @ 1..=255)) => code as u8,
        _ => process::code_of_signal(result.signal).unwrap_or(1),
    })
}

/// The rules of recovery in a file.
fn recovery_of(args: &Args) -> anyhow::Result<Option<Box<Recovery>>> {
    let Some(path) = &args.recovery else { return Ok(None) };
    let wrong = |e: &dyn std::fmt::Display| Usage(format!("{}: {e}", path.display()));
    let read: Recovery =
        serde_json::from_value(crate::recovery::file(path)?).map_err(|e| wrong(&e))?;
    outlast_core::recovery::Rules::new(&read.rules).map_err(|e| wrong(&e))?;
    Ok(Some(Box::new(read)))
}

/// A task with all options and no work yet.
fn template(args: &Args) -> anyhow::Result<TaskSpec> {
    let recovery = recovery_of(args)?;
    // Scripts of different files are tasks of different types, as programs are.
    let file = args.browser.as_deref().and_then(Path::file_name);
    let task_type = match (args.task_type.as_str(), file) {
        ("", Some(name)) if name != "-" && args.labels.iter().all(|(k, _)| k != "type") => {
            name.to_string_lossy().into_owned()
        }
        (name, _) => name.to_owned(),
    };
    let (traceparent, tracestate) = trace();
    Ok(TaskSpec {
        traceparent,
        tracestate,
        env: args.env.iter().cloned().collect(),
        cwd: args.cwd.clone(),
        timeout: args.timeout,
        priority: args.priority,
        slots: args.slots,
        requires: args.requires.iter().cloned().collect(),
        labels: args.labels.iter().cloned().collect(),
        queue: args.queue.clone(),
        max_retries: args.max_retries,
        retry_failures: args.retry_failures,
        reconnect_window: args.reconnect_window,
        late_result: if args.late_result == "fence" {
            LateResult::Fence
        } else {
            LateResult::Accept
        },
        rerun: if args.rerun == "never" { Rerun::Never } else { Rerun::Allowed },
        kill_grace: args.kill_grace,
        on_lease_expired: match args.on_lease_expired.as_str() {
            "pause" => OnLeaseExpired::Pause,
            "stop" => OnLeaseExpired::Stop,
            _ => OnLeaseExpired::Continue,
        },
        checkpoint_interval: args.checkpoint_interval,
        checkpoint_signal: args.checkpoint_signal.clone(),
        keep_checkpoints: KeepCheckpoints {
            last: args.keep_checkpoints,
            every: args.keep_checkpoints_every,
            failed: !args.prune_failed,
        },
        task_type,
        knobs: args.knobs.iter().cloned().collect(),
        max_oom_retries: args.max_oom_retries,
        recovery,
        ..TaskSpec::new(Run::Shell(String::new()))
    })
}

/// The work of the tasks, as the command line has it.
fn run_of(args: &Args) -> anyhow::Result<Run> {
    Ok(match (&args.shell, args.command.is_empty()) {
        (Some(line), _) => Run::Shell(line.clone()),
        (None, false) => Run::Command(args.command.clone()),
        (None, true) if args.browser.is_some() => {
            Run::Browser(args.given.browser(args.browser.as_deref().unwrap_or(Path::new("-")))?)
        }
        (None, true) => {
            let what = "give a command after --, or --shell, --browser or --file; see --help";
            return Err(Usage(what.into()).into());
        }
    })
}

/// The work of an array's task.
fn numbered(run: &Run, token: &str, n: u64) -> Run {
    let put = |text: &String| put_index(text, token, n);
    match run {
        Run::Command(argv) => Run::Command(argv.iter().map(put).collect()),
        Run::Shell(line) => Run::Shell(put(line)),
        Run::Call(call) => Run::Call(call.clone()),
        Run::Browser(browser) => {
            let mut browser = browser.clone();
            fill(&mut browser.args, token, n);
            Run::Browser(browser)
        }
    }
}

fn tasks_of(args: &Args) -> anyhow::Result<Vec<NewTask>> {
    let base = args.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let template = template(args)?;
    if args.browser.is_none() && args.given.any() {
        let what = "--args, --page and --on-context-loss need --browser SCRIPT";
        return Err(Usage(what.into()).into());
    }
    let with = |run| TaskSpec { run, ..template.clone() };
    if let Some(file) = &args.file {
        return from_file(file, &base, with);
    }
    let run = run_of(args)?;
    let checked = |id: String, spec: TaskSpec| {
        outlast_wire::spec::check_task_id(&id).and_then(|()| spec.check())?;
        Ok(NewTask { id, spec })
    };
    let usage = |e: outlast_wire::SpecError| Usage(e.to_string());
    let Some(array) = &args.array else {
        return Ok(vec![checked(base, with(run)).map_err(usage)?]);
    };
    let numbers = args::array(array).map_err(Usage)?;
    let mut tasks = Vec::with_capacity(numbers.len());
    for n in numbers {
        let mut spec = with(numbered(&run, &args.index_token, n));
        spec.env.insert("OUTLAST_ARRAY_INDEX".into(), n.to_string());
        tasks.push(checked(format!("{base}-{n}"), spec).map_err(usage)?);
    }
    Ok(tasks)
}

/// Replaces `token` by an array task's number. If it is `{}`, `{{}}` stands for a literal `{}`.
fn put_index(text: &str, token: &str, n: u64) -> String {
    let n = n.to_string();
    match token {
        "{}" => {
            let literal = text.split("{{}}").map(|part| part.replace("{}", &n));
            literal.collect::<Vec<_>>().join("{}")
        }
        token => text.replace(token, &n),
    }
}

/// Replaces `token` in the arguments of a script by an array task's number; a text that consists of
/// nothing else becomes a number.
fn fill(args: &mut serde_json::Value, token: &str, n: u64) {
    use serde_json::Value as V;
    match args {
        V::String(text) if text == token => *args = n.into(),
        V::String(text) => *text = put_index(text, token, n),
        V::Array(all) => all.iter_mut().for_each(|v| fill(v, token, n)),
        V::Object(all) => all.values_mut().for_each(|v| fill(v, token, n)),
        _ => {}
    }
}

/// Reports whether a line of a file is a task as JSON, which a shell group, `{ make; } > log`, is not.
fn is_json(line: &str) -> bool {
    let rest = line.strip_prefix('{').map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with(['"', '}']))
}

/// The trace context in this process's environment. Malformed values are ignored, as the
/// recommendation requires.
fn trace() -> (String, String) {
    let parent = std::env::var(TRACEPARENT).ok().and_then(|text| TraceParent::parse(&text));
    let Some(parent) = parent else { return Default::default() };
    let state = std::env::var(TRACESTATE).ok().filter(|text| is_tracestate(text));
    (parent.to_string(), state.unwrap_or_default())
}

fn from_file(
    file: &Path,
    base: &str,
    template: impl Fn(Run) -> TaskSpec,
) -> anyhow::Result<Vec<NewTask>> {
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_end(&mut bytes).map(drop),
        _ => std::fs::read(file).map(|all| bytes = all),
    };
    read.map_err(|e| Usage(format!("{}: {e}", file.display())))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let n = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        Usage(format!("{}:{n}: is not UTF-8", file.display()))
    })?;
    let mut tasks = Vec::new();
    for (n, line) in text.lines().enumerate().map(|(n, l)| (n + 1, l.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |e: &dyn std::fmt::Display| Usage(format!("{}:{n}: {e}", file.display()));
        let mut id = format!("{base}-{n}");
        let spec = if is_json(line) {
            let mut fields: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).map_err(|e| wrong(&e))?;
            if let Some(own) = fields.remove("id") {
                id = own.as_str().ok_or_else(|| wrong(&"id must be a string"))?.to_owned();
            }
            let json = serde_json::to_vec(&fields)?;
            let mut spec = TaskSpec::from_json(&json).map_err(|e| wrong(&e))?;
            if spec.traceparent.is_empty() {
                (spec.traceparent, spec.tracestate) = trace();
            }
            spec
        } else {
            template(Run::Shell(line.to_owned()))
        };
        spec.check().map_err(|e| wrong(&e))?;
        outlast_wire::spec::check_task_id(&id).map_err(|e| wrong(&e))?;
        tasks.push(NewTask { id, spec });
    }
    if tasks.is_empty() {
        return Err(Usage(format!("{}: contains no task", file.display())).into());
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_takes_the_place_of_its_token() {
        assert_eq!(put_index("seed {} of {}", "{}", 7), "seed 7 of 7");
        assert_eq!(put_index("awk '{{}}' {}", "{}", 7), "awk '{}' 7");
        assert_eq!(put_index("{{}}{}{{}}", "{}", 7), "{}7{}");
        assert_eq!(put_index("find -exec rm {} ; @i", "@i", 7), "find -exec rm {} ; 7");
    }

    #[test]
    fn a_line_of_a_file_is_json_or_a_shell_line() {
        for json in [r#"{"shell": "true"}"#, r#"{ "shell": "true" }"#, "{}"] {
            assert!(is_json(json), "{json}");
        }
        for shell in ["{ make; make test; } > log", "{a,b}", "echo {}"] {
            assert!(!is_json(shell), "{shell}");
        }
    }
}
