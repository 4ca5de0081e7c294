//! Watching: events, health, metrics, what this is.

use super::owners::OwnerFilter;
use crate::app::App;
use crate::auth::Pass;
use crate::clock::{self, text};
use crate::dash;
use crate::events::FeedEvent;
use crate::extract::{Overseer, Params, Subscriber};
use crate::families::{self};
use crate::gather;
use crate::intake::{BodyReader, too_large};
use crate::problem::Refusal;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use outlast_wire::PROTOCOL;
use outlast_wire::api::{Info, TaskEvent, WorkerEvent};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Time between signs of life, so that a reader can distinguish a lost link from a quiet time.
const ALIVE: Duration = Duration::from_secs(5);
/// Time between checks that a reader's session goes on.
const CHECKED: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
pub(crate) struct EventFilter {
    task: Option<String>,
    prefix: Option<String>,
    include: Option<String>,
    since: Option<u64>,
    every: Option<u64>,
}

/// Kinds of events that can be asked for, and those that are sent when none are.
const KINDS: ([&str; 4], &str) = (["task", "worker", "alert", "fleet"], "task,worker,alert");

impl EventFilter {
    fn includes(&self, kind: &str) -> bool {
        self.include.as_deref().unwrap_or(KINDS.1).split(',').any(|k| k.trim() == kind)
    }
    fn check(&self) -> Result<(), Refusal> {
        let asked = self.include.iter().flat_map(|i| i.split(','));
        match asked.map(str::trim).find(|k| !KINDS.0.contains(k)) {
            Some(k) => {
                Err(Refusal::bad(&format!("include={k:?}: there are {}", KINDS.0.join(", "))))
            }
            None => Ok(()),
        }
    }
    fn wants(&self, what: &FeedEvent) -> bool {
        let kind = match what {
            FeedEvent::Task { .. } => "task",
            FeedEvent::Worker { .. } => "worker",
            FeedEvent::Alert(_) => "alert",
        };
        self.includes(kind)
            && match what {
                FeedEvent::Task { id, .. } => {
                    self.task.as_deref().is_none_or(|t| t == &**id)
                        && self.prefix.as_deref().is_none_or(|p| id.starts_with(p))
                }
                FeedEvent::Worker { .. } | FeedEvent::Alert(_) => {
                    self.task.is_none() && self.prefix.is_none()
                }
            }
    }
}

/// Streams server-sent events `task`, `worker` and `alert` from now on; and, if requested, `fleet`
/// (`FleetEvent`): changes of workers. An event `missed` has the number of events dropped because the
/// reader was slow: query the tasks themselves then. The stream ends soon after its key is revoked, or
/// its session ends.
#[utoipa::path(get, path = "/api/v1/events", tag = "watch",
    params(("task" = Option<String>, Query), ("prefix" = Option<String>, Query, description = "of task ids"),
        ("include" = Option<String>, Query, description = "of task, worker, alert and fleet, with commas; all but fleet by default"),
        ("since" = Option<u64>, Query, description = "of fleet: changes after this tick; by default after now"),
        ("every" = Option<u64>, Query, description = "of fleet: seconds between two events, from 1, the default, to 60")),
    responses((status = 200, content_type = "text/event-stream")))]
pub(crate) async fn events(
    State(app): State<App>,
    Subscriber(pass): Subscriber,
    headers: HeaderMap,
    Params(filter): Params<EventFilter>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Refusal> {
    filter.check()?;
    let fleet = filter.includes("fleet").then(|| fleet(&app, &filter));
    let fleet = futures_util::stream::iter(fleet).flatten();
    let stream = futures_util::stream::unfold(app.watchers.subscribe(), next);
    let owned =
        Arc::new(tokio::sync::Mutex::new(OwnerFilter::new(app.readers.clone(), pass.who())));
    let stream = stream.filter_map(move |item| {
        let owned = owned.clone();
        let item = item.map(|what| filter.wants(&what).then_some(what));
        async move {
            match item {
                Ok(Some(what)) if owned.lock().await.may_see(&what).await => Some(event(&what)),
                Ok(_) => None,
                Err(missed) => Some(Ok(Event::default().event("missed").data(missed.to_string()))),
            }
        }
    });
    let stream = futures_util::stream::select(stream, fleet).take_until(barred(pass, app, headers));
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE)))
}

/// Waits until the reader's key is revoked or its session ends.
async fn barred(pass: Pass, app: App, headers: HeaderMap) {
    let session = dash::session_of(&app, &headers);
    let over = async {
        while dash::still_in(&app, &headers, session) {
            tokio::time::sleep(CHECKED).await;
        }
    };
    tokio::select! {
        _ = pass.ended() => {}
        () = over => {}
    }
}

