//! The start of a worker whose tasks run as another user: that user gets to the folders of tasks and to
//! the socket, and to nothing else of the worker's.

use super::{StartError, room};
use crate::exec::{WORK, make_root};
use crate::local::{Rights, make_way};
use outlast_store::folder::share_folder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the state folder passable. What is in it is closed: former versions left some of it open.
pub(super) fn open_way(state_dir: &Path) -> io::Result<()> {
    // What this process makes from here on is private by its mask.
    outlast_spawn::private_files();
    share_folder(state_dir, room::is_state_folder, |name, _| room::is_ours(name))
}

/// Makes the folders that tasks need, and looks whether the user gets to them.
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
    rights.check(folders).map_err(|why| {
        failed(format!(
            "{why}. They need a way to their folders, so give the worker a --state-dir that every user \
             can go through to and only root can change, such as /var/lib/outlast/worker"
        ))
    })
}
