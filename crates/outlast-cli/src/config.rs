//! The configuration file. Its sections `worker` and `coordinator` hold what the flags of these programs
//! take, under the flags' names: a setting is declared once, as a flag. The file's values become the
//! defaults of the flags, so that environment and flags come before them.

use crate::{alerts, args};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;
use toml::{Table, Value};

/// Sections whose keys are flags of the program of that name; `client` holds those of all commands.
pub(crate) const SECTIONS: [&str; 3] = ["client", "worker", "coordinator"];
/// All sections; the settings of `alerts` have no flags, and are declared in their module.
pub(crate) const ALL_SECTIONS: [&str; 4] = ["client", "worker", "coordinator", "alerts"];
/// Flags that may be repeated, each `KEY=VALUE`, and are tables in the file, to which flags add.
const TABLES: [&str; 2] = ["labels", "capabilities"];

/// Source of a setting's value; a later one comes before an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

/// Content of the configuration file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub path: PathBuf,
    table: Table,
}

impl File {
    /// Reads `$OUTLAST_CONFIG`, or `~/.config/outlast/config.toml` if it is there, and checks it against
    /// the flags.
    pub fn load(cli: &Command) -> Result<File, String> {
        let (path, wanted) = match std::env::var_os("OUTLAST_CONFIG") {
            Some(path) => (PathBuf::from(path), true),
            None => match folder("XDG_CONFIG_HOME", ".config") {
                Some(home) => (home.join("outlast/config.toml"), false),
                None => return Ok(File::default()),
            },
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let table = parse(&text, cli).map_err(|e| format!("{}: {e}", path.display()))?;
                Ok(File { path, table })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !wanted => Ok(File::default()),
            // A home that another user owns, as under sudo or in a container, is no mistake.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !wanted => {
                eprintln!("{}: {e}; going on without it", path.display());
                Ok(File::default())
            }
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    /// Makes the values of a section the defaults of its flags.
    pub fn apply(&self, section: &str, cli: Command) -> Command {
        let set = |mut command: Command| {
            for (key, value) in self.section(section).into_iter().flatten() {
                let arg = settings(&command).find(|(name, _)| name == key).map(|(_, arg)| arg);
                let (Some(arg), Some(text)) = (arg, scalar(value)) else { continue };
                let id = arg.get_id().clone();
                let values = match arg.get_value_delimiter() {
                    Some(at) => text.split(at).map(|part| part.trim().to_owned()).collect(),
                    None => vec![text],
                };
                let values: Vec<_> = values.into_iter().filter(|part| !part.is_empty()).collect();
                command = command.mut_arg(id, |arg| arg.default_values(values));
            }
            command
        };
        if section == "client" { set(cli) } else { cli.mut_subcommand(section, set) }
    }

    pub fn section(&self, section: &str) -> Option<&Table> {
        self.table.get(section)?.as_table()
    }
    fn get(&self, section: &str, key: &str) -> Option<&Value> {
        self.section(section)?.get(key)
    }
    /// A string, or a number as it is written.
    pub fn text(&self, section: &str, key: &str) -> Option<String> {
        scalar(self.get(section, key)?)
    }
    pub fn table(&self, section: &str, key: &str) -> Option<&Table> {
        self.get(section, key)?.as_table()
    }

    /// Source of the value that a setting has after [`File::apply`].
    pub fn origin(&self, section: &str, key: &str, arg: &Arg, matches: &ArgMatches) -> Origin {
        match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ if self.get(section, key).is_some() => Origin::File,
            _ => Origin::Default,
        }
    }
}

/// The program that has the settings of a section; `client` holds flags of all commands.
pub(crate) fn program<'a>(cli: &'a Command, section: &str) -> Option<&'a Command> {
    if section == "client" { Some(cli) } else { cli.find_subcommand(section) }
}

/// The settings of a program: its own flags that take a value, by their keys in the file.
pub(crate) fn settings(command: &Command) -> impl Iterator<Item = (String, &Arg)> {
    let takes_value = |arg: &&Arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    command.get_arguments().filter(takes_value).filter_map(|arg| {
        let id = arg.get_id().as_str();
        let key = arg.get_long()?.replace('-', "_");
        let key = if TABLES.contains(&id) { id.to_owned() } else { key };
        Some((key, arg))
    })
}

