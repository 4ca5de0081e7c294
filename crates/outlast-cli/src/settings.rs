//! `outlast config`: the settings of each program, and where their values come from.

use crate::alerts::{self, HIDDEN};
use crate::config::{self, ALL_SECTIONS, File, Origin, SECTIONS, is_number, settings};
use crate::context::Context;
use crate::exit::Usage;
use crate::output;
use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};
use std::ffi::OsString;

#[derive(clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings in effect: of the configuration file, the environment, and defaults
    #[command(after_help = "Examples:
  outlast config show                              # all settings, as a configuration file
  outlast config show worker --origin              # with the source of each value
  outlast config show worker -- --slots 4          # as `outlast worker --slots 4` has them
  outlast --json config show coordinator --origin  # for programs")]
    Show(ShowArgs),
}

#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// Print one section only
    #[arg(value_parser = ALL_SECTIONS, value_name = "SECTION")]
    section: Option<String>,
    /// Print the source of each value: default, file, environment or flag
    #[arg(long)]
    origin: bool,
    /// Flags of the section's program
    #[arg(last = true, requires = "section", value_name = "FLAGS")]
    flags: Vec<String>,
}

/// A setting in effect.
struct Setting {
    key: String,
    /// Value, if one is set.
    value: Option<Value>,
    /// Behaviour without a value, as the help describes it.
    otherwise: String,
    origin: Origin,
    source: String,
}

pub(crate) fn run(
    context: &Context,
    cli: &clap::Command,
    what: ConfigCommand,
) -> anyhow::Result<u8> {
    let ConfigCommand::Show(args) = what;
    let wanted = |section: &&str| args.section.as_deref().is_none_or(|one| one == *section);
    let mut document = Map::new();
    let mut lines = Vec::new();
    for section in SECTIONS.into_iter().filter(wanted) {
        let settings = section_of(context, cli, section, &args.flags)?;
        document.insert(section.into(), in_json(&settings, args.origin));
        lines.push(format!("[{section}]"));
        lines.extend(settings.iter().map(|setting| setting.line(args.origin)));
        lines.push(String::new());
    }
    if wanted(&"alerts") {
        if !args.flags.is_empty() {
            return Err(Usage("settings of alerts have no flags".into()).into());
        }
        let mut section = Map::new();
        for (rule, settings) in of_alerts(&context.config)? {
            lines.push(rule.map_or("[alerts]".into(), |rule| format!("[alerts.{rule}]")));
            lines.extend(settings.iter().map(|setting| setting.line(args.origin)));
            lines.push(String::new());
            let settings = in_json(&settings, args.origin);
            match (rule, settings) {
                (Some(rule), settings) => drop(section.insert(rule.into(), settings)),
                (None, Value::Object(settings)) => section.extend(settings),
                (None, _) => {}
            }
        }
        document.insert("alerts".into(), section.into());
    }
    if context.json() {
        output::json(&document)?;
    } else {
        output::text(lines.join("\n").trim_end())?;
    }
    Ok(0)
}

/// The settings of a section that its program would use with these flags.
fn section_of(
    context: &Context,
    cli: &clap::Command,
    section: &str,
    flags: &[String],
) -> Result<Vec<Setting>, Usage> {
    let file = &context.config;
    let mut layered = file.apply(section, cli.clone());
    // Those of all commands are this command's, too.
    let words: Vec<OsString> = match section {
        "client" => std::env::args_os().collect(),
        _ => ["outlast", section]
            .into_iter()
            .chain(flags.iter().map(String::as_str))
            .map(Into::into)
            .collect(),
    };
    let matches = layered.try_get_matches_from_mut(words).map_err(|e| Usage(e.to_string()))?;
    let of_program = match section {
        "client" => &matches,
        _ => matches.subcommand_matches(section).unwrap_or(&matches),
    };
    // Of the command line without the file's values, which has its flags in order.
    let all = config::program(cli, section).into_iter().flat_map(settings);
    let setting = |(key, arg): (String, &Arg)| {
        let mut origin = file.origin(section, &key, arg, of_program);
        let mut value = value(file, section, &key, arg, of_program);
        // The variable with the key has been removed from the environment.
        if key == "api_key" && origin < Origin::Environment && context.common.api_key.is_some() {
            (origin, value) = (Origin::Environment, Some(HIDDEN.into()));
        }
        Setting { value, otherwise: otherwise(arg), source: source(file, arg, origin), key, origin }
    };
    Ok(all.map(setting).collect())
}

