//! The `outlast` command: one module per subcommand. This file has the shared parts.

/// Prints to standard error, with control characters of foreign texts escaped. A closed or full
/// standard error does not end the process.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = std::format!($($text)*);
        let _ = std::writeln!(std::io::stderr(), "{}", outlast_wire::text::visible_lines(&text));
    }};
}

mod alerts;
mod args;
mod backup;
mod browser;
mod chaos;
mod config;
mod coordinator;
mod demo;
mod doctor;
mod drain;
mod draw;
mod fetch;
mod firstkey;
mod intask;
mod journal;
mod keeper;
mod keys;
mod link;
mod logs;
mod output;
mod process;
mod recovery;
mod run_as;
mod secrets;
mod settings;
mod show;
mod steer;
mod submit;
mod tasks;
mod watch;
mod worker;
mod workers;

use crate::config::Origin;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use outlast::{Client, Error};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    a task failed, or another error
  2    wrong usage or configuration
  3    there is no such task or worker
  4    the API key is missing, wrong or does not allow this
  5    the coordinator cannot be reached
  6    conflict: the id is taken, or the task's state does not allow this
  130  interrupted
  128+N  the task was killed by signal N (submit --wait, task result)

Configuration: ~/.config/outlast/config.toml (or $OUTLAST_CONFIG); environment variables override it, flags override both.

Examples:
  outlast coordinator                       # on one machine
  outlast worker --coordinator http://HOST:7117 --slots 4
  outlast submit --wait -- ./train.sh --epochs 10
  outlast submit --array 1-100 -- ./bench {}
  outlast tasks --state failed";

/// Runs long tasks on a fleet of workers, over networks that fail.
#[derive(Parser)]
#[command(name = "outlast", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Connection to the coordinator, and output format.
#[derive(clap::Args, Clone)]
struct Common {
    /// Address of the coordinator [default: http://127.0.0.1:7117]
    #[arg(long, global = true, env = "OUTLAST_COORDINATOR", value_name = "URL")]
    coordinator: Option<String>,
    /// API key
    #[arg(
        long,
        global = true,
        env = "OUTLAST_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<String>,
    /// File with the API key, which keeps it out of the arguments and the environment
    #[arg(long, global = true, env = "OUTLAST_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<std::path::PathBuf>,
    /// PEM file of trusted certificate authorities
    #[arg(long, global = true, env = "OUTLAST_CA", value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the coordinator
    Coordinator(coordinator::Args),
    /// Run a worker
    Worker(worker::Args),
    /// Submit tasks
    Submit(Box<submit::Args>),
    /// List tasks
    Tasks(tasks::ListArgs),
    /// Inspect or control a task; inside a task, report to its worker
    Task {
        #[command(subcommand)]
        what: TaskCommand,
    },
    /// List, inspect and control workers
    Workers {
        #[command(subcommand)]
        what: Option<workers::WorkersCommand>,
    },
    /// Inspect and override failure recovery
    Recovery {
        #[command(subcommand)]
        what: recovery::RecoveryCommand,
    },
    /// Live view of workers and tasks
    Watch(watch::Args),
    /// Manage the coordinator's API keys (on its machine)
    Keys(keys::Args),
    /// Copy the coordinator's data while it runs (on its machine)
    Backup(backup::BackupArgs),
    /// Create a data folder from a backup
    Restore(backup::RestoreArgs),
    /// Proxy that injects network faults
    Chaos(chaos::Args),
    /// Demonstrate outages that lose no work, in about 90 seconds
    Demo(demo::Args),
    /// Check a set-up
    Doctor(doctor::Args),
    /// Print the settings in effect, and where they come from
    Config {
        #[command(subcommand)]
        what: settings::ConfigCommand,
    },
    /// Run a script in a browser, as a browser task does
    Browser(browser::Args),
    #[command(hide = true)]
    Keeper(keeper::Args),
    /// Read or write files for a worker, as the user of its tasks. `outlast worker` starts
    /// this itself
    #[command(hide = true)]
    Files,
    /// Print shell completions
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
}

/// `outlast task …`: requests of users to the coordinator, and of tasks to their worker.
#[derive(Subcommand)]
enum TaskCommand {
    #[command(flatten)]
    Outside(tasks::TaskCommand),
    #[command(flatten)]
    Steer(steer::SteerCommand),
    #[command(flatten)]
    Fetch(fetch::FetchCommand),
    #[command(flatten)]
    Inside(intask::InTask),
}

