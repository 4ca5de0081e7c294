//! `outlast keys`.

use crate::context::Context;
use crate::exit::Usage;
use crate::{coordinator, output};
use outlast_coordinator::Config;
use outlast_store::{KeyLimits, Keys, Role};
use outlast_wire::Url;
use outlast_wire::local::Credential;
use outlast_wire::spec::check_task_id;
use std::path::PathBuf;

/// Manage the coordinator's API keys.
#[derive(clap::Args)]
#[command(
    after_help = "Works on the coordinator's data folder instead of connecting to it. A running coordinator
    notices changes within a second.
    Once a key exists, every request needs one."
)]
pub(crate) struct Args {
    /// The coordinator's data folder
    #[arg(long, global = true, env = "OUTLAST_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Create a key; it is shown once
    Add {
        /// Owner of the key; keys of the same name have the same owner
        name: String,
        /// worker: connect workers; submit: submit, watch and control tasks; operate: everything
        #[arg(long, value_parser = ["worker", "submit", "operate"], default_value = "submit")]
        role: String,
        /// Worker name that the key may connect, or a prefix such as 'gpu-*'; may be repeated
        /// [default: any]
        #[arg(long = "worker", value_name = "NAME")]
        workers: Vec<String>,
        /// See and change only tasks that were submitted with a key of this name
        #[arg(long)]
        own_tasks_only: bool,
    },
    /// List keys
    List,
    /// Print the key of this user's own coordinator, for curl or the dashboard
    Local,
    /// Revoke a key permanently
    Revoke {
        /// Key id, as listed
        id: String,
    },
}

/// Prints the key of this user's own coordinator at the address.
fn local(context: &Context) -> anyhow::Result<u8> {
    let url = Url::parse(&context.url()).map_err(Usage)?;
    let Some(Credential { token, .. }) = Credential::find(&url, None) else {
        eprintln!("outlast: no coordinator of this user on this machine has stored a key");
        return Ok(3);
    };
    match context.json() {
        true => output::json(&serde_json::json!({ "key": token }))?,
        false => output::line(&token)?,
    }
    Ok(0)
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    if matches!(args.what, What::Local) {
        return local(context);
    }
    context.no_url("keys")?;
    let dir = coordinator::data_dir(context, args.data_dir)?;
    let store = Config::store_file(&dir);
    if !store.is_file() {
        if !matches!(args.what, What::Add { .. }) {
            let what = "contains no coordinator's data; give its folder with --data-dir";
            return Err(Usage(format!("{}: {what}", dir.display())).into());
        }
        let made = std::fs::create_dir_all(&dir);
        made.map_err(|e| anyhow::anyhow!("{}: {e}", dir.display()))?;
        eprintln!("{}: created a new data folder", dir.display());
    }
    let keys = Keys::open(&store)?;
    match args.what {
        What::Add { name, role, workers, own_tasks_only } => {
            let limits = KeyLimits { workers, own_tasks: own_tasks_only };
            add(context, &keys, &name, &role, limits)?;
        }
        What::Local => {}
        What::List => list(context, &keys)?,
        What::Revoke { id } => {
            if !keys.revoke_key(&id)? {
                eprintln!("outlast: no valid key {id}; `outlast keys list` lists them");
                return Ok(3);
            }
            eprintln!("revoked {id}");
        }
    }
    Ok(0)
}

/// Creates a key, and prints it.
fn add(
    context: &Context,
    keys: &Keys,
    name: &str,
    role: &str,
    limits: KeyLimits,
) -> anyhow::Result<()> {
    let parsed = Role::parse(role).ok_or_else(|| Usage(format!("no role {role}")))?;
    if !limits.workers.is_empty() && parsed != Role::Worker {
        return Err(Usage("--worker needs --role worker".into()).into());
    }
    if limits.own_tasks && parsed != Role::Submit {
        return Err(Usage("--own-tasks-only needs --role submit".into()).into());
    }
    for pattern in &limits.workers {
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        if check_task_id(stem).is_err() && !(stem.is_empty() && pattern == "*") {
            let what = "is neither a worker name nor a prefix that ends in *";
            return Err(Usage(format!("--worker: {pattern:?} {what}")).into());
        }
    }
    let first = keys.list_keys()?.is_empty();
    let key = keys.add_limited_key(name, parsed, &limits)?;
    if context.json() {
        output::json(&serde_json::json!({ "id": key.id, "key": key.token, "role": role }))?;
    } else {
        output::line(&key.token)?;
        eprintln!("This is the only time it is shown. Use it as OUTLAST_API_KEY.");
        if first {
            eprintln!("From now on every request to this coordinator needs a key.");
        }
    }
    Ok(())
}

/// Prints all keys.
fn list(context: &Context, keys: &Keys) -> anyhow::Result<()> {
    let all = keys.list_keys()?;
    if context.json() {
        let view = |k: &outlast_store::KeyInfo| {
            serde_json::json!({ "id": k.id, "name": k.name, "role": k.role.as_str(),
                "created_at_ms": k.created_at, "revoked": k.revoked_at.is_some(),
                "workers": k.limits.workers, "own_tasks_only": k.limits.own_tasks })
        };
        output::json(&all.iter().map(view).collect::<Vec<_>>())?;
    } else {
        let row = |k: &outlast_store::KeyInfo| {
            let state = if k.revoked_at.is_some() { "revoked" } else { "valid" };
            let limits = match k.limits.own_tasks {
                true => "own tasks".to_owned(),
                false => k.limits.workers.join(" "),
            };
            let role = k.role.as_str().into();
            vec![k.id.clone(), k.name.clone(), role, state.into(), limits]
        };
        output::table(
            &["ID", "NAME", "ROLE", "STATE", "ONLY FOR"],
            &all.iter().map(row).collect::<Vec<_>>(),
        )?;
    }
    Ok(())
}
