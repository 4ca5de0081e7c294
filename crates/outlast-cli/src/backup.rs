//! `outlast backup` and `outlast restore`.

use crate::context::Context;
use crate::exit::Usage;
use crate::{coordinator, output};
use outlast_coordinator::{BackupError, BackupInfo};
use std::path::PathBuf;

/// Copy the coordinator's data while it runs.
#[derive(clap::Args)]
#[command(
    after_help = "The copy is consistent, and holds the data of every checkpoint that is kept. On the same disk \
blobs are hard links: carry the folder to another disk. Those in a bucket are fetched.

Examples:
  outlast backup /mnt/backups/$(date +%F)
  outlast restore /mnt/backups/2026-11-24 --data-dir ~/.local/share/outlast/coordinator"
)]
pub(crate) struct BackupArgs {
    /// Folder to create
    #[arg(value_name = "FOLDER")]
    to: PathBuf,
    /// Folder of the coordinator's store [default: ~/.local/share/outlast/coordinator]
    #[arg(long, env = "OUTLAST_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

/// Make a new data folder from a backup.
#[derive(clap::Args)]
#[command(
    after_help = "Workers that belong to the coordinator come back to the restored one. Tasks that were not over \
are run by new attempts; results of older ones are still taken where a task allows late results.
The coordinator whose data was backed up must not run beside it."
)]
pub(crate) struct RestoreArgs {
    /// Backup to restore
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
    /// Folder to create
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Store checkpoints in this bucket, s3://BUCKET/PREFIX, which must have no packs of this store yet
    #[arg(long, env = "OUTLAST_BLOB_STORE", value_name = "URL")]
    blob_store: Option<String>,
    /// Skip the verification of all checkpoints
    #[arg(long)]
    quick: bool,
}

pub(crate) fn backup(context: &Context, args: BackupArgs) -> anyhow::Result<u8> {
    context.no_url("backup")?;
    let data_dir = coordinator::data_dir(context, args.data_dir)?;
    let info = outlast_coordinator::backup(&data_dir, &args.to).map_err(usage)?;
    report(context, &info, &format!("{} holds", args.to.display()))
}

pub(crate) fn restore(context: &Context, args: RestoreArgs) -> anyhow::Result<u8> {
    context.no_url("restore")?;
    let bucket = args.blob_store.as_deref();
    let restored = outlast_coordinator::restore(&args.from, &args.data_dir, !args.quick, bucket);
    let info = restored.map_err(usage)?;
    let made = format!("{} holds, as of {},", args.data_dir.display(), info.made_at);
    report(context, &info, &made)?;
    eprintln!("start it with `outlast coordinator --data-dir {}`", args.data_dir.display());
    Ok(0)
}

/// Turns an unusable folder into a usage error.
fn usage(error: BackupError) -> anyhow::Error {
    match error {
        BackupError::Taken(_) | BackupError::NoData(_) | BackupError::NoBackup(..) => {
            Usage(error.to_string()).into()
        }
        other => other.into(),
    }
}

fn report(context: &Context, info: &BackupInfo, holds: &str) -> anyhow::Result<u8> {
    if context.json() {
        output::json(info)?;
    } else {
        let (tasks, open, size) = (info.tasks, info.unfinished, output::bytes(info.blob_bytes));
        eprintln!("{holds} {tasks} tasks ({open} unfinished) and {} blobs ({size})", info.blobs);
    }
    Ok(0)
}
