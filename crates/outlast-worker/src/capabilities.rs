//! Capabilities of this machine, as the flat document that `requires` is matched against.
//!
//! Looks at files only, except for GPUs: their tools are asked, if there are any, and given a
//! short time, since a sick driver makes them hang.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time for which a GPU tool may take.
const TOOL_LIMIT: Duration = Duration::from_secs(2);
/// More output than this no GPU tool has.
const TOOL_OUTPUT: usize = 1 << 20;

/// The GPUs of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gpus {
    count: u64,
    /// The model of the first.
    model: String,
    /// The memory of the smallest: what a task can count on, whichever it gets.
    memory_bytes: Option<u64>,
}

/// Returns this machine's capabilities: `cores`, `memory_bytes`, `os`, `arch`, `hostname`, `kernel`, `gpus`,
/// `hardware` (`"cpu"` or `"cpu,gpu"`), and with GPUs `gpu` and `gpu_memory_bytes`.
///
/// Cores and memory are what this process may use, where its control group limits them.
pub fn detect() -> Map<String, Value> {
    detect_in(std::env::var_os("PATH").as_deref().unwrap_or_default())
}

fn detect_in(path: &OsStr) -> Map<String, Value> {
    let system = rustix::system::uname();
    let mut found = Map::new();
    let mut set = |name: &str, value: Value| {
        found.insert(name.to_owned(), value);
    };
    set("cores", std::thread::available_parallelism().map_or(1, |n| n.get()).into());
    if let Some(bytes) = memory() {
        set("memory_bytes", bytes.into());
    }
    set("os", std::env::consts::OS.into());
    set("arch", std::env::consts::ARCH.into());
    set("hostname", system.nodename().to_string_lossy().into());
    set("kernel", system.release().to_string_lossy().into());
    let gpus = nvidia(path).or_else(|| amd(path));
    set("gpus", gpus.as_ref().map_or(0, |gpus| gpus.count).into());
    set("hardware", if gpus.is_some() { "cpu,gpu" } else { "cpu" }.into());
    if let Some(gpus) = gpus {
        set("gpu", gpus.model.into());
        if let Some(bytes) = gpus.memory_bytes {
            set("gpu_memory_bytes", bytes.into());
        }
    }
    found
}

/// The machine's memory, or less if a control group around this process allows less.
fn memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // Every group up to the root may limit it. In a container the path may be one of outside.
        let path = Path::new(group.trim_start_matches('/'));
        path.ancestors()
            .filter_map(|group| {
                fs::read_to_string(Path::new(mount).join(group).join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            })
            .min()
    });
    Some(limits.fold(total, u64::min))
}

