//! The start of a worker whose tasks run as another user: that user gets to the folders of tasks and to
//! the socket, and to nothing else of the worker's.

use super::config::AgentConfig;
use super::start_error::StartError;
use super::state_folder::{is_ours, is_state_folder};
use crate::exec::{WORK, make_root};
use crate::local::{HostError, Rights, make_way};
use outlast_spawn::User;
use outlast_store::folder::{PRIVATE, close_folder, is_passable, share_folder};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of checks by a process of the user's, which may be held up.
const TRIES: u32 = 3;

/// Makes the state folder: closed, or passable if tasks run as another user. Then what is in it is closed:
/// former versions left some of it open.
pub(super) fn open_folder(config: &AgentConfig) -> Result<(), StartError> {
    let folder = &config.state_dir;
    let failed = |e| StartError::Folder(folder.clone(), e);
    let Some(run_as) = &config.run_as else {
        // Tasks that another worker may run here as another user need their way.
        return if is_passable(folder) { Ok(()) } else { close_folder_of(folder) };
    };
    for path in [folder, &run_as.program] {
        if let Some(place) = theirs(path, &run_as.user) {
            let (user, place, path) = (&run_as.user.name, place.display(), path.display());
            let why =
                format!("that user could put something else in the place of {path}, at {place}");
            return Err(StartError::RunAs(user.clone(), why));
        }
    }
    // What this process makes from here on is private by its mask.
    outlast_spawn::private_files();
    let used = is_state_folder(folder);
    let which = |name: &str, _: &Metadata| used && is_ours(name);
    share_folder(folder, is_state_folder, which).map_err(failed)
}

/// Closes the state folder to all other users.
pub(super) fn close_folder_of(state_dir: &Path) -> Result<(), StartError> {
    close_folder(state_dir, PRIVATE, is_state_folder)
        .map_err(|e| StartError::Folder(state_dir.to_owned(), e))
}

/// The place on a way, as it is named or as it is, where the user can change what is there, by the
/// permission bits.
fn theirs(path: &Path, user: &User) -> Option<PathBuf> {
    let named = std::path::absolute(path).ok()?;
    let there = named.ancestors().find(|at| at.exists())?;
    let ways = [named.clone(), there.canonicalize().ok()?];
    ways.iter().flat_map(|way| way.ancestors()).find_map(|at| {
        let meta = std::fs::symlink_metadata(at).ok()?;
        // What lies in a sticky folder is its owner's to replace.
        let writable = meta.is_dir() && meta.mode() & 0o1000 == 0 && user.may(&meta, 2);
        (meta.uid() == user.uid || writable).then(|| at.to_owned())
    })
}

/// Makes the folders that tasks need, and checks whether the user gets to them.
pub(super) fn check(rights: &Arc<Rights>, root: &Path, socket: &Path) -> Result<(), StartError> {
    let user = rights.user();
    let failed = |why: String| StartError::RunAs(user.name.clone(), why);
    make_root(root, Some(user)).map_err(|e| StartError::Folder(root.to_owned(), e))?;
    let mut folders = vec![root.join(WORK)];
    if let Some(folder) = socket.parent() {
        make_way(folder, true).map_err(StartError::Local)?;
        folders.push(PathBuf::from(folder));
    }
    // As they are named, and as they are: links may lead there.
    let real = folders.iter().map(|folder| folder.canonicalize()).collect::<io::Result<Vec<_>>>();
    let named = folders.iter().map(std::path::absolute).collect::<io::Result<Vec<_>>>();
    let folders = real.and_then(|real| Ok([named?, real].concat()));
    let folders = folders.map_err(|e| failed(e.to_string()))?;
    let (mut tries, mut checked) = (1, rights.check(folders.clone()));
    while tries < TRIES && matches!(checked, Err(HostError::Unavailable(_))) {
        (tries, checked) = (tries + 1, rights.check(folders.clone()));
    }
    if let Err(HostError::Unavailable(why)) = &checked {
        // A task that still runs may have stopped it: that must not keep the worker from starting.
        tracing::warn!(
            "whether user {} gets to the folders of tasks is not known: {why}",
            user.name
        );
        return Ok(());
    }
    checked.map_err(|why| {
        failed(format!(
            "{why}. They need a way to their folders, so give the worker a --state-dir that every user \
             can go through to and only root can change, such as /var/lib/outlast/worker"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_place_that_the_user_can_change_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let me = outlast_spawn::effective_uid();
        let user = |uid| User {
            name: "u".into(),
            uid,
            gid: uid,
            groups: vec![uid],
            home: "/".into(),
            shell: "/bin/sh".into(),
        };
        let (owner, other) = (user(me), user(me ^ 0x7000_0000));
        fs::create_dir_all(at("a/b")).unwrap();
        symlink("a", at("link")).unwrap();
        assert_eq!(theirs(&at("a/b/new/deep"), &other), None);
        assert_eq!(theirs(&at("a/b/new"), &owner), Some(at("a/b")));
        fs::set_permissions(at("a"), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(theirs(&at("a/b/new"), &other), Some(at("a")));
        // By the link, too.
        let real = at("a").canonicalize().unwrap();
        assert_eq!(theirs(&at("link/b"), &other), Some(real));
        fs::set_permissions(at("a"), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(theirs(&at("a/b/new"), &other), None);
    }
}
