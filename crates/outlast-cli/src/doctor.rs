//! `outlast doctor`: checks of a set-up, with advice.

use crate::context::Context;
use crate::output;
use outlast::api::{Info, Worker};
use outlast::{Client, Error};
use outlast_net::{DialError, Dialler, Url};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// Time limit of each check.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sizes of test requests in bytes: a checkpoint chunk with its head, and larger ones.
const SIZES: [usize; 4] = [(256 << 10) + 128, 1 << 20, 4 << 20, 16 << 20];
/// Time limit of each test request.
const UPLOAD: Duration = Duration::from_secs(20);
/// Difference of clocks in milliseconds from which on it is reported.
const SKEW: i64 = 2_000;

/// Number of faulty workers that are named.
const FAULTS: usize = 5;

/// Check the connection to the coordinator, the key, the clock, the disks and the workers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also check that this folder is writable
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Check {
    what: &'static str,
    ok: bool,
    detail: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    let (mut checks, mut printed) = (Vec::new(), Ok(()));
    let mut check = |what, result: Result<String, String>| {
        let ok = result.is_ok();
        let detail = result.unwrap_or_else(|e| e);
        if !context.json() && printed.is_ok() {
            printed = output::line(&format!("{} {what}: {detail}", if ok { "✓" } else { "✗" }));
        }
        checks.push(Check { what, ok, detail });
        ok
    };
    if let Some(url) = address(context, &mut check) {
        network(context, &url, &mut check).await;
    }
    if let Some(dir) = args.state_dir {
        check("folder", writable(&dir));
    }
    check("open files", open_files());
    printed?;
    let bad = checks.iter().filter(|c| !c.ok).count();
    if context.json() {
        output::json(&checks)?;
    } else if bad == 0 {
        output::line("All checks passed.")?;
    }
    Ok(u8::from(bad > 0))
}

