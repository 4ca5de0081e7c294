//! The `outlast` command: one module per subcommand. This file has the command line and its dispatch.

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
mod context;
mod coordinator;
mod demo;
mod doctor;
mod drain;
mod draw;
mod exit;
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

use crate::context::{Common, Context, Origins};
use crate::exit::code_of;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

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

/// Parses the command line; true if it names a coordinator itself.
fn parse(words: &[OsString]) -> Result<(Cli, bool), clap::Error> {
    let matches = Cli::command().try_get_matches_from(words)?;
    let url_flag = matches.value_source("coordinator") == Some(ValueSource::CommandLine);
    let cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut Cli::command()))?;
    Ok((cli, url_flag))
}

/// The kind of process that a command is.
fn process_of(command: &Command) -> secrets::Process {
    match command {
        Command::Coordinator(_) | Command::Worker(_) => secrets::Process::Server,
        Command::Keeper(_) => secrets::Process::Keeper,
        Command::Keys(_) | Command::Backup(_) | Command::Restore(_) => secrets::Process::Writer,
        _ => secrets::Process::Other,
    }
}

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
            if let Some(variable) = config::variable_at_fault(&error, &Cli::command(), &words) {
                eprintln!("outlast: this value is that of the environment variable {variable}");
            }
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    secrets::harden(process_of(&cli.command), cli.common.api_key.as_deref());
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
        Command::Config { what } => settings::run(context, &Cli::command(), what),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
