//! The keeper's socket: where it is, and who may use it.

use super::folder;
use rustix::fs::{Mode, OFlags, open};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const NAME: &str = "socket";
/// Longest path in a socket's address on every system.
const LONGEST: usize = 100;

/// A path that is short enough for as long as this lives.
struct Address {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

/// The name of a folder may be longer than a socket's address: then the folder is named by a
/// descriptor.
fn address(root: &Path) -> io::Result<Address> {
    let folder = folder(root);
    let path = folder.join(NAME);
    if path.as_os_str().len() <= LONGEST {
        return Ok(Address { path, _folder: None });
    }
    if !cfg!(target_os = "linux") {
        let text = format!("the path is too long for a socket: {}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(&folder, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{NAME}", fd.as_raw_fd()).into();
    Ok(Address { path, _folder: Some(fd) })
}

/// Makes the keeper's folder, which only this user may enter.
pub(super) fn make_folder(root: &Path) -> io::Result<()> {
    let folder = folder(root);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// Connects to the keeper.
pub(super) fn dial(root: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(address(root)?.path)
}

/// Takes the place of a former keeper; only for who has the executor's lock.
pub(super) fn listen(root: &Path) -> io::Result<UnixListener> {
    remove(root);
    let address = address(root)?;
    let listener = UnixListener::bind(&address.path)?;
    fs::set_permissions(&address.path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// From here on nobody can connect.
pub(super) fn remove(root: &Path) {
    let _ = fs::remove_file(folder(root).join(NAME));
}
