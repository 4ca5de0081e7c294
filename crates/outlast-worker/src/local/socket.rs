//! Path of the socket, and its takeover from a worker that has ended.

use outlast_spawn::User;
use outlast_store::folder::{PASSABLE, PRIVATE};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path of a socket, in bytes: 104 on macOS, 108 on Linux, each with a final zero.
const MAX_PATH: usize = 100;
/// Name of a new socket until it replaces the old one.
const NEW: &str = "api.new";

/// Place where the worker of a state folder listens: the same after a restart, so that tasks that outlive
/// the worker find the next one. `state_dir/api.sock`, or, where that is too long for a socket, a
/// private folder in a place that nobody tidies up: `/run` for root, else `XDG_RUNTIME_DIR`, else the
/// system's folder of temporary files. Which one it is, is noted in the state folder.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    let state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let path = state_dir.join("api.sock");
    if path.as_os_str().len() <= MAX_PATH {
        return path;
    }
    let note = state_dir.join("api.path");
    if let Ok(noted) = fs::read_to_string(&note)
        && Path::new(&noted).ancestors().nth(2).is_some_and(Path::is_dir)
    {
        return noted.into();
    }
    let path = elsewhere(&(private() + &tag(&state_dir)));
    if let Some(text) = path.to_str() {
        let _ = fs::write(note, text);
    }
    path
}

/// A socket in a folder of this name, in the best place that there is.
fn elsewhere(folder: &str) -> PathBuf {
    let me = rustix::process::geteuid();
    let run = me.is_root().then(|| PathBuf::from("/run"));
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = own.filter(|own| {
        let meta = fs::metadata(own);
        own.is_absolute() && meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == me.as_raw())
    });
    let writable = |place: &PathBuf| {
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        place.is_dir() && rustix::fs::access(place, access).is_ok()
    };
    let places = [run, own, Some(std::env::temp_dir())];
    let paths = places.into_iter().flatten().filter(writable).map(|place| place.join(folder));
    let mut paths = paths.map(|folder| folder.join("api.sock"));
    let path = paths.find(|path| path.as_os_str().len() <= MAX_PATH);
    path.unwrap_or_else(|| Path::new("/tmp").join(folder).join("api.sock"))
}

/// Returns the prefix of private folders.
fn private() -> String {
    format!("outlast-{}-", rustix::process::geteuid().as_raw())
}

/// 16 characters that stand for a path.
pub(super) fn tag(path: &Path) -> String {
    blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex()[..16].to_owned()
}

/// Listens at `path`, for this user only, or for another one. A socket that nobody listens at is
/// replaced, in one step.
///
/// # Errors
/// `AddrInUse` if somebody listens there; `PermissionDenied` if its folder is another user's.
pub(super) fn bind(path: &Path, owner: Option<&User>) -> io::Result<UnixListener> {
    let name = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let folder = path.parent().ok_or_else(|| name(io::ErrorKind::InvalidInput.into()))?;
    make_way(folder, owner.is_some()).map_err(name)?;
    if UnixStream::connect(path).is_ok() {
        let text = format!("another worker listens at {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    let new = folder.join(NEW);
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(name(e)),
        _ => {}
    }
    // Nobody can connect before the permissions are set: nobody knows this name.
    let listener = UnixListener::bind(&new).map_err(name)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(name)?;
    if let Some(owner) = owner {
        lchown(&new, Some(owner.uid), Some(owner.gid)).map_err(name)?;
    }
    fs::rename(&new, path).map_err(name)?;
    listener.set_nonblocking(true).map_err(name)?;
    Ok(listener)
}

/// Makes the folder of a socket, for this user only; `passable`: others may go through. One that is there
/// must be this user's: in a folder that all may write to, somebody else may have been first.
///
/// # Errors
/// What the file system says; `PermissionDenied` if it is another user's.
pub fn make_way(folder: &Path, passable: bool) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).recursive(true).create(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    if folder.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(private().as_bytes())) {
        let meta = fs::symlink_metadata(folder)?;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if !meta.is_dir() || !ours || meta.mode() & 0o077 & !0o011 != 0 {
            let text = format!("{} is not ours alone", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let mode = if passable { PASSABLE } else { PRIVATE };
        if meta.mode() & 0o777 != mode {
            fs::set_permissions(folder, Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Returns the identity of a file, to distinguish this worker's socket from a successor's.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_move_to_a_private_folder_and_stay_there() {
        let short = Path::new("/var/lib/outlast");
        assert_eq!(socket_path(short), short.join("api.sock"));
        let long = PathBuf::from(format!("/var/{}", "x".repeat(90)));
        let path = socket_path(&long);
        assert!(path.as_os_str().len() <= MAX_PATH, "{path:?}");
        assert_eq!(path, socket_path(&long));
        assert_ne!(path, socket_path(&long.join("y")));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(bind(&path, None).unwrap());
        assert!(path.exists());
        let live = bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(bind(&path, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        // For another user the way is open; without one it is closed again.
        let way = dir.path().join(private() + "way");
        for (passable, mode) in [(true, 0o711), (false, 0o700)] {
            make_way(&way, passable).unwrap();
            assert_eq!(fs::metadata(&way).unwrap().mode() & 0o777, mode);
        }
        let open = dir.path().join(private() + "x");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        let error = bind(&open.join("api.sock"), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
