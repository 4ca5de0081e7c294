//! The task that has the link: it dials, sends and receives.

use super::driver::Driver;
use super::logs::LogReaders;
use super::now;
use super::outbound::ToLink;
use outlast_model::message::ToWorker;
use outlast_net::{DialError, Dialler, Receiver, Sender, pulse};
use outlast_wire::v2::body::Kind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

type Inbox = mpsc::UnboundedReceiver<ToLink>;

pub(super) async fn run(dialler: Arc<Dialler>, mut inbox: Inbox, driver: Arc<Driver>) {
    while let Some(message) = inbox.recv().await {
        match message {
            ToLink::Dial => {}
            ToLink::Probe => {
                let (dialler, driver) = (dialler.clone(), driver.clone());
                tokio::spawn(async move {
                    let reached = dialler.probe().await;
                    driver.feed(|core| core.on_probed(now(), reached));
                });
                continue;
            }
            // Of a link that has ended.
            ToLink::Frame(_) | ToLink::Packing(_) | ToLink::Close => continue,
            ToLink::End => return,
        }
        let dialled = tokio::select! {
            dialled = dialler.dial() => dialled,
            ended = closed(&mut inbox) => if ended { return } else { continue },
        };
        match dialled {
            Ok((mut sender, receiver)) => {
                sender.packing = driver.lock().packing();
                driver.feed(|core| core.on_connected(now()));
                if serve(sender, receiver, &mut inbox, &driver, &dialler).await {
                    return;
                }
            }
            Err(error) => {
                let reason = error.to_string();
                driver.feed(|core| match error {
                    DialError::Unreachable { .. } => core.on_unreachable(now(), &reason),
                    _ => core.on_disconnected(now(), &reason),
                });
            }
        }
    }
}

/// Waits until the link is not wanted any more. Returns whether the agent ends.
async fn closed(inbox: &mut Inbox) -> bool {
    loop {
        match inbox.recv().await {
            Some(ToLink::Close) => return false,
            Some(ToLink::End) | None => return true,
            Some(ToLink::Frame(_) | ToLink::Packing(_) | ToLink::Dial | ToLink::Probe) => {}
        }
    }
}

/// Serves a link to its end. Returns whether the agent ends.
async fn serve(
    sender: Sender,
    mut receiver: Receiver,
    inbox: &mut Inbox,
    driver: &Arc<Driver>,
    dialler: &Dialler,
) -> bool {
    let progress = receiver.progress();
    // One frame of logs at a time, so that whatever else is to be sent goes before the next. What
    // a link that ended was asked for ends with it.
    let (bulk, mut logs) = mpsc::channel(1);
    let readers = LogReaders::new(driver.clone(), bulk);
    let receive = async {
        loop {
            let mut next = pin!(receiver.next());
            let next = loop {
                match pulse::attend(&progress, next.as_mut()).await {
                    Some(next) => break next,
                    None => driver.feed(|core| core.on_heard(now())),
                }
            };
            match next {
                Ok(Kind::LogRequest(request)) => {
                    readers.ask(request);
                    // The core counts it as a sign of life.
                    driver.feed(|core| core.on_heard(now()));
                }
                Ok(kind) => match ToWorker::try_from(kind) {
                    Ok(message) => {
                        if let ToWorker::Welcome(welcome) = &message {
                            dialler.set_session(&welcome.session);
                        }
                        driver.feed(|core| core.on_message(now(), message));
                    }
                    Err(error) => return error.to_string(),
                },
                Err(reason) => return reason,
            }
        }
    };
    let pings = Notify::new();
    let reason = tokio::select! {
        reason = receive => reason,
        reason = pulse::watch(
            driver.ping,
            progress.clone(),
            || Duration::from_millis(driver.lock().longer_timeout()),
            || pings.notify_one(),
        ) => reason,
        sent = send(sender, inbox, &mut logs, &pings) => match sent {
            Sent::Closed => return false,
            Sent::End => return true,
            Sent::Broken(reason) => reason,
        },
    };
    driver.feed(|core| core.on_disconnected(now(), &reason));
    false
}

enum Sent {
    Closed,
    End,
    Broken(String),
}

async fn send(
    mut sender: Sender,
    inbox: &mut Inbox,
    logs: &mut mpsc::Receiver<Kind>,
    pings: &Notify,
) -> Sent {
    loop {
        let next = tokio::select! {
            biased;
            () = pings.notified() => match sender.ping().await {
                Ok(()) => continue,
                Err(reason) => return Sent::Broken(reason),
            },
            next = inbox.recv() => next,
            Some(data) = logs.recv() => Some(ToLink::Frame(data)),
        };
        let Some(mut next) = next else { return Sent::End };
        // Everything that waits goes out with one flush.
        loop {
            let done = match next {
                ToLink::Frame(kind) => match sender.feed(kind).await {
                    Ok(()) => None,
                    Err(reason) => return Sent::Broken(reason),
                },
                ToLink::Packing(packing) => {
                    sender.packing = packing;
                    None
                }
                ToLink::Close => Some(Sent::Closed),
                ToLink::End => Some(Sent::End),
                ToLink::Dial | ToLink::Probe => None,
            };
            if let Some(done) = done {
                sender.close().await;
                return done;
            }
            match inbox.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        if let Err(reason) = sender.flush().await {
            return Sent::Broken(reason);
        }
    }
}