/// A string, or a number as it is written.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(n) => Some(n.to_string()),
        _ => None,
    }
}

/// Reads the text of a file, and checks it against the flags.
fn parse(text: &str, cli: &Command) -> Result<Table, String> {
    let table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    for (section, content) in &table {
        if !ALL_SECTIONS.contains(&section.as_str()) {
            return Err(args::unknown("section", section, &ALL_SECTIONS));
        }
        let Value::Table(content) = content else {
            return Err(format!("{section} must be a section: write [{section}]"));
        };
        if section == "alerts" {
            alerts::check(content)?;
            continue;
        }
        let settings: Vec<_> = program(cli, section).into_iter().flat_map(settings).collect();
        for (key, value) in content {
            let Some((_, arg)) = settings.iter().find(|(name, _)| name == key) else {
                let names: Vec<&str> = settings.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!("[{section}]: {}", args::unknown("key", key, &names)));
            };
            check(key, arg, value).map_err(|e| format!("[{section}] {key}: {e}"))?;
        }
    }
    Ok(table)
}

/// Checks a value by the parser of its flag.
fn check(key: &str, arg: &Arg, value: &Value) -> Result<(), String> {
    if TABLES.contains(&key) {
        return match value {
            Value::Table(_) => Ok(()),
            _ => Err("must be a table: { key = \"value\" }".into()),
        };
    }
    let text = scalar(value).filter(|_| value.is_str() || takes_numbers(arg));
    let text = text.ok_or("must be a string")?;
    if key == "coordinator" {
        return outlast_net::Url::parse(&text).map(drop);
    }
    let flag = format!("--{}={text}", arg.get_long().unwrap_or_default());
    let alone = Command::new("file").no_binary_name(true).disable_help_flag(true).arg(arg.clone());
    let Err(error) = alone.try_get_matches_from([flag]) else { return Ok(()) };
    let words: Vec<_> = arg.get_possible_values();
    let words: Vec<_> = words.iter().map(|word| word.get_name()).collect();
    match std::error::Error::source(&error) {
        _ if !words.is_empty() => Err(format!("{text:?} must be {}", words.join(" or "))),
        Some(why) => Err(why.to_string()),
        None => Err(error.to_string()),
    }
}

/// The environment variable that an invalid value comes from, if no flag does.
pub(crate) fn variable_at_fault(
    error: &clap::Error,
    cli: &Command,
    words: &[OsString],
) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (flag, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let long = flag.split([' ', '=']).next()?;
    let given = |word: &OsString| word.to_string_lossy().split('=').next() == Some(long);
    if words.iter().any(given) {
        return None;
    }
    let commands = cli.get_subcommands().chain([cli]);
    let args = commands.flat_map(Command::get_arguments);
    let same = |arg: &&Arg| arg.get_long().is_some_and(|name| long == format!("--{name}"));
    let mut variables = args.filter(same).filter_map(|arg| arg.get_env()?.to_str());
    let holds = |name: &&str| std::env::var(name).is_ok_and(|text| text.contains(value));
    variables.find(holds).map(ToOwned::to_owned)
}

/// Checks whether a flag's value may be written as a number in the file.
pub(crate) fn takes_numbers(arg: &Arg) -> bool {
    is_number(arg)
        || arg.get_value_parser().type_id() == TypeId::of::<args::Time>()
        || arg.get_value_parser().type_id() == TypeId::of::<args::Size>()
}

/// Checks whether a flag's value is a number.
pub(crate) fn is_number(arg: &Arg) -> bool {
    let kind = arg.get_value_parser().type_id();
    let numbers =
        [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>(), TypeId::of::<f64>()];
    numbers.iter().any(|number| kind == *number)
}