/// Options and configuration for a subcommand.
struct Context {
    common: Common,
    /// True if the flag `--coordinator` was given, and not only the variable.
    url_flag: bool,
    config: config::File,
    /// Sources of the program's settings, by key.
    origins: Origins,
    /// The API key from any source.
    key: Option<String>,
}

impl Context {
    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }
    fn url(&self) -> String {
        let url = self.common.coordinator.clone().or(self.config.text("client", "coordinator"));
        url.unwrap_or_else(|| "http://127.0.0.1:7117".into())
    }
    /// Refuses the flag `--coordinator` for a command that works on the coordinator's data folder. The
    /// variable and the configuration file may name one, since they apply to all commands.
    fn no_url(&self, command: &str) -> Result<(), Usage> {
        if !self.url_flag {
            return Ok(());
        }
        Err(Usage(format!(
            "`outlast {command}` works on the coordinator's data folder, not by an address: leave \
             out --coordinator and run it on the coordinator's machine, with --data-dir FOLDER"
        )))
    }
    fn api_key(&self) -> Option<String> {
        self.key.clone()
    }
    fn ca(&self) -> Option<std::path::PathBuf> {
        self.common.ca.clone().or(self.config.text("client", "ca").map(Into::into))
    }
    fn builder(&self) -> outlast::Builder {
        Client::builder(&self.url()).api_key(self.api_key()).ca(self.ca())
    }
    /// Reports success, as a JSON document or as a note.
    fn done(&self, document: &impl serde::Serialize, note: &str) -> std::io::Result<()> {
        if self.json() {
            return output::json(document);
        }
        eprintln!("{note}");
        Ok(())
    }
    /// Returns a client that retries for this time while the coordinator is away, and prints outages.
    fn client(&self, patience: Duration) -> Result<Client, Error> {
        let client = self.builder().patience(patience);
        // Every pending request reports the same outage.
        let away = AtomicBool::new(false);
        let client = client.on_outage(move |why| match why {
            Some(why) if !away.swap(true, Relaxed) => {
                eprintln!("outlast: {why}; retrying");
            }
            None if away.swap(false, Relaxed) => eprintln!("outlast: the coordinator is back"),
            _ => {}
        });
        client.build()
    }
    /// Returns a client that does not retry.
    fn quiet_client(&self) -> Result<Client, Error> {
        self.builder().patience(Duration::ZERO).build()
    }
    fn json(&self) -> bool {
        self.common.json
    }
}

/// Retry time of interactive commands.
const SHORT: Duration = Duration::from_secs(5);

/// Parses the command line; true if it names a coordinator itself.
fn parse(words: &[OsString]) -> Result<(Cli, bool), clap::Error> {
    let matches = Cli::command().try_get_matches_from(words)?;
    let url_flag = matches.value_source("coordinator") == Some(ValueSource::CommandLine);
    let cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut Cli::command()))?;
    Ok((cli, url_flag))
}

/// Sources of settings, by key.
type Origins = BTreeMap<String, Origin>;

/// Parses the command line of a program again, with the file's values as defaults.
fn layered(
    words: &[OsString],
    command: Command,
    file: &config::File,
) -> Result<(Command, Origins), clap::Error> {
    let section = match &command {
        Command::Coordinator(_) => "coordinator",
        Command::Worker(_) => "worker",
        _ => return Ok((command, Origins::new())),
    };
    let mut cli = file.apply(section, Cli::command());
    let matches = cli.try_get_matches_from_mut(words)?;
    let command = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut cli))?.command;
    let (Some(program), Some(matches)) =
        (cli.find_subcommand(section), matches.subcommand_matches(section))
    else {
        return Ok((command, Origins::new()));
    };
    let origin = |(key, arg): (String, &clap::Arg)| {
        let origin = file.origin(section, &key, arg, matches);
        (key, origin)
    };
    Ok((command, config::settings(program).map(origin).collect()))
}

