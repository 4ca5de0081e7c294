//! The key that a coordinator creates at its first start, so that only its user can use it, without
//! handling keys.

use outlast_coordinator::Config;
use outlast_store::folder::{PRIVATE, close_folder};
use outlast_store::{Keys, Role};
use outlast_wire::local;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Name of the key.
const NAME: &str = "local";

/// Path of the file in the data folder that has the key.
fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("local.key")
}

/// Creates the key if the data folder is new, unless `no_keys`; returns it if it is valid. To be
/// called before the coordinator starts.
pub(crate) fn prepare(data_dir: &Path, no_keys: bool) -> anyhow::Result<Option<String>> {
    let (store, file) = (Config::store_file(data_dir), file(data_dir));
    if store.exists() {
        let Some(token) = local::read(&file) else { return Ok(None) };
        return Ok(Keys::open(&store)?.verify(&token)?.map(|_| token));
    }
    if no_keys {
        return Ok(None);
    }
    let named = |e: std::io::Error| anyhow::anyhow!("{}: {e}", data_dir.display());
    close_folder(data_dir, PRIVATE, |_| false).map_err(named)?;
    let key = Keys::open(&store)?.add_key(NAME, Role::Operate)?;
    local::write(&file, &key.token).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    Ok(Some(key.token))
}

/// Stores the key where this user's clients find it, and returns that path. Without a key, removes
/// the one that a previous coordinator left there.
pub(crate) fn leave(key: Option<&str>, addr: SocketAddr) -> Result<Option<PathBuf>, String> {
    match (key, local::leave(addr.port(), key)) {
        (Some(_), left) => left.map(Some).map_err(|e| e.to_string()),
        (None, _) => Ok(None),
    }
}

/// Logs who has access.
pub(crate) fn announce(
    data_dir: &Path,
    left: Result<Option<PathBuf>, String>,
    addr: SocketAddr,
    tls: bool,
) -> anyhow::Result<()> {
    let keys = !Keys::open(&Config::store_file(data_dir))?.list_keys()?.is_empty();
    match left {
        Ok(Some(left)) => tracing::info!(
            "this user's commands and workers on this machine have a key, {}; others need one of \
             their own (`outlast keys add`)",
            left.display()
        ),
        Err(why) => tracing::warn!(
            "clients do not find the key by themselves ({why}): give them \
             OUTLAST_API_KEY_FILE={}",
            file(data_dir).display()
        ),
        Ok(None) if !keys => tracing::warn!(
            "there are no API keys: every user of this machine can run commands as this one; \
             `outlast keys add NAME` makes keys needed"
        ),
        Ok(None) => {}
    }
    if keys && !tls && !addr.ip().is_loopback() {
        tracing::warn!(
            "keys and all else go unencrypted over the network: give a certificate with --tls-cert \
             and --tls-key"
        );
    }
    Ok(())
}
