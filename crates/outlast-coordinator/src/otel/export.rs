//! Exports tasks that have ended: takes their names from the backlog, reads their history, and delivers it
//! as traces; goes on after each only when it is delivered. Waits for the collector as long as it takes,
//! and nobody waits for it.

use super::backlog::{Backlog, Range};
use super::cursor::Cursor;
use super::ids::Tracer;
use super::proto::{self, ExportTraceServiceRequest, Resource, ResourceSpans, ScopeSpans, Span};
use super::send::Sender;
use super::spans::{Life, Workers, outages, spans};
use crate::clock;
use crate::quality::meters::Quality;
use crate::quality::timeline;
use crate::readers::Readers;
use outlast_core::TaskId;
use outlast_store::{CoordReader, StoreError};
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Tasks read at a time.
const TASKS: usize = 256;
/// Entries of histories read at a time, and one task's more.
const ENTRIES: usize = 10_000;
/// Spans, and bytes of them, in one request.
const REQUEST: (usize, usize) = (512, 1 << 20);
/// Tasks looked at in one go when those that ended in a time are looked for.
const LOOKED: usize = 2_000;
/// Time to wait for more once a task ended.
const GATHER: Duration = Duration::from_secs(1);
/// Tasks that ended longer ago are not exported any more, in milliseconds: a week.
const OLDEST: i64 = 7 * 24 * 3_600_000;
/// Entries of a worker's link that are looked through.
const LINKS: usize = 1_000;
/// Names of workers that are remembered, and for how long.
const NAMES: (usize, Duration) = (20_000, Duration::from_secs(60));
/// Pause after the store could not be read.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Exporter {
    pub tracer: Arc<Tracer>,
    pub backlog: Arc<Backlog>,
    pub cursor: Cursor,
    pub sender: Sender,
    pub resource: Resource,
    pub readers: Readers,
    pub quality: Arc<Quality>,
    pub names: Names,
}

/// Workers' names by store id.
pub(super) struct Names {
    known: HashMap<Arc<str>, Arc<str>>,
    since: std::time::Instant,
}

impl Default for Names {
    fn default() -> Names {
        Names { known: HashMap::new(), since: std::time::Instant::now() }
    }
}