fn nvidia(path: &OsStr) -> Option<Gpus> {
    let tool = find("nvidia-smi", path)?;
    parse_nvidia(&ask(&tool, &["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])?)
}

/// Lines of `name, MiB`.
fn parse_nvidia(text: &str) -> Option<Gpus> {
    let lines: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(',')).collect();
    Some(Gpus {
        count: lines.len() as u64,
        model: lines.first()?.0.trim().to_owned(),
        memory_bytes: lines
            .iter()
            .filter_map(|(_, mib)| mib.trim().parse::<u64>().ok())
            .min()
            .map(|mib| mib << 20),
    })
}

fn amd(path: &OsStr) -> Option<Gpus> {
    let tool = find("rocm-smi", path)?;
    parse_amd(&ask(&tool, &["--showproductname", "--showmeminfo", "vram", "--json"])?)
}

/// `{"card0": {"Card Series": …, "VRAM Total Memory (B)": "…"}, …}`; names vary by version.
fn parse_amd(text: &str) -> Option<Gpus> {
    let cards: Map<String, Value> = serde_json::from_str(text.get(text.find('{')?..)?).ok()?;
    let cards: Vec<_> = cards
        .iter()
        .filter(|(name, _)| name.starts_with("card"))
        .filter_map(|(_, card)| card.as_object())
        .collect();
    let field = |card: &Map<String, Value>, wanted: &str| {
        let (_, value) = card.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(value.as_str()?.to_owned())
    };
    let first = cards.first()?;
    let names = ["Card Series", "Card Model", "Device Name"];
    Some(Gpus {
        count: cards.len() as u64,
        model: names.iter().find_map(|name| field(first, name)).unwrap_or_else(|| "AMD".to_owned()),
        memory_bytes: cards
            .iter()
            .filter_map(|card| field(card, "VRAM Total Memory (B)")?.parse().ok())
            .min(),
    })
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|tool| tool.is_file())
}

/// The output of a tool, if it ends well and in time.
fn ask(tool: &Path, arguments: &[&str]) -> Option<String> {
    let deadline = Instant::now() + TOOL_LIMIT;
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut output = Vec::new();
    let mut pipe = child.stdout.take()?;
    let mut part = [0; 4096];
    // Reads only when there is something: whoever holds the other end may keep silent for ever.
    let complete = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&limit)) {
            Ok(0) => break false,
            Ok(_) => match pipe.read(&mut part) {
                Ok(0) => break true,
                Ok(n) if output.len() + n <= TOOL_OUTPUT => output.extend_from_slice(&part[..n]),
                Ok(_) | Err(_) => break false,
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break false,
        }
    };
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return (complete && status.success()).then(|| String::from_utf8(output).ok())?;
        }
        if !complete || Instant::now() >= deadline {
            tracing::warn!(tool = %tool.display(), "gave no answer in time");
            let _ = child.kill();
            // It dies at once, unless it is stuck in the kernel: then it is left to its fate.
            let patience = Instant::now() + Duration::from_millis(100);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(1));
            }
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn tool(name: &str, script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let text = folder.path().join("text");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // A child that another test forks just then may hold what this process writes: a busy text
        // does not start.
        let copied = Command::new("cp").arg(&text).arg(&path).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn a_machine_without_gpu_tools() {
        let start = Instant::now();
        let found = detect_in(OsStr::new(""));
        assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
        assert!(found["cores"].as_u64().unwrap() >= 1);
        assert!(found["memory_bytes"].as_u64().unwrap() > 1 << 20);
        assert_eq!(found["os"], std::env::consts::OS);
        assert_eq!(found["gpus"], 0);
        assert_eq!(found["hardware"], "cpu");
        for name in ["arch", "hostname", "kernel"] {
            assert!(!found[name].as_str().unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn nvidia_gpus_are_counted_and_the_smallest_memory_counts() {
        let folder = tool("nvidia-smi", "echo 'NVIDIA A100, 81920'; echo 'NVIDIA A100, 40960'");
        let found = detect_in(folder.path().as_os_str());
        assert_eq!(found["gpus"], 2);
        assert_eq!(found["gpu"], "NVIDIA A100");
        assert_eq!(found["gpu_memory_bytes"], 40960_u64 << 20);
        assert_eq!(found["hardware"], "cpu,gpu");
    }

    #[test]
    fn amd_gpus() {
        let json = r#"{"card0": {"Card series": "MI300", "VRAM Total Memory (B)": "1000"}}"#;
        let folder = tool("rocm-smi", &format!("echo '{json}'"));
        let found = detect_in(folder.path().as_os_str());
        assert_eq!((&found["gpus"], &found["gpu"]), (&1.into(), &"MI300".into()));
        assert_eq!(found["gpu_memory_bytes"], 1000);
    }

    #[test]
    fn a_tool_that_hangs_or_fails_means_no_gpu() {
        let folder = tool("nvidia-smi", "exec sleep 60");
        let start = Instant::now();
        assert_eq!(detect_in(folder.path().as_os_str())["gpus"], 0);
        assert!(start.elapsed() < TOOL_LIMIT + Duration::from_secs(1));
        let folder = tool("nvidia-smi", "echo 'No devices were found'; exit 6");
        assert_eq!(detect_in(folder.path().as_os_str())["gpus"], 0);
    }
}
