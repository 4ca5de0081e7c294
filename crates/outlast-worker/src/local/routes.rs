//! The routes: from a request to a call of the host, and back.

use super::body::{Chunks, FromRead};
use super::error::HostError;
use super::host::{Host, Source};
use super::pack::Notes;
use super::place::Places;
use super::problem::{Problem, Refusal};
use super::rights::Rights;
use super::spool::Spool;
use super::token::Tokens;
use super::types::*;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path as UrlPath, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// State shared by requests.
pub(super) struct App<H> {
    pub host: Arc<H>,
    pub spool: Spool,
    pub places: Arc<Places>,
    /// The rights with which files are read, if not this process's.
    pub rights: Option<Arc<Rights>>,
    /// Tokens of attempts; none: every client may act for every attempt.
    pub tokens: Option<Arc<Tokens>>,
    pub body_patience: Duration,
    /// Permits for requests that wait for control, which must leave connections to others.
    pub polls: Semaphore,
}

type Shared<H> = State<Arc<App<H>>>;
type Answer = Result<Response, Refusal>;

pub(super) fn router<H: Host>(app: Arc<App<H>>) -> Router {
    let one = Router::new()
        .route("/", get(info::<H>))
        .route("/checkpoints", get(checkpoints::<H>).post(checkpoint::<H>))
        .route("/checkpoints/{id}/data", get(data::<H>))
        .route("/restore", post(restore::<H>))
        .route("/state", get(state::<H>).patch(update_state::<H>))
        .route("/progress", put(progress::<H>))
        .route("/artifacts", post(artifact::<H>))
        .route("/control", get(control::<H>));
    Router::new()
        .nest("/v1/tasks/{task}/{attempt}", one)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

/// The attempt, and the checkpoint if there is one, of a request's path.
struct At(Attempt, String);

#[derive(Deserialize)]
struct Names {
    task: String,
    attempt: String,
    #[serde(default)]
    id: String,
}

impl<H: Host> FromRequestParts<Arc<App<H>>> for At {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<App<H>>) -> Result<At, Refusal> {
        let names = UrlPath::<Names>::from_request_parts(parts, state).await;
        let UrlPath(names) = names.map_err(|e| invalid(e.body_text()))?;
        match names.attempt.parse() {
            Ok(epoch) if epoch > 0 => {
                let at = Attempt { task: names.task, epoch };
                if let Some(tokens) = &state.tokens {
                    tokens.check(&at, &parts.headers)?;
                }
                Ok(At(at, names.id))
            }
            _ => Err(invalid(format!(
                "{:?} is no attempt; write /v1/tasks/$OUTLAST_TASK_ID/$OUTLAST_ATTEMPT/…",
                names.attempt
            ))),
        }
    }
}

/// Query parameters of an upload.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    name: Option<String>,
    meta: Option<String>,
    request: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ControlQuery {
    wait: f64,
    cancel: bool,
    pause: bool,
    checkpoint_request: u64,
}

impl Default for ControlQuery {
    fn default() -> Self {
        ControlQuery { wait: 0.0, cancel: false, pause: false, checkpoint_request: 0 }
    }
}

fn invalid(detail: impl Into<String>) -> Refusal {
    HostError::Invalid(detail.into()).into()
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(value).map_err(|e| HostError::Internal(e.to_string()))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let Query(query) = Query::try_from_uri(uri).map_err(|e| invalid(e.body_text()))?;
    Ok(query)
}

/// Runs to its end even if whoever asked hangs up.
async fn whole<T, F>(work: F) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: Future<Output = Result<T, HostError>> + Send + 'static,
{
    let done = tokio::spawn(work).await;
    Ok(done.map_err(|e| HostError::Internal(format!("the request ended unexpectedly: {e}")))??)
}

fn absolute(path: &Path) -> Result<PathBuf, Refusal> {
    match path.is_absolute() {
        // Without `.` and a slash at the end, which a rename would not like.
        true => Ok(path.components().collect()),
        false => Err(invalid(format!(
            "{path:?} is not absolute: the worker's own folder is not the task's"
        ))),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let text = format!("{name:?} is no name; use 1 to {MAX_NAME} bytes of printable text");
        return Err(invalid(text));
    }
    Ok(())
}