impl Exporter {
    /// Exports tasks for ever; it may be dropped at any time. Then `cursor` has its position.
    pub async fn run(&mut self) {
        let now = clock::wall();
        let from = self.cursor.at().max(now - OLDEST);
        self.find((from, now)).await;
        loop {
            let taken = self.backlog.take(TASKS);
            if let Some((_, at)) = taken.last() {
                let at = *at;
                let mut ids: Vec<TaskId> = taken.into_iter().map(|(id, _)| id).collect();
                let mut seen = HashSet::new();
                ids.retain(|id| seen.insert(id.clone()));
                self.export(ids).await;
                self.cursor.advance(at).await;
            } else if let Some(range) = self.backlog.missed() {
                self.find(range).await;
            } else {
                self.cursor.save().await;
                self.backlog.came().await;
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// Exports all tasks that ended in this time.
    async fn find(&mut self, (from, to): Range) {
        let mut after = 0;
        loop {
            let read = self.readers.read(move |r| r.aged(after, LOOKED)).await;
            let page = match read {
                Ok(page) => page,
                Err(why) => {
                    self.unread(&why).await;
                    continue;
                }
            };
            let Some(last) = page.last() else { break };
            after = last.number;
            let due = |at: i64| (from..=to).contains(&at);
            let found = page.iter().filter(|t| t.ended_at.is_some_and(due));
            let ids: Vec<TaskId> = found.map(|t| t.id.clone()).collect();
            for some in ids.chunks(TASKS) {
                self.export(some.to_vec()).await;
            }
        }
        self.cursor.advance(to).await;
    }

    async fn unread(&self, why: &str) {
        tracing::warn!("OTLP: the store cannot be read: {why}");
        tokio::time::sleep(AGAIN).await;
    }

    /// Exports these tasks, as far as they have ended.
    async fn export(&mut self, mut ids: Vec<TaskId>) {
        while !ids.is_empty() {
            let (wanted, tracer) = (ids.clone(), self.tracer.clone());
            match self.readers.read(move |r| lives(r, &wanted, &tracer)).await {
                Ok((lives, read)) => {
                    ids.drain(..read);
                    self.deliver_all(lives).await;
                }
                Err(why) => self.unread(&why).await,
            }
        }
    }

    /// Makes spans of these, and delivers them.
    async fn deliver_all(&mut self, lives: Vec<Life>) {
        let workers = self.workers(&lives).await;
        let mut all = Vec::new();
        for life in &lives {
            all.extend(spans(life, &self.tracer, &workers));
        }
        let mut some = Vec::new();
        let mut bytes = 0;
        for span in all {
            let size = span.encoded_len();
            if !some.is_empty() && (some.len() >= REQUEST.0 || bytes + size > REQUEST.1) {
                self.deliver(std::mem::take(&mut some)).await;
                bytes = 0;
            }
            bytes += size;
            some.push(span);
        }
        if !some.is_empty() {
            self.deliver(some).await;
        }
    }

    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let scope_spans =
            vec![ScopeSpans { scope: Some(proto::scope()), spans, ..Default::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..Default::default() }];
        self.sender.deliver(&ExportTraceServiceRequest { resource_spans }, count).await;
    }

    /// Names and links of the workers that had these. What is not known is left out.
    async fn workers(&mut self, lives: &[Life]) -> Workers {
        let ids = lives.iter().flat_map(|life| &life.events).filter_map(|e| e.worker.clone());
        let ids: HashSet<Arc<str>> = ids.collect();
        if self.names.since.elapsed() > NAMES.1 || self.names.known.len() > NAMES.0 {
            self.names = Names::default();
        }
        let unknown = ids.iter().filter(|id| !self.names.known.contains_key(*id)).cloned();
        let unknown: Vec<Arc<str>> = unknown.collect();
        let read = move |r: &CoordReader| {
            let mut found = Vec::new();
            for id in unknown {
                if let Some(worker) = r.worker(&id)?.filter(|w| w.row.store_id == id) {
                    found.push((id, worker.row.name.clone()));
                }
            }
            Ok(found)
        };
        self.names.known.extend(self.readers.read(read).await.unwrap_or_default());
        let name = |id: &Arc<str>| Some((id.clone(), self.names.known.get(id)?.clone()));
        let names = ids.iter().filter_map(name).collect();
        let from = lives.iter().map(|life| life.task.submitted_at).min().unwrap_or(0);
        let until = clock::wall().saturating_add(1);
        let read = self.quality.history.ask(move |store| {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                let links = store.links(&id, until, LINKS)?;
                found.push((id, links));
            }
            Ok((found, store.runs()?))
        });
        let (links, runs) = read.await.ok().flatten().unwrap_or_default();
        let line = |links: &[_]| outages(&timeline::intervals(links, &runs, from, until));
        let outages = links.into_iter().map(|(id, links)| (id, line(&links))).collect();
        Workers { names, outages }
    }
}

/// Reads the first of these tasks, and returns how many were read: histories may be long. Tasks that
/// are unknown, have not ended or are not sampled are left out.
fn lives(
    reader: &CoordReader,
    ids: &[TaskId],
    tracer: &Tracer,
) -> Result<(Vec<Life>, usize), StoreError> {
    let (mut all, mut read, mut entries) = (Vec::new(), 0, 0);
    for id in ids {
        if entries > ENTRIES {
            break;
        }
        read += 1;
        let task = reader.task(id)?.filter(|t| t.state.is_terminal());
        let task = task.filter(|t| tracer.place(&t.id, &t.spec).sampled);
        let Some(task) = task else { continue };
        let (events, checkpoints) = (reader.history(id)?, reader.checkpoints(id)?);
        entries += events.len() + checkpoints.len();
        all.push(Life { task, cause: Default::default(), events, checkpoints });
    }
    let numbers: Vec<u64> = all.iter().map(|life| life.task.number).collect();
    let extras = reader.extras(&numbers)?;
    for life in &mut all {
        life.cause = extras.get(&life.task.number).map_or_else(Default::default, |e| e.cause);
    }
    Ok((all, read))
}
