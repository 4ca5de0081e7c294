//! The context of a subcommand: the options of all commands, the configuration, and the client.

use crate::config::{File, Origin};
use crate::exit::{Usage, code_of};
use crate::output;
use outlast::{Client, Error};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Connection to the coordinator, and output format.
#[derive(clap::Args, Clone)]
pub(crate) struct Common {
    /// Address of the coordinator [default: http://127.0.0.1:7117]
    #[arg(long, global = true, env = "OUTLAST_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// API key
    #[arg(
        long,
        global = true,
        env = "OUTLAST_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub api_key: Option<String>,
    /// File with the API key, which keeps it out of the arguments and the environment
    #[arg(long, global = true, env = "OUTLAST_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// PEM file of trusted certificate authorities
    #[arg(long, global = true, env = "OUTLAST_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Sources of settings, by key.
pub(crate) type Origins = BTreeMap<String, Origin>;

/// Options and configuration for a subcommand.
pub(crate) struct Context {
    pub common: Common,
    /// True if the flag `--coordinator` was given, and not only the variable.
    pub url_flag: bool,
    pub config: File,
    /// Sources of the program's settings, by key.
    pub origins: Origins,
    /// The API key from any source.
    pub key: Option<String>,
}

impl Context {
    /// The source of a setting.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }
    /// The address of the coordinator.
    pub fn url(&self) -> String {
        let url = self.common.coordinator.clone().or(self.config.text("client", "coordinator"));
        url.unwrap_or_else(|| "http://127.0.0.1:7117".into())
    }
    /// Refuses the flag `--coordinator` for a command that works on the coordinator's data folder. The
    /// variable and the configuration file may name one, since they apply to all commands.
    pub fn no_url(&self, command: &str) -> Result<(), Usage> {
        if !self.url_flag {
            return Ok(());
        }
        Err(Usage(format!(
            "`outlast {command}` works on the coordinator's data folder, not by an address: leave \
             out --coordinator and run it on the coordinator's machine, with --data-dir FOLDER"
        )))
    }
    /// The API key.
    pub fn api_key(&self) -> Option<String> {
        self.key.clone()
    }
    /// The file of certificate authorities.
    pub fn ca(&self) -> Option<PathBuf> {
        self.common.ca.clone().or(self.config.text("client", "ca").map(Into::into))
    }
    /// The settings of a client.
    pub fn builder(&self) -> outlast::Builder {
        Client::builder(&self.url()).api_key(self.api_key()).ca(self.ca())
    }
    /// Reports success, as a JSON document or as a note.
    pub fn done(&self, document: &impl serde::Serialize, note: &str) -> std::io::Result<()> {
        if self.json() {
            return output::json(document);
        }
        eprintln!("{note}");
        Ok(())
    }
    /// Returns a client that retries for this time while the coordinator is away, and prints outages.
    pub fn client(&self, patience: Duration) -> Result<Client, Error> {
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
    pub fn quiet_client(&self) -> Result<Client, Error> {
        self.builder().patience(Duration::ZERO).build()
    }
    /// Returns whether output is JSON.
    pub fn json(&self) -> bool {
        self.common.json
    }
}

/// Retry time of interactive commands.
pub(crate) const SHORT: Duration = Duration::from_secs(5);

/// Applies `act` to each name, regardless of errors; returns the highest exit code.
pub(crate) async fn each(
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