/// A chosen name, or that of the path.
fn name_of(chosen: Option<String>, path: &Path) -> Result<String, Refusal> {
    let own = || path.file_name().map(|n| n.to_string_lossy().replace(char::is_control, "_"));
    let name = chosen.or_else(own).unwrap_or_else(|| "root".into());
    check_name(&name)?;
    Ok(name)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Description of an upload: location of the bytes, name, metadata.
struct Upload {
    source: Source,
    kind: Kind,
    notes: Notes,
    name: Option<String>,
    /// The file or folder of the task's, if that is the source.
    path: PathBuf,
    meta: Map<String, Value>,
    request: Option<String>,
}

async fn upload<H: Host>(app: &App<H>, request: Request) -> Result<Upload, Refusal> {
    let (parts, body) = request.into_parts();
    let chunks = Chunks::new(body, app.body_patience);
    let notes = Notes::default();
    if is_json(&parts.headers) {
        let from: FromPath = chunks.json().await?;
        let path = absolute(&from.path)?;
        let _turn = match &app.rights {
            Some(rights) => Some(rights.turn().await?),
            None => None,
        };
        // Opened, not only looked at: whether it may be read is said now.
        let source = match &app.rights {
            Some(rights) => Source::Theirs(path.clone(), notes.clone(), rights.clone()),
            None => Source::Path(path.clone(), notes.clone()),
        };
        let (source, opened) = tokio::task::spawn_blocking(move || {
            let opened = source.open().map(|(kind, _)| kind);
            (source, opened)
        })
        .await
        .map_err(|e| HostError::Internal(e.to_string()))?;
        let kind = opened.map_err(|e| HostError::of_file(&path.display().to_string(), &e))?;
        let FromPath { name, meta, request, .. } = from;
        return Ok(Upload { source, kind, notes, name, path, meta, request });
    }
    let query: UploadQuery = query(&parts.uri)?;
    let meta = match &query.meta {
        None => Map::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|e| invalid(format!("`meta` is no JSON object: {e}")))?,
    };
    let source = Source::Spooled(app.spool.take(chunks).await?);
    let (name, request) = (query.name, query.request);
    Ok(Upload { source, kind: Kind::Raw, notes, name, path: PathBuf::new(), meta, request })
}

async fn info<H: Host>(State(app): Shared<H>, At(at, _): At) -> Answer {
    json(StatusCode::OK, &app.host.info(&at).await?)
}

async fn checkpoint<H: Host>(State(app): Shared<H>, At(at, _): At, request: Request) -> Answer {
    // Before a gigabyte is taken in for nothing.
    app.host.info(&at).await?;
    let upload = upload(&app, request).await?;
    let name = match upload.kind {
        Kind::Raw => upload.name.unwrap_or_else(|| "checkpoint".into()),
        _ => name_of(upload.name, &upload.path)?,
    };
    check_name(&name)?;
    if serde_json::to_vec(&upload.meta).map_or(0, |json| json.len()) > MAX_META {
        return Err(HostError::TooLarge { what: "`meta`".into(), limit: MAX_META as u64 }.into());
    }
    if let Some(request) = &upload.request {
        check_name(request)?;
    }
    let meta =
        CheckpointMeta { kind: upload.kind, name, user: upload.meta, request: upload.request };
    let source = upload.source;
    let view = whole(async move { app.host.checkpoint(&at, source, meta).await }).await?;
    json(StatusCode::CREATED, &Made { view, notes: upload.notes.list() })
}

#[derive(Serialize)]
struct Checkpoints {
    checkpoints: Vec<CheckpointView>,
}

async fn checkpoints<H: Host>(State(app): Shared<H>, At(at, _): At) -> Answer {
    json(StatusCode::OK, &Checkpoints { checkpoints: app.host.checkpoints(&at).await? })
}

/// The answer when a task has no checkpoint yet; not an error of anybody's.
fn none_yet() -> Refusal {
    let detail = "this task has no checkpoint yet".into();
    Problem::new(StatusCode::NOT_FOUND, NO_CHECKPOINT, "no checkpoint", detail).into()
}

async fn data<H: Host>(State(app): Shared<H>, At(at, id): At) -> Answer {
    let which = (id != "latest").then_some(id);
    let Some(found) = app.host.restore(&at, which.clone()).await? else {
        return Err(which.map_or_else(none_yet, |id| HostError::NoSuchCheckpoint(id).into()));
    };
    let kind = match found.view.meta.kind {
        Kind::Folder => "application/x-tar",
        Kind::File | Kind::Raw => "application/octet-stream",
    };
    let headers = [(header::CONTENT_TYPE.as_str(), kind), (ID_HEADER, found.view.id.as_str())];
    Ok((headers, Body::new(FromRead::new(found.body))).into_response())
}

