//! Copies of one state folder. Each start of a worker's process has a nonce, and each opening of
//! its store an incarnation. Two processes of one store that live at the same time use copies of
//! it: whichever of them is noticed as the other one is refused for good.
//!
//! | a hello with another nonce, and | means |
//! |---|---|
//! | the same incarnation | a copy: a store is opened once with each number |
//! | an older incarnation, once | perhaps the last words of a process that has ended |
//! | the same again, dialled after it was refused | it lives beside its successor: a copy |
//! | a newer incarnation, and no link to the former process | a restart |
//! | a newer incarnation, and the former process answers what is sent after it | a copy |
//!
//! A process holds the lock of its store while it lives, so that a successor's hello is proof of
//! its end, and an answer to something that was sent after that hello is proof of a copy.

use super::coordinator::Coordinator;
use super::ids::ConnId;
use super::news::LinkChange;
use super::output::Output;
use super::rivals::{Copied, Newcomer};
use crate::scheduler::WorkerKey;
use crate::{Millis, Now};
use outlast_model::Capabilities;
use outlast_model::message::{Heartbeat, Hello, ToWorker};
use std::cmp::Ordering;

/// Time in milliseconds for the previous process to answer before its successor is accepted.
const ANSWERS: Millis = 3_000;
/// The longest host name that is shown, in characters.
const MAX_HOST: usize = 128;

/// Decision about a handshake.
pub(super) enum Verdict {
    Fine,
    /// A newer connection or process has been here.
    Stale,
    /// The former process is asked whether it lives.
    Wait,
    /// Refused for good, and why.
    Copy(&'static str),
}

impl Coordinator {
    /// Decides whether the connecting process is the newest one of its store.
    pub(super) fn judge_process(&mut self, now: Now, key: WorkerKey, hello: &Hello) -> Verdict {
        let member = self.fleet.get_mut(key);
        let row = &member.row;
        let another = row.nonce != 0 && hello.nonce != row.nonce;
        match hello.incarnation.cmp(&row.incarnation) {
            Ordering::Equal if another => Verdict::Copy(
                "another process has opened it, or a copy of it, as often as this one",
            ),
            Ordering::Equal if hello.connection <= row.connection => Verdict::Stale,
            Ordering::Equal => Verdict::Fine,
            Ordering::Less if hello.nonce == 0 => Verdict::Stale,
            Ordering::Less => {
                let again = member.rivals.dials_again(hello.nonce, hello.connection);
                match again {
                    true => Verdict::Copy(
                        "a process that has opened a copy of it more often is in use, and this one \
                         lives beside it; or it was restored from an older backup",
                    ),
                    false => Verdict::Stale,
                }
            }
            Ordering::Greater if another => self.judge_newcomer(now, key, hello.nonce),
            Ordering::Greater => Verdict::Fine,
        }
    }

    /// A newer process comes while the former one may still be there: that one is asked.
    fn judge_newcomer(&mut self, now: Now, key: WorkerKey, nonce: u64) -> Verdict {
        let member = self.fleet.get(key);
        let (conn, known) = (member.link.conn, member.rivals.newcomer.as_ref());
        let known = known.filter(|n| n.nonce == nonce).map(|n| (n.since, n.asked.0, n.rivalled));
        let (verdict, since) = match (known, conn) {
            (Some((.., true)), _) => {
                let why = "the process that was there before it lives, and answers";
                (Verdict::Copy(why), None)
            }
            // Its link ended with it.
            (_, None) => (Verdict::Fine, None),
            (Some((since, asked, _)), Some(conn)) if asked == conn => {
                let silent = now.mono >= since + ANSWERS;
                return match silent {
                    true => {
                        self.fleet.get_mut(key).rivals.newcomer = None;
                        Verdict::Fine
                    }
                    false => Verdict::Wait,
                };
            }
            // It has dialled again since it was asked.
            (Some((since, ..)), Some(conn)) => (Verdict::Wait, Some((since, conn))),
            (None, Some(conn)) => (Verdict::Wait, Some((now.mono, conn))),
        };
        let asks = since.and_then(|(since, conn)| Some((since, conn, self.ask(now, conn)?)));
        if let Some((since, conn, seq)) = asks {
            let newcomer = Newcomer { nonce, since, asked: (conn, seq), rivalled: false };
            self.fleet.get_mut(key).rivals.newcomer = Some(newcomer);
        }
        verdict
    }

    /// Sends a heartbeat at once; its number.
    fn ask(&mut self, now: Now, conn: ConnId) -> Option<u64> {
        let monitor = &mut self.conns.get_mut(&conn)?.monitor;
        monitor.beat_soon();
        let seq = monitor.beat(now.mono)?;
        let interval_ms = monitor.pace().0.try_into().unwrap_or(u32::MAX);
        let beat = Heartbeat { seq, interval_ms, ..Default::default() };
        self.journal.output(Output::Send(conn, ToWorker::Heartbeat(beat)));
        Some(seq)
    }

    /// Notes that a copy was refused; why, for its people.
    pub(super) fn note_copy(
        &mut self,
        now: Now,
        key: WorkerKey,
        hello: &Hello,
        why: &str,
    ) -> String {
        self.counters.links.copies += 1;
        let said = Capabilities::of(&hello.capabilities_json);
        let host = said.text("hostname").unwrap_or_default();
        let host: String = host.chars().take(MAX_HOST).filter(|c| !c.is_control()).collect();
        let member = self.fleet.get_mut(key);
        let times = member.rivals.seen.as_ref().map_or(0, |seen| seen.times) + 1;
        let name = member.row.name.clone();
        member.rivals.seen = Some(Copied { at: now.wall, times, host: host.clone() });
        let place = if host.is_empty() { String::new() } else { format!(" on {host}") };
        let news = format!("a copy of its state folder was refused{place}: {why}");
        self.publish(now, key, LinkChange::Copied(news));
        format!(
            "this state folder is a copy of the one of worker {name}: {why}. Two workers that are \
             one would run tasks twice, so this one ends. Delete this folder, or start once with \
             --new-identity. If the other one is the copy: end it, run `outlast workers forget \
             {name}`, and start this one with --keep-identity"
        )
    }
}