/// A folder of the user's: from the environment, or below home.
pub(crate) fn folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn what_is_unknown_names_the_nearest() {
        let cli = crate::Cli::command();
        let parse = |text: &str| super::parse(text, &cli);
        let error = |text: &str| parse(text).unwrap_err();
        assert!(error("[worker]\nsolts = 3").contains("did you mean `slots`"));
        assert!(error("[wroker]\nslots = 3").contains("did you mean `worker`"));
        assert!(error("[worker]\nslots = \"x\"").contains("whole number"));
        assert!(error("[worker]\nheartbeat_timeout = \"soon\"").contains("duration"));
        assert!(error("[coordinator]\nadmit_per_second = \"many\"").contains("whole number"));
        assert!(error("[coordinator]\nblob_grace = \"soon\"").contains("duration"));
        assert!(error("[client]\nzzzzzzzz = 1").contains("known are"));
        let kept = |text: &str| assert!(parse(text).is_ok(), "{text}");
        let refused = |text: &str, says: &str| {
            let error = error(text);
            assert!(error.contains(says), "{text}: {error}");
        };
        kept("[coordinator]\nmax_ended = 1000\nws_ping_interval = 0\nlisten = \"[::1]:0\"");
        refused("[coordinator]\nmax_ended = \"abc\"", "max_ended: must be a whole number");
        refused("[coordinator]\nmax_ended = -1", "whole number");
        refused("[coordinator]\nlisten = \"here\"", "ADDRESS:PORT");
        refused("[coordinator]\nheartbeat_interval = 0", "heartbeat_interval");
        refused("[coordinator]\npin = \"all,hart\"", "cannot be pinned");
        refused("[coordinator]\ntls_cert = 3", "must be a string");
        kept("[coordinator]\ntrusted_proxies = \"10.0.0.1, ::1\"");
        refused("[coordinator]\ntrusted_proxies = \"10.0.0\"", "is not an IP address");
        kept("[worker]\non_term = \"stop\"\nreconnect_jitter = 0\nws_ping_timeout = \"20s\"");
        refused("[worker]\non_term = \"bogus\"", "on_term: \"bogus\" must be drain or stop");
        refused("[worker]\nslots = 0", "from 1 to 1000000");
        refused("[worker]\nreconnect_jitter = 7.5", "from 0 to 1");
        refused("[worker]\nlabels = \"x\"", "must be a table");
        refused("[client]\ncoordinator = \"ftp://x\"", "http://host:7117");
        refused("alerts = 3", "alerts must be a section: write [alerts]");
    }

    /// Value and source of a setting of the worker.
    fn setting(file: &str, flags: &[&str], key: &str) -> (String, Origin) {
        let cli = crate::Cli::command();
        let file = File { path: PathBuf::new(), table: parse(file, &cli).unwrap() };
        let mut cli = file.apply("worker", cli);
        let args = [&["outlast", "worker"], flags].concat();
        let matches = cli.try_get_matches_from_mut(args).unwrap();
        let matches = matches.subcommand_matches("worker").unwrap();
        let worker = cli.find_subcommand("worker").unwrap();
        let (_, arg) = settings(worker).find(|(name, _)| name == key).unwrap();
        let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
        let values: Vec<_> = raw.map(|value| value.to_string_lossy()).collect();
        (values.join(","), file.origin("worker", key, arg, matches))
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let is = |value: &str, origin| (value.to_owned(), origin);
        let file = "[worker]\nslots = 3\nheartbeat_timeout = \"1m\"\nbrowser = \"b\"";
        assert_eq!(setting(file, &[], "slots"), is("3", Origin::File));
        assert_eq!(setting(file, &["--slots", "4"], "slots"), is("4", Origin::Flag));
        assert_eq!(setting(file, &[], "heartbeat_timeout"), is("1m", Origin::File));
        assert_eq!(setting(file, &[], "heartbeat_interval"), is("5s", Origin::Default));
        assert_eq!(setting(file, &[], "browser"), is("b", Origin::File));
        assert_eq!(setting("", &[], "slots"), is("", Origin::Default));
        let file = "[worker]\nreconnect_jitter = 0.5";
        assert_eq!(setting(file, &[], "reconnect_jitter"), is("0.5", Origin::File));
    }
}
