//! `outlast browser`: runs a browser task, or a script locally.

mod host;

use crate::exit::Usage;
use crate::output;
use host::TaskHost;
use outlast::{OnContextLoss, Run, TaskSpec};
use outlast_browser::{Browser, End, Launch, Script, find, probe};
use outlast_worker::exec::Report;
use outlast_worker::local::Client;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
Workers use this command to run browser tasks. Outside of a task it runs a script in the same way,
but does not save checkpoints.

The script is JavaScript, evaluated as in a console. Its value is the result. If that is a function,
or if there is a function named main, it is called with this object, which is also `outlast`:
  task.args, task.id, task.attempt
  await task.restore()                   the newest checkpoint, or null
  await task.checkpoint(value, {name, meta})   any JSON value, an ArrayBuffer or a typed array
  await task.progress(0.5, \"half\", {loss: 0.1})
  await task.state({key: value})         merged; null deletes
  await task.artifact(\"out.json\", value)
  task.onCheckpoint(async () => value)   called when a checkpoint is requested

Exit codes:
  0    done; the result is on standard output, as JSON
  1    the script threw an exception, or its page could not be loaded
  2    wrong usage
  5    the worker is away
  70   the browser, or the page's process, crashed; 128 + N if signal N ended it
  71   a WebGL, WebGPU or WebNN context was lost
  72   the page ran out of memory
  127  no browser was found

Examples:
  outlast browser square.js --args '{\"n\": 12}'
  outlast browser --probe                # prints the browser's capabilities on this machine
  outlast submit --browser square.js --args '{\"n\": 12}' --wait";

/// Browser program and its flags.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Which {
    /// Browser program [default: chromium, or a variant of it, in PATH]
    #[arg(long = "browser", env = PROGRAM, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Additional flag of the browser, such as --browser-flag=--enable-features=Vulkan
    #[arg(long = "browser-flag", env = FLAGS, value_name = "FLAG", allow_hyphen_values = true, value_delimiter = '\n')]
    flags: Vec<String>,
}

/// Environment variable with the browser program.
pub(crate) const PROGRAM: &str = "OUTLAST_BROWSER";
/// Environment variable with flags, one per line.
pub(crate) const FLAGS: &str = "OUTLAST_BROWSER_FLAGS";

impl Which {
    fn launch(&self, folder: PathBuf) -> Result<Launch, outlast_browser::NotFound> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = find(self.program.as_deref(), &path)?;
        Ok(Launch { program, flags: self.flags.clone(), folder })
    }
    /// Returns the browser's capabilities on this machine, if it exists; cached per user.
    pub async fn probe(&self) -> Result<probe::Found, String> {
        let launch = self.launch(std::env::temp_dir()).map_err(|e| e.to_string())?;
        let cache = crate::config::folder("XDG_CACHE_HOME", ".cache");
        match cache {
            Some(cache) => probe::cached(&launch, &cache.join("outlast/browser.json")).await,
            None => probe::ask(&launch).await,
        }
    }
    /// Returns true if the browser was named explicitly.
    pub fn named(&self) -> bool {
        self.program.is_some()
    }
    /// Environment variables for the tasks of a worker.
    pub fn env(&self) -> Vec<(String, String)> {
        let program = self.program.as_ref().map(|p| {
            // Tasks run in other folders; a bare name is looked up in PATH.
            let bare = p.components().count() == 1;
            let path = if bare { Ok(p.clone()) } else { std::path::absolute(p) };
            (PROGRAM.to_owned(), path.unwrap_or_else(|_| p.clone()).display().to_string())
        });
        let flags = (!self.flags.is_empty()).then(|| (FLAGS.to_owned(), self.flags.join("\n")));
        program.into_iter().chain(flags).collect()
    }
}

/// Run a script in a browser, as a browser task does
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Script file, or - for standard input [default: the script of the calling task]
    #[arg(value_name = "SCRIPT")]
    script: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Print the browser's capabilities as JSON, and run nothing
    #[arg(long, conflicts_with = "script")]
    probe: bool,
    #[command(flatten)]
    which: Which,
}

/// Inputs of a script.
#[derive(clap::Args, Default)]
pub(crate) struct Given {
    /// Value of task.args in a browser script: JSON
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// Page in which a browser script runs: a URL, or an HTML file [default: an empty page]
    #[arg(long, value_name = "URL|FILE")]
    page: Option<String>,
    /// Reaction to a lost GPU context in a browser script: fail or note
    #[arg(long, value_parser = ["fail", "note"], default_value = "fail", value_name = "WHAT")]
    on_context_loss: String,
}