/// Settings of a rule of alerts; without a rule, of all alerts.
type RuleSettings = (Option<&'static str>, Vec<Setting>);

/// The settings of alerts by rule; those without a rule come first.
fn of_alerts(file: &File) -> Result<Vec<RuleSettings>, Usage> {
    let setting = |(key, value, is_set): (&str, Option<toml::Value>, bool)| {
        let origin = if is_set { Origin::File } else { Origin::Default };
        let source = match origin {
            Origin::File => format!("file {}", file.path.display()),
            _ => "default".into(),
        };
        let value = value.and_then(|value| serde_json::to_value(value).ok());
        Setting { key: key.into(), value, otherwise: "none".into(), origin, source }
    };
    let sections = alerts::shown(file.section("alerts")).map_err(Usage)?;
    let shown =
        |part: alerts::Section| (part.rule, part.settings.into_iter().map(setting).collect());
    Ok(sections.into_iter().map(shown).collect())
}

fn value(file: &File, section: &str, key: &str, arg: &Arg, matches: &ArgMatches) -> Option<Value> {
    let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    let texts: Vec<_> = raw.map(|text| text.to_string_lossy().into_owned()).collect();
    if key == "labels" || key == "capabilities" {
        let mut table: Map<String, Value> = Map::new();
        for (key, value) in file.table(section, key).into_iter().flatten() {
            table.insert(key.clone(), serde_json::to_value(value).unwrap_or_default());
        }
        let pairs = texts.iter().filter_map(|text| text.split_once('='));
        table.extend(pairs.map(|(key, value)| (key.to_owned(), value.into())));
        return (!table.is_empty()).then_some(Value::Object(table));
    }
    let text = texts.join(&arg.get_value_delimiter().unwrap_or(',').to_string());
    if texts.is_empty() {
        None
    } else if arg.is_hide_env_values_set() {
        Some(HIDDEN.into())
    } else if is_number(arg) {
        serde_json::from_str(&text).ok().or(Some(text.into()))
    } else {
        Some(text.into())
    }
}

/// The text of `[default: …]` in a flag's help.
fn otherwise(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let text = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    text.map_or("none", |(text, _)| text).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn source(file: &File, arg: &Arg, origin: Origin) -> String {
    match origin {
        Origin::Default => "default".into(),
        Origin::File => format!("file {}", file.path.display()),
        Origin::Environment => {
            format!("environment {}", arg.get_env().unwrap_or_default().to_string_lossy())
        }
        Origin::Flag => format!("flag --{}", arg.get_long().unwrap_or_default()),
    }
}

impl Setting {
    /// A line of a configuration file; of a setting without a value, a comment.
    fn line(&self, origin: bool) -> String {
        let Setting { key, source, .. } = self;
        match &self.value {
            None => format!("# {key}: {}", self.otherwise),
            Some(value) => {
                let value = toml::Value::try_from(value)
                    .map_or_else(|_| value.to_string(), |v| v.to_string());
                if origin {
                    format!("{key} = {value}  # {source}")
                } else {
                    format!("{key} = {value}")
                }
            }
        }
    }
}

fn in_json(settings: &[Setting], with_origin: bool) -> Value {
    let one = |s: &Setting| match with_origin {
        true => {
            let word = format!("{:?}", s.origin).to_lowercase();
            json!({ "value": s.value, "origin": word, "source": s.source })
        }
        false => json!(s.value),
    };
    settings.iter().map(|setting| (setting.key.clone(), one(setting))).collect::<Map<_, _>>().into()
}
