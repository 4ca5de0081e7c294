//! Another user than this process's, whom tasks run as: what such a task gets, and nothing more.
//!
//! The folders on the way to a task's own can be passed and not listed, and its own belongs to the user.
//! All else below the root is for this process's user: logs, which the task has descriptors of, too.

use super::remove::remove_folder;
use outlast_spawn::User;
use outlast_store::folder::share_folder;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

/// Working directories, below the root.
pub(crate) const WORK: &str = "work";
/// Folders for results of browser tasks, below the root, where tasks run as another user.
const RESULTS: &str = "results";
/// A result's file in its folder.
const RESULT: &str = "result";

/// Opens the way to the tasks' own folders, and closes all else. May be repeated while tasks run.
pub(super) fn share(root: &Path, user: &User) -> io::Result<()> {
    for name in [WORK, RESULTS] {
        // Entries of tasks that did not run as this user are closed.
        share_folder(&root.join(name), |_| true, |_, meta| meta.uid() != user.uid)?;
    }
    let ours = |root: &Path| root.join(WORK).exists();
    share_folder(root, ours, |name, _| name != WORK && name != RESULTS)
}

/// Removes what tasks of a former executor left for it.
pub(super) fn clear(root: &Path) {
    for entry in fs::read_dir(root.join(RESULTS)).into_iter().flatten().flatten() {
        let _ = remove_folder(&entry.path());
    }
}

/// Makes a folder of the user's, which lies in one of ours.
pub(super) fn make_folder(folder: &Path, user: &User) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    lchown(folder, Some(user.uid), Some(user.gid)).inspect_err(|_| {
        let _ = fs::remove_dir(folder);
    })
}

/// Returns the file for an attempt's result, in a folder of its own.
pub(super) fn result_of(root: &Path, stem: &str) -> PathBuf {
    root.join(RESULTS).join(stem).join(RESULT)
}

/// Returns whether permission bits let the user go through a folder and all above it.
pub(super) fn may_enter(folder: &Path, user: &User) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    folder.ancestors().all(|at| fs::metadata(at).is_ok_and(|meta| user.may(&meta, 1)))
}

/// Returns whether permission bits let the user run a program.
pub(super) fn may_run(program: &Path, user: &User) -> bool {
    let Ok(program) = program.canonicalize() else { return false };
    fs::metadata(&program).is_ok_and(|meta| user.may(&meta, 1))
        && program.parent().is_some_and(|folder| may_enter(folder, user))
}

/// Variables that say whose session it is.
pub(super) fn of_session(user: &User) -> [(&'static str, &str); 4] {
    [("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name), ("SHELL", &user.shell)]
}

/// Returns whether a variable of this process's environment is about its own user's session.
pub(super) fn is_of_session(name: &OsStr) -> bool {
    const NAMES: [&str; 8] =
        ["HOME", "USER", "LOGNAME", "SHELL", "MAIL", "XAUTHORITY", "GNUPGHOME", "KRB5CCNAME"];
    const PREFIXES: [&str; 4] = ["XDG_", "DBUS_", "SSH_", "SUDO_"];
    let name = name.as_encoded_bytes();
    NAMES.iter().any(|n| n.as_bytes() == name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_way_is_open_and_the_rest_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let me = rustix::process::geteuid().as_raw();
        let user = |uid, groups: &[u32]| User {
            name: "u".into(),
            uid,
            gid: uid,
            groups: groups.to_vec(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        };
        let (owner, other) = (user(me, &[]), user(me ^ 0x7000_0000, &[]));
        let set = |name: &str, mode| {
            fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        };
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o777;
        fs::create_dir_all(root.join("work/old")).unwrap();
        fs::create_dir_all(root.join("logs")).unwrap();
        for name in ["work/old", "logs"] {
            set(name, 0o755);
        }
        share(root, &other).unwrap();
        assert_eq!(["work", "results"].map(mode), [0o711, 0o711]);
        assert_eq!(["work/old", "logs"].map(mode), [0o700, 0o700]);
        // The user's own stays as the user wants it.
        set("work/old", 0o755);
        share(root, &owner).unwrap();
        assert_eq!(mode("work/old"), 0o755);
        // By the bits of the owner, the group, or all others.
        let meta = |mode| {
            set("logs", mode);
            fs::metadata(root.join("logs")).unwrap()
        };
        let group = user(other.uid, &[meta(0o700).gid()]);
        let may = |mode, what| [&owner, &group, &other].map(|user| user.may(&meta(mode), what));
        assert_eq!(may(0o740, 4), [true, true, false]);
        assert_eq!(may(0o071, 1), [false, true, true]);
        assert_eq!(may(0o744, 5), [true, false, false]);
        assert!(is_of_session("HOME".as_ref()) && is_of_session("XDG_CACHE_HOME".as_ref()));
        assert!(!is_of_session("PATH".as_ref()) && !is_of_session("HOMES".as_ref()));
    }
}