fn address(
    context: &Context,
    check: &mut impl FnMut(&'static str, Result<String, String>) -> bool,
) -> Option<Url> {
    match Url::parse(&context.url()) {
        Ok(url) => {
            check("address", Ok(url.http()));
            Some(url)
        }
        Err(error) => {
            check("address", Err(error));
            None
        }
    }
}

async fn network(
    context: &Context,
    url: &Url,
    check: &mut impl FnMut(&'static str, Result<String, String>) -> bool,
) {
    let at = url.authority();
    let names = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    let found = names.map(|all| all.map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", "));
    let found = found.map_err(|e| format!("{}: {e}; check the name, and DNS", url.host));
    if !check("name", found) {
        return;
    }
    let connect = timeout(PATIENCE, tokio::net::TcpStream::connect((url.host.as_str(), url.port)));
    let reached = match connect.await {
        Ok(Ok(_)) => Ok(format!("{at} answers")),
        Ok(Err(e)) if url.tls && url.port == 443 => Err(format!(
            "{at}: {e}; an https address without a port means 443: write :7117 if the coordinator \
             listens there itself"
        )),
        Ok(Err(e)) => Err(format!("{at}: {e}; check that the coordinator runs and listens there")),
        Err(_) => Err(format!("{at} does not answer; a firewall may drop packets")),
    };
    if !check("connection", reached) {
        return;
    }
    let client = match context.quiet_client() {
        Ok(client) => client,
        Err(error) => {
            check("client", Err(error.to_string()));
            return;
        }
    };
    let before = wall();
    match client.info().await {
        Ok(info) => {
            let tls = if url.tls { ", TLS" } else { "" };
            let id = &info.coordinator_id;
            check("coordinator", Ok(format!("version {}{tls}, id {id}", info.version)));
            let (now, round) = (before.midpoint(wall()), wall() - before);
            check("clock", skew(&info.now, now, round));
            check("coordinator's clock", steady(&info));
        }
        Err(error) => {
            check("coordinator", Err(error.to_string()));
            return;
        }
    }
    let key = match client.counts().await {
        Ok(_) => Ok("tasks can be submitted".to_owned()),
        Err(Error::Problem(p)) if p.status == 403 => Ok("a worker's key".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let may_look = check("key", key);
    check("coordinator's store", store(&client).await);
    if may_look {
        match client.workers().await {
            Ok(list) => {
                check("workers", workers(&list.workers));
                for copy in list.workers.iter().filter_map(copy) {
                    check("copies", Err(copy));
                }
            }
            // A key of role worker may not list them.
            Err(Error::Problem(p)) if p.status == 403 => {}
            Err(error) => drop(check("workers", Err(error.to_string()))),
        }
    }
    check("worker link", link(context).await);
    check("large requests", bodies(&client).await);
}

/// Checks that the coordinator's store accepts writes.
async fn store(client: &Client) -> Result<String, String> {
    match timeout(PATIENCE, client.ready()).await {
        Ok(Ok(())) => Ok("is writable".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time; its disk may hang".into()),
    }
}

/// Lists workers that report a fault.
fn workers(all: &[Worker]) -> Result<String, String> {
    let ill: Vec<_> = all.iter().filter(|w| w.gone_at.is_none() && !w.unfit.is_empty()).collect();
    let there = all.iter().filter(|w| w.gone_at.is_none()).count();
    if ill.is_empty() {
        return Ok(format!("{there} of {} are connected, and none reports a fault", all.len()));
    }
    let says = ill.iter().take(FAULTS).map(|w| {
        let since = output::time(w.unfit_since.as_deref());
        format!("{} {} (since {since})", w.name, w.unfit)
    });
    let more = ill.len().saturating_sub(FAULTS);
    let more =
        if more > 0 { format!("; and {more} more: see `outlast workers`") } else { String::new() };
    Err(says.collect::<Vec<_>>().join("; ") + &more)
}

/// Describes a refused process with a copy of the worker's state folder.
fn copy(worker: &Worker) -> Option<String> {
    let copied = worker.copied.as_ref()?;
    let (name, times, at) = (&worker.name, copied.times, output::time(Some(&copied.at)));
    let place = if copied.host.is_empty() { "another place" } else { &copied.host };
    Some(format!(
        "a copy of the state folder of {name} is in use on {place}: refused {times} times, last at \
         {at}; delete the copy, or start it once with --new-identity"
    ))
}

/// Sends bodies of growing sizes, since proxies limit bodies, which checkpoints and batches need.
async fn bodies(client: &Client) -> Result<String, String> {
    let mib = |bytes: usize| match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        n => format!("{n} MiB"),
    };
    let mut passed = 0;
    for size in SIZES {
        let why = match timeout(UPLOAD, client.probe(size)).await {
            Ok(Ok(())) => {
                passed = size;
                continue;
            }
            // An older version: its answer shows that the body passed.
            Ok(Err(Error::Problem(p))) if p.status == 404 && p.word() == "no-route" => {
                return Ok("not checked: the coordinator has an older version".into());
            }
            Ok(Err(Error::Problem(p))) if p.status == 401 => {
                return Ok("not checked: no valid key".into());
            }
            Ok(Err(Error::Problem(p))) if p.status == 413 => {
                format!("a proxy in the path refuses one of {} (413)", mib(size))
            }
            Ok(Err(error)) => format!("one of {} did not pass ({error})", mib(size)),
            Err(_) => {
                let seconds = UPLOAD.as_secs();
                return Ok(format!("{} took more than {seconds} s: a slow link", mib(size)));
            }
        };
        let advice = "raise its limit: for nginx, client_max_body_size 32m";
        return match passed {
            0 => Err(format!("{why}; checkpoints and larger tasks cannot pass: {advice}")),
            _ => Ok(format!(
                "{} pass, {why}; checkpoints and batches go in smaller parts, which takes longer: \
                 {advice}",
                mib(passed)
            )),
        };
    }
    Ok(format!("{} pass", mib(passed)))
}

/// Opens a worker's link and sends nothing, which detects proxies that do not forward WebSockets.
async fn link(context: &Context) -> Result<String, String> {
    let (key, ca) = (context.api_key(), context.ca());
    let dialler = Dialler::new(&context.url(), "doctor", key.as_deref(), ca.as_deref());
    let dialler = dialler.map_err(|e| e.to_string())?;
    match timeout(PATIENCE, dialler.dial()).await {
        Ok(Ok((sender, _))) => {
            sender.close().await;
            Ok("WebSockets pass".into())
        }
        Ok(Err(DialError::Refused { status: 403, .. })) => {
            Ok("not checked: this key does not have role worker".into())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer; a proxy in the path may not forward WebSockets".into()),
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Checks the coordinator's clock: an error if it has jumped.
fn steady(info: &Info) -> Result<String, String> {
    match info.clock_jumped {
        false => Ok("is steady".into()),
        true => {
            Err("the clock of its machine has jumped within the last hour; it goes on evenly by \
                     its own, and removes nothing by age until an hour after the last jump: see \
                     what sets that clock (NTP, the hypervisor)"
                .into())
        }
    }
}

fn skew(theirs: &str, ours: i64, round: i64) -> Result<String, String> {
    let theirs = output::unix_ms(theirs).ok_or("the coordinator's clock cannot be read")?;
    let off = ours - theirs;
    let text = format!("{off} ms off the coordinator's (within {round} ms)");
    if off.abs() > SKEW + round {
        return Err(format!("{text}; times in histories will be wrong: set the clock (NTP)"));
    }
    Ok(text)
}

fn writable(dir: &std::path::Path) -> Result<String, String> {
    let name = |e: std::io::Error| format!("{}: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(name)?;
    let probe = dir.join(".outlast-doctor");
    let written =
        std::fs::write(&probe, [0; 65536]).and_then(|()| std::fs::File::open(&probe)?.sync_all());
    let removed = std::fs::remove_file(&probe);
    written.and(removed).map_err(name)?;
    Ok(format!("{} is writable", dir.display()))
}

fn open_files() -> Result<String, String> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let soft = line.and_then(|l| l.split_whitespace().nth(3)).and_then(|n| n.parse::<u64>().ok());
    match soft {
        Some(n) if n < 1024 => Err(format!("{n}; a coordinator needs one per worker: ulimit -n")),
        Some(n) => Ok(n.to_string()),
        None => Ok("unknown on this system".into()),
    }
}
