//! Where the socket is, and taking that place over from a worker that is gone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path of a socket, in bytes: 104 on macOS, 108 on Linux, each with a final zero.
const MAX_PATH: usize = 100;
/// What a new socket is called until it takes the old one's place.
const NEW: &str = "api.new";

/// Where the worker of a state folder listens: the same after a restart, so that tasks that outlive
/// the worker find the next one. `state_dir/api.sock`, or, where that is too long for a socket, a
/// private folder below the system's temporary one.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    let state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let path = state_dir.join("api.sock");
    if path.as_os_str().len() <= MAX_PATH {
        return path;
    }
    let folder = private() + &tag(&state_dir);
    let path = std::env::temp_dir().join(&folder).join("api.sock");
    if path.as_os_str().len() <= MAX_PATH {
        return path;
    }
    Path::new("/tmp").join(folder).join("api.sock")
}

/// What private folders begin with.
fn private() -> String {
    format!("outlast-{}-", rustix::process::geteuid().as_raw())
}

/// 16 characters that stand for a path.
pub(super) fn tag(path: &Path) -> String {
    blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex()[..16].to_owned()
}

/// Listens at `path`, for this user only. A socket that nobody listens at is replaced, in one step.
///
/// # Errors
/// `AddrInUse` if somebody listens there; `PermissionDenied` if its folder is another user's.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    let name = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let folder = path.parent().ok_or_else(|| name(io::ErrorKind::InvalidInput.into()))?;
    make_folder(folder).map_err(name)?;
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
    fs::rename(&new, path).map_err(name)?;
    listener.set_nonblocking(true).map_err(name)?;
    Ok(listener)
}

/// Makes the folder, for this user only. One that is there must be this user's: in a folder that
/// all may write to, somebody else may have been first.
fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).recursive(true).create(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    if folder.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(private().as_bytes())) {
        let meta = fs::symlink_metadata(folder)?;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if !meta.is_dir() || !ours || meta.mode() & 0o077 != 0 {
            let text = format!("{} is not ours alone", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(())
}

/// Which file a path is, to tell our socket from a successor's.
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
        drop(bind(&path).unwrap());
        assert!(path.exists());
        let live = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        let open = dir.path().join(private() + "x");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        let error = bind(&open.join("api.sock")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