async fn restore<H: Host>(State(app): Shared<H>, At(at, _): At, body: Body) -> Answer {
    let to: ToPath = Chunks::new(body, app.body_patience).json().await?;
    let path = absolute(&to.path)?;
    let restored = whole(async move {
        let Some(mut found) = app.host.restore(&at, to.id.clone()).await? else {
            return match to.id {
                Some(id) => Err(HostError::NoSuchCheckpoint(id)),
                None => Ok(None),
            };
        };
        let _turn = match &app.rights {
            Some(rights) => Some(rights.turn().await?),
            None => None,
        };
        let places = Arc::clone(&app.places);
        let put = move || {
            let kind = found.view.meta.kind;
            places.put(&path, kind, &mut *found.body, to.force)?;
            Ok(Some(Restored { view: found.view, path }))
        };
        let put = tokio::task::spawn_blocking(put).await;
        put.map_err(|e| HostError::Internal(e.to_string()))?
    });
    json(StatusCode::OK, &restored.await?.ok_or_else(none_yet)?)
}

async fn state<H: Host>(State(app): Shared<H>, At(at, _): At) -> Answer {
    json(StatusCode::OK, &app.host.state(&at).await?)
}

async fn update_state<H: Host>(State(app): Shared<H>, At(at, _): At, body: Body) -> Answer {
    let patch: Map<String, Value> = Chunks::new(body, app.body_patience).json().await?;
    let view = whole(async move { app.host.update_state(&at, patch, None).await });
    json(StatusCode::OK, &view.await?)
}

async fn progress<H: Host>(State(app): Shared<H>, At(at, _): At, body: Body) -> Answer {
    let said: Progress = Chunks::new(body, app.body_patience).json().await?;
    if !(0.0..=1.0).contains(&said.progress) {
        return Err(invalid(format!("progress is {}, which is not 0 to 1", said.progress)));
    }
    let mut patch = said.data;
    patch.extend(said.message.map(|text| ("message".to_owned(), Value::String(text))));
    let done = Some(said.progress);
    let view = whole(async move { app.host.update_state(&at, patch, done).await });
    json(StatusCode::OK, &view.await?)
}

async fn artifact<H: Host>(State(app): Shared<H>, At(at, _): At, request: Request) -> Answer {
    app.host.info(&at).await?;
    let upload = upload(&app, request).await?;
    if !upload.meta.is_empty() || upload.request.is_some() {
        return Err(invalid("an artifact has a name and nothing else"));
    }
    let mut name = match (upload.kind, upload.name) {
        (Kind::Raw, None) => return Err(invalid("say how it is called: ?name=NAME")),
        (_, name) => name_of(name, &upload.path)?,
    };
    // It is one, and who opens it should know.
    if upload.kind == Kind::Folder && !name.ends_with(".tar") {
        name += ".tar";
    }
    check_name(&name)?;
    if !Path::new(&name).components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(invalid(format!("{name:?} is no name: it must not lead out of a folder")));
    }
    let source = upload.source;
    let view = whole(async move { app.host.artifact(&at, name, source).await }).await?;
    json(StatusCode::CREATED, &Made { view, notes: upload.notes.list() })
}

async fn control<H: Host>(State(app): Shared<H>, At(at, _): At, uri: Uri) -> Answer {
    let ControlQuery { wait, cancel, pause, checkpoint_request } = query(&uri)?;
    if !(0.0..=MAX_WAIT as f64).contains(&wait) {
        return Err(invalid(format!("wait is {wait}, which is not 0 to {MAX_WAIT} seconds")));
    }
    let seen = Control { cancel, pause, checkpoint_request };
    let Ok(_permit) = app.polls.try_acquire() else {
        return Err(Problem::busy("too many tasks wait for control; ask again in a moment").into());
    };
    let wait = Duration::from_secs_f64(wait);
    json(StatusCode::OK, &app.host.control(&at, seen, wait).await?)
}

async fn no_route(uri: Uri) -> Refusal {
    let detail = format!(
        "nothing is at {}; below /v1/tasks/$OUTLAST_TASK_ID/$OUTLAST_ATTEMPT there are \
         checkpoints, checkpoints/ID/data, restore, state, progress, artifacts and control",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, "no-route", "no such address", detail).into()
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    let detail = format!("{} does not know {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", "no such method here", detail).into()
}