/// Streams changes of the workers, at most once in `every` seconds; a measurement without changes is
/// reported now and then all the same, for the totals.
fn fleet(
    app: &App,
    filter: &EventFilter,
) -> impl Stream<Item = Result<Event, axum::Error>> + use<> {
    let mut feed = app.quality.fleet.subscribe();
    let since = filter.since.unwrap_or_else(|| feed.borrow_and_update().tick);
    let every = Duration::from_secs(filter.every.unwrap_or(1).clamp(1, 60));
    // A little less, so that no measurement is missed for being a moment early.
    let pause = every - Duration::from_millis(200);
    futures_util::stream::unfold((feed, since, true), move |(mut feed, since, first)| async move {
        if !first {
            tokio::time::sleep(pause).await;
        }
        let now = loop {
            let now = feed.borrow_and_update().clone();
            // After a restart ticks start from zero.
            if now.tick != since {
                break now;
            }
            feed.changed().await.ok()?;
        };
        let since = if now.tick < since { 0 } else { since };
        let event = super::quality::changes(&now, since);
        let event = Event::default().event("fleet").json_data(event);
        Some((event, (feed, now.tick, false)))
    })
}

type Feed = Receiver<Arc<FeedEvent>>;

async fn next(mut feed: Feed) -> Option<(Result<Arc<FeedEvent>, u64>, Feed)> {
    match feed.recv().await {
        Ok(what) => Some((Ok(what), feed)),
        Err(RecvError::Lagged(missed)) => Some((Err(missed), feed)),
        Err(RecvError::Closed) => None,
    }
}

fn event(what: &FeedEvent) -> Result<Event, axum::Error> {
    match what {
        FeedEvent::Alert(alert) => Event::default().event("alert").json_data(alert),
        FeedEvent::Task { id, event, epoch, worker, at, reason, state } => {
            Event::default().event("task").json_data(TaskEvent {
                id: id.to_string(),
                event: (*event).into(),
                attempt: *epoch,
                worker: worker.as_ref().map(ToString::to_string),
                at: text(*at),
                reason: reason.clone(),
                state: *state,
            })
        }
        FeedEvent::Worker { name, event, at, reason } => {
            Event::default().event("worker").json_data(WorkerEvent {
                name: name.to_string(),
                event: (*event).into(),
                at: text(*at),
                reason: reason.clone(),
            })
        }
    }
}

/// Returns the coordinator's id, version and settings.
#[utoipa::path(get, path = "/api/v1/info", tag = "watch", responses((status = 200, body = Info)))]
pub(crate) async fn info(State(app): State<App>) -> Json<Info> {
    Json(Info {
        coordinator_id: app.coordinator_id.clone(),
        version: app.version.clone(),
        protocol: PROTOCOL,
        now: text(clock::wall()),
        started_at: text(app.started_at),
        auth: app.auth.needed(),
        tls: app.tls,
        clock_jumped: clock::has_jumped(),
    })
}

/// Bytes of a probe at most.
const MAX_PROBE: usize = 32 << 20;

/// Takes a body and throws it away: whether one of its size gets here, past proxies on the way.
#[utoipa::path(put, path = "/api/v1/probe", tag = "watch", responses((status = 204),
    (status = 413, body = outlast_wire::api::Problem)))]
pub(crate) async fn probe(body: Body) -> Result<StatusCode, Refusal> {
    let mut body = BodyReader::new(body);
    while body.next(|| false).await?.is_some() {
        if body.got() > MAX_PROBE {
            return Err(too_large(MAX_PROBE));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Answers 200 while the process lives.
#[utoipa::path(get, path = "/healthz", tag = "watch", responses((status = 200)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Answers 200 while tasks can be accepted: the store can be written and the core answers.
#[utoipa::path(get, path = "/readyz", tag = "watch", responses((status = 200), (status = 507)))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<&'static str, Refusal> {
    app.health.borrow().check()?;
    app.query(|_| ()).await?;
    let folder = app.data_dir.clone();
    let disk = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder));
    match tokio::time::timeout(LOOKS, disk).await {
        Ok(Ok(Ok(disk))) => room(&disk).map_err(|why| Refusal::store(&why))?,
        Ok(_) => {}
        Err(_) => return Err(Refusal::store("its disk does not answer")),
    }
    Ok("ready\n")
}

/// Timeout of a query for free disk space.
const LOOKS: std::time::Duration = std::time::Duration::from_secs(3);
/// With less room the disk of the data folder counts as full, in bytes.
const ROOM: u64 = 1 << 20;

/// Returns the reason that nothing can be written there, as far as the file system says.
fn room(disk: &rustix::fs::StatVfs) -> Result<(), String> {
    use rustix::fs::StatVfsMountFlags;
    let root = rustix::process::geteuid().is_root();
    let blocks = if root { disk.f_bfree } else { disk.f_bavail };
    let left = blocks.saturating_mul(disk.f_frsize);
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err("the file system of its data folder is read-only".into());
    }
    match disk.f_blocks > 0 && left < ROOM {
        true => Err(format!("the disk of its data folder has {left} bytes left")),
        false => Ok(()),
    }
}

#[derive(Deserialize)]
pub(crate) struct Series {
    workers: Option<usize>,
}

/// Prometheus metrics. Series of single workers are there while there are no more than 50, or of
/// so many as `workers` says (1,000 at most).
#[utoipa::path(get, path = "/metrics", tag = "watch",
    params(("workers" = Option<usize>, Query, description = "workers with series of their own")), responses((status = 200, content_type = "text/plain")))]
pub(crate) async fn metrics(
    State(app): State<App>,
    _: Overseer,
    Params(series): Params<Series>,
) -> Result<impl IntoResponse, Refusal> {
    let text = families::text(&gather::families(&app, series.workers).await?);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
