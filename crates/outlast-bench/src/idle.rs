//! Idle workers: they send a hello and an inventory, and nothing more.

use crate::procs::Lab;
use futures_util::StreamExt;
use outlast_net::Dialler;
use outlast_wire::v2::{self, body::Kind};
use std::time::Duration;
use tokio::time::sleep;

/// The link of an idle worker.
pub(crate) type Link = (outlast_net::Sender, outlast_net::Receiver);

/// Connects idle workers.
pub(crate) async fn dial(lab: &Lab, from: usize, count: usize) -> anyhow::Result<Vec<Link>> {
    let one = |n: usize| async move {
        let name = format!("idle-{n}");
        let dialler = Dialler::new(&format!("http://{}", lab.addr), &name, None, None)?;
        // Reconnects are rate-limited: each comes back at its turn.
        for connection in 1..100 {
            let (sender, receiver) = dialler.dial().await?;
            match hello(sender, receiver, n, connection).await {
                Ok((Kind::Welcome(_), link)) => return anyhow::Ok(link),
                Ok((Kind::Refused(r), _)) if r.retry => {
                    sleep(Duration::from_millis(r.retry_after_ms.into())).await;
                }
                Ok((other, _)) => anyhow::bail!("{other:?}"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        anyhow::bail!("{n} is never accepted")
    };
    let mut dialled = futures_util::stream::iter(from..from + count).map(one).buffer_unordered(64);
    let mut links = Vec::new();
    while let Some(link) = dialled.next().await {
        links.push(link?);
    }
    Ok(links)
}

/// Sends a hello on a fresh link. Returns the first answer.
pub(crate) async fn hello(
    mut sender: outlast_net::Sender,
    mut receiver: outlast_net::Receiver,
    n: usize,
    connection: u64,
) -> anyhow::Result<(Kind, Link)> {
    let hello = v2::Hello {
        protocol: outlast_wire::PROTOCOL,
        worker_id: format!("idle-{n}"),
        store_id: format!("idle-store-{n}"),
        incarnation: 1,
        connection,
        slots: 1,
        capabilities_json: r#"{"cores":8,"os":"linux","arch":"x86_64"}"#.into(),
        version: "bench".into(),
        ..Default::default()
    };
    let send = |e: String| anyhow::anyhow!(e);
    sender.feed(Kind::Hello(hello)).await.map_err(send)?;
    let inventory = v2::Inventory { holdings: Vec::new(), last: true };
    sender.feed(Kind::Inventory(inventory)).await.map_err(send)?;
    sender.flush().await.map_err(send)?;
    let answer = receiver.next().await.map_err(send)?;
    Ok((answer, (sender, receiver)))
}