fn main() -> ExitCode {
    // Before the key in it is concealed.
    let words: Vec<OsString> = std::env::args_os().collect();
    let (cli, url_flag) = match parse(&words) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    secrets::harden(&cli.command, cli.common.api_key.as_deref());
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTLAST_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .fmt_fields(journal::fields())
        // A closed terminal does not end the process.
        .log_internal_errors(false)
        .init();
    let alone = match &cli.command {
        // A task that reports to its worker does not depend on the configuration file.
        Command::Task { what: TaskCommand::Inside(what) } => what.outside().is_none(),
        // Nor do processes that get all settings from their worker.
        Command::Keeper(_) | Command::Browser(_) | Command::Files => true,
        _ => false,
    };
    let config =
        if alone { Ok(config::File::default()) } else { config::File::load(&Cli::command()) };
    let config = config.and_then(|config| {
        let key = match alone {
            true => None,
            false => secrets::api_key(&cli.common, &config)?,
        };
        let layered = layered(&words, cli.command, &config).map_err(|e| e.to_string())?;
        Ok((config, key, layered))
    });
    let (config, key, (command, origins)) = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("outlast: {error}");
            return ExitCode::from(2);
        }
    };
    // A worker's shell needs only one thread in addition to its own.
    let mut runtime = match command {
        Command::Coordinator(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("outlast: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let context = Context { common: cli.common, url_flag, config, origins, key };
    let code = runtime.block_on(run(&context, command)).unwrap_or_else(|error| {
        eprintln!("outlast: {error:#}");
        code_of(&error)
    });
    // A thread that still reads standard input must not keep the process alive.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run(context: &Context, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Coordinator(args) => coordinator::run(context, args).await,
        Command::Worker(args) => worker::run(context, args).await,
        Command::Submit(args) => submit::run(context, *args).await,
        Command::Tasks(args) => tasks::list(context, args).await,
        Command::Task { what: TaskCommand::Outside(what) } => tasks::run(context, what).await,
        Command::Task { what: TaskCommand::Steer(what) } => steer::run(context, what).await,
        Command::Task { what: TaskCommand::Fetch(what) } => fetch::run(context, what).await,
        Command::Task { what: TaskCommand::Inside(what) } => match what.outside() {
            Some(what) => fetch::look(context, what).await,
            None => intask::run(context.json(), what).await,
        },
        Command::Workers { what } => workers::run(context, what).await,
        Command::Recovery { what } => recovery::run(context, what).await,
        Command::Watch(args) => watch::run(context, args).await,
        Command::Keys(args) => keys::run(context, args),
        Command::Backup(args) => backup::backup(context, args),
        Command::Restore(args) => backup::restore(context, args),
        Command::Chaos(args) => chaos::run(context, args).await,
        Command::Demo(args) => demo::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Config { what } => {
            settings::run(&context.config, context.json(), &Cli::command(), what)
        }
        Command::Browser(args) => browser::run(args).await,
        Command::Keeper(args) => keeper::run(args),
        Command::Files => {
            outlast_worker::local::files()?;
            Ok(0)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "outlast", &mut text);
            output::raw(&text)?;
            Ok(0)
        }
    }
}

/// Applies `act` to each name, regardless of errors; returns the highest exit code.
async fn each(
    names: &[String],
    act: impl AsyncFn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let mut worst = 0;
    for (n, name) in names.iter().enumerate() {
        let Err(error) = act(name).await else { continue };
        worst = worst.max(code_of(&error));
        let text = format!("{error:#}");
        let letter = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
        if text.split(|c| !letter(c)).any(|word| word == name) {
            eprintln!("outlast: {text}");
        } else {
            eprintln!("outlast: {name}: {text}");
        }
        let left = names.len() - n - 1;
        if left > 0 && matches!(error.downcast_ref(), Some(Error::Unreachable { .. })) {
            eprintln!("outlast: {left} more were not tried");
            break;
        }
    }
    Ok(worst)
}

/// Wrong usage of the command.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Usage {}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Usage>().is_some() {
        return 2;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Unreachable { .. } | Error::Strange { .. }) => 5,
        Some(Error::Setup(_)) => 2,
        Some(Error::Problem(problem)) => match problem.status {
            400 | 413 => 2,
            404 => 3,
            401 | 403 | 407 => 4,
            409 => 6,
            // The coordinator was reached; the worker is away.
            503 if problem.word() == "no-logs" => 1,
            429 | 502..=504 | 507 => 5,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
