//! `outlast chaos`.

use crate::context::Context;
use crate::exit::Usage;
use crate::output;
use outlast_chaos::{Command, Faults, Proxy, Schedule};
use tokio::io::{AsyncBufReadExt, BufReader};

/// TCP proxy that injects faults.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  outlast chaos --upstream 127.0.0.1:7117            # then type: cut, heal, delay=200ms, …
  outlast chaos --upstream hub:7117 --faults delay=50ms~20ms,bandwidth=64kB
  outlast chaos --upstream hub:7117 --schedule '10s cut; 20s heal'
  outlast chaos --upstream hub:7117 --schedule 'random cut for 1s..10s every 20s..60s seed 7'

Point workers at --listen instead of the coordinator. Type help for the faults.")]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:7118", value_name = "ADDRESS")]
    listen: String,
    /// Address to forward to
    #[arg(long, default_value = "127.0.0.1:7117", value_name = "ADDRESS", value_parser = host_port)]
    upstream: String,
    /// Faults that are active from the start
    #[arg(long, value_name = "FAULTS")]
    faults: Option<Faults>,
    /// Schedule of faults
    #[arg(long, value_name = "RULES")]
    schedule: Option<Schedule>,
}

/// Checks that the text has the form HOST:PORT.
fn host_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(text.into()),
        _ => Err(format!("{text:?} must be HOST:PORT, as in 127.0.0.1:7117")),
    }
}

pub(crate) async fn run(context: &Context, args: Args) -> anyhow::Result<u8> {
    let proxy = Proxy::bind(&args.listen, &args.upstream).await;
    let proxy = proxy.map_err(|e| Usage(format!("cannot listen on {}: {e}", args.listen)))?;
    let handle = proxy.handle();
    if let Some(faults) = args.faults {
        handle.set(faults);
    }
    eprintln!("{} → {}, faults: {}", proxy.local_addr(), args.upstream, handle.faults());
    if let Some(schedule) = args.schedule {
        let handle = handle.clone();
        tokio::spawn(async move {
            handle.run(&schedule, |e| eprintln!("{:>8.1?}  {}", e.at, e.faults)).await;
        });
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut typing = true;
    loop {
        let line = tokio::select! {
            line = lines.next_line(), if typing => line?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(line) = line else {
            // Runs in the background: the schedule continues.
            typing = false;
            continue;
        };
        if line.trim().is_empty() {
            continue;
        }
        match line.parse::<Command>() {
            Ok(Command::Set(faults)) => {
                eprintln!("faults: {faults}");
                handle.set(faults);
            }
            Ok(Command::Reset) => handle.cut(),
            Ok(Command::Stats) if context.json() => output::json(&handle.stats())?,
            Ok(Command::Stats) => eprintln!("{:#?}", handle.stats()),
            Ok(Command::Help) => eprintln!("{}", Command::HELP),
            Ok(Command::Quit) => break,
            Err(error) => eprintln!("{error}"),
        }
    }
    if context.json() {
        output::json(&handle.stats())?;
    }
    proxy.shutdown().await;
    Ok(0)
}