impl Given {
    /// Returns true if an option is set that needs a browser task.
    pub fn any(&self) -> bool {
        self.args.is_some() || self.page.is_some() || self.on_context_loss == "note"
    }

    /// Builds the browser task with the script in the file.
    pub fn browser(&self, file: &Path) -> Result<outlast::Browser, Usage> {
        let script = match file == Path::new("-") {
            true => std::io::read_to_string(std::io::stdin()),
            false => std::fs::read_to_string(file),
        };
        let script = script.map_err(|e| Usage(format!("{}: {e}", file.display())))?;
        let args = match &self.args {
            None => Value::Null,
            Some(text) => serde_json::from_str(text)
                .map_err(|e| Usage(format!("--args is not JSON such as {{\"n\": 12}}: {e}")))?,
        };
        let page = match self.page.as_deref() {
            None => String::new(),
            Some(url) if url.contains("://") || url.starts_with("about:") => url.to_owned(),
            Some(html) if html.starts_with("data:") || html.starts_with('<') => html.to_owned(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| Usage(format!("--page {file}: {e}; give a URL or an HTML file")))?,
        };
        let on_context_loss = match self.on_context_loss.as_str() {
            "note" => OnContextLoss::Note,
            _ => OnContextLoss::Fail,
        };
        Ok(outlast::Browser { script, args, page, on_context_loss })
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<u8> {
    if args.probe {
        let found = args.which.probe().await.map_err(|why| anyhow::anyhow!("no browser: {why}"))?;
        output::json(&found)?;
        return Ok(0);
    }
    let client = Client::from_env().ok();
    let (script, folder) = match (&args.script, &client) {
        (Some(file), _) => {
            let spec = TaskSpec::new(Run::Browser(args.given.browser(file)?));
            spec.check().map_err(|e| Usage(e.to_string()))?;
            (script(spec, "by-hand".into(), 1)?, std::env::temp_dir())
        }
        (None, Some(client)) => match client.info().await {
            Ok(info) => {
                let spec: TaskSpec = serde_json::from_value(info.spec)?;
                // In the task's own folder the profile is removed with the folder.
                let own = spec.cwd.is_none();
                let folder = if own { std::env::current_dir()? } else { std::env::temp_dir() };
                (script(spec, info.task, info.attempt)?, folder)
            }
            Err(error) => {
                eprintln!("outlast: {error}");
                return Ok(5);
            }
        },
        (None, None) => return Err(Usage("a script file is required; see --help".into()).into()),
    };
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let launch = match args.which.launch(folder) {
        Ok(launch) => launch,
        Err(why) => return finish(Verdict::new(127, format!("no browser: {why}"))),
    };
    let host = Arc::new(TaskHost::new(client, launch.folder.clone()));
    let went = async {
        match Browser::launch(&launch).await {
            Ok(mut browser) => {
                let end = outlast_browser::run(&mut browser, &script, host).await;
                if matches!(end, End::Crashed { .. }) {
                    for line in browser.last_words() {
                        eprintln!("browser: {line}");
                    }
                }
                browser.close().await;
                verdict(end)
            }
            Err(why) => Verdict::new(70, why.to_string()),
        }
    };
    // A process that has to end also ends the browser: dropping it kills it.
    let verdict = tokio::select! {
        verdict = went => verdict,
        _ = term.recv() => return Ok(128 + 15),
        _ = int.recv() => return Ok(130),
    };
    finish(verdict)
}

fn script(spec: TaskSpec, task: String, attempt: u64) -> anyhow::Result<Script> {
    let Run::Browser(browser) = spec.run else {
        let why = "this is not a browser task; submit one with `outlast submit --browser`";
        return Err(Usage(why.into()).into());
    };
    let bears_context_loss = browser.on_context_loss == OnContextLoss::Note;
    let (source, page, args) = (browser.script, browser.page, browser.args);
    Ok(Script { source, page, args, task, attempt, bears_context_loss })
}

/// Outcome: exit code, message, and report.
struct Verdict {
    code: u8,
    /// Last text of standard error.
    text: String,
    report: Report,
}

impl Verdict {
    fn new(code: u8, message: String) -> Verdict {
        let text = format!("outlast: {message}");
        let message = message.lines().next().unwrap_or_default().to_owned();
        Verdict { code, text, report: Report { message, value: None } }
    }
}

fn verdict(end: End) -> Verdict {
    match end {
        End::Done(value) => {
            let value = RawValue::from_string(value).ok();
            let report = Report { message: String::new(), value };
            Verdict { code: 0, text: String::new(), report }
        }
        End::Failed { message, stack } => {
            let mut verdict = Verdict::new(1, message);
            let details = json!({"message": verdict.report.message, "traceback": stack});
            // Unchanged, as developers expect a stack.
            verdict.text = stack;
            verdict.report.value = serde_json::value::to_raw_value(&details).ok();
            verdict
        }
        End::Crashed { message, signal } => {
            let code = signal.and_then(|n| u8::try_from(128 + n).ok()).unwrap_or(70);
            Verdict::new(code, message)
        }
        End::ContextLost(message) => Verdict::new(71, message),
        End::OutOfMemory(message) => Verdict::new(72, message),
    }
}

/// Writes the outcome to standard error, and to the result file or standard output.
fn finish(verdict: Verdict) -> anyhow::Result<u8> {
    if !verdict.text.is_empty() {
        eprintln!("{}", verdict.text);
    }
    match std::env::var_os("OUTLAST_RESULT_FILE") {
        Some(path) => verdict.report.leave(Path::new(&path))?,
        None if verdict.code == 0 => {
            output::exactly(verdict.report.value.as_ref().map_or("null", |v| v.get()))?;
        }
        None => {}
    }
    Ok(verdict.code)
}

/// Capabilities of a worker's browser, as matched by `requires`.
pub(crate) fn capabilities(found: &probe::Found, into: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| into.insert(name.into(), value);
    let major = found.version.split('.').next().and_then(|n| n.parse::<u64>().ok());
    set("browser", found.name.as_str().into());
    set("browser_version", major.map_or(found.version.as_str().into(), Value::from));
    let mut classes = vec!["browser"];
    if let Some(who) = found.webgl {
        set("webgl", json!(who));
        set("webgl_renderer", found.webgl_renderer.as_str().into());
    }
    if let Some(who) = found.webgpu {
        set("webgpu", json!(who));
        set("webgpu_adapter", found.webgpu_adapter.as_str().into());
        classes.push("webgpu");
    }
    if !found.webnn.is_empty() {
        set("webnn", json!(found.webnn));
        classes.push("webnn");
    }
    // `hardware` stays the machine's hardware without its browser.
    let hardware = into.get("hardware").and_then(Value::as_str).unwrap_or("cpu").to_owned();
    let all = hardware.split(',').map(str::trim).chain(classes).collect::<Vec<_>>();
    let all = json!(all);
    into.entry("hardware_class").or_insert(all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_browser::Acceleration;

    #[test]
    fn a_browser_makes_a_worker_of_its_classes() {
        let mut found = probe::Found {
            name: "chromium".into(),
            version: "156.0.8078.79".into(),
            webgl: Some(Acceleration::Hardware),
            webgl_renderer: "x".into(),
            webgpu: Some(Acceleration::Software),
            webgpu_adapter: "google swiftshader".into(),
            webnn: vec![],
        };
        let mut all = Map::from_iter([("hardware".to_owned(), json!("cpu,gpu"))]);
        capabilities(&found, &mut all);
        assert_eq!(all["browser_version"], 156);
        assert_eq!((&all["webgl"], &all["webgpu"]), (&json!("hardware"), &json!("software")));
        assert_eq!(all["hardware_class"], json!(["cpu", "gpu", "browser", "webgpu"]));
        assert!(!all.contains_key("webnn"));
        (found.webgpu, found.webgl) = (None, None);
        let mut all = Map::new();
        capabilities(&found, &mut all);
        assert_eq!(all["hardware_class"], json!(["cpu", "browser"]));
        assert!(!all.contains_key("webgpu"));
    }

    #[test]
    fn ends_are_told_apart_by_code_and_message() {
        let crash = |signal| End::Crashed { message: "browser crashed: x".into(), signal };
        for (end, code, message) in [
            (End::Done("1".into()), 0, ""),
            (crash(Some(9)), 137, "browser crashed: x"),
            (crash(None), 70, "browser crashed: x"),
            (End::ContextLost("WebGL context lost".into()), 71, "WebGL context lost"),
            (End::OutOfMemory("out of memory: x".into()), 72, "out of memory: x"),
            (End::Failed { message: "E: a".into(), stack: "E: a\n at b".into() }, 1, "E: a"),
        ] {
            let found = verdict(end);
            assert_eq!((found.code, found.report.message.as_str()), (code, message));
        }
    }
}
