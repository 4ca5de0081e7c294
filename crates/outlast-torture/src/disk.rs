//! A small disk of its own for one worker's state, and filling it. Needs root on Linux.

use rustix::fs::Mode;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const FILLER: &str = "filler";

/// A mounted tmpfs; unmounted with its owner.
#[derive(Debug)]
pub(crate) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts a disk of this size in MiB.
    pub fn mount(at: &Path, size: u32) -> io::Result<Disk> {
        std::fs::create_dir_all(at)?;
        mount(at, size)?;
        rustix::fs::chmod(at, Mode::from_raw_mode(0o700))?;
        Ok(Disk { at: at.to_owned() })
    }

    /// Takes all the room that is left; how many bytes that were.
    pub fn fill(&self) -> u64 {
        let Ok(mut file) = File::options().create(true).append(true).open(self.filler()) else {
            return 0;
        };
        let (mut part, mut all) = (1 << 20, 0);
        let zeros = vec![0; part];
        while part > 0 {
            match file.write(&zeros[..part]) {
                Ok(n) if n > 0 => all += n as u64,
                _ => part /= 2,
            }
        }
        all
    }
    pub fn clear(&self) {
        let _ = std::fs::remove_file(self.filler());
    }
    /// For whoever wants to know later why it was full.
    pub fn copy_to(&self, folder: &Path) {
        let _ = Command::new("cp").arg("-a").arg(&self.at).arg(folder).status();
    }
    fn filler(&self) -> PathBuf {
        self.at.join(FILLER)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open on it was killed a moment ago.
        for _ in 0..100 {
            match unmount(&self.at) {
                Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(20)),
                _ => return,
            }
        }
        eprintln!("{} could not be unmounted", self.at.display());
    }
}

#[cfg(target_os = "linux")]
fn mount(at: &Path, size: u32) -> io::Result<()> {
    use rustix::mount::MountFlags;
    let data = std::ffi::CString::new(format!("size={size}m")).map_err(io::Error::other)?;
    rustix::mount::mount("none", at, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn unmount(at: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(at, rustix::mount::UnmountFlags::empty())
}

#[cfg(not(target_os = "linux"))]
fn mount(_: &Path, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn unmount(_: &Path) -> Result<(), Errno> {
    Ok(())
}
