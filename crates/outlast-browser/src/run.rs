//! A script in a page, from its start to its outcome.
//!
//! Three parts run concurrently: the work (open, load, run), the pump, which handles all events of the
//! browser and never waits for an answer, and the clerk, which forwards the script's requests one
//! after the other, in order.

use crate::cdp::{CdpError, Event};
use crate::console;
use crate::launch::Browser;
use crate::page::{BINDING, EvalError, OWN, Page, thrown};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// The largest message of a script, in bytes; page.js knows it too.
pub const MAX_MESSAGE: usize = 32 << 20;
/// The largest result, in bytes of JSON.
pub const MAX_VALUE: usize = 1 << 20;
/// Requests that may wait, and their total bytes.
const MAX_WISHES: (usize, usize) = (1024, 128 << 20);
/// Time limit for a page to load.
const LOAD: Duration = Duration::from_secs(60);
/// Time after a failure in which an event that explains it may still arrive.
const HINDSIGHT: Duration = Duration::from_millis(500);
/// Time limit for the last requests of a script that has ended.
const LAST_WISHES: Duration = Duration::from_secs(30);

/// A script with its page and settings.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// JavaScript. Its value, or that of the function that it evaluates to, is the result.
    pub source: String,
    /// Page: a URL, or HTML if it begins with `<`; empty: an empty page.
    pub page: String,
    /// Becomes `task.args`.
    pub args: Value,
    /// Becomes `task.id`.
    pub task: String,
    /// Becomes `task.attempt`.
    pub attempt: u64,
    /// Policy for a lost GPU context: true only reports it.
    pub bears_context_loss: bool,
}

/// Outcome of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Result as JSON.
    Done(String),
    /// The script threw an exception, or could not be started.
    Failed {
        /// Message in one line.
        message: String,
        /// With the places in the source.
        stack: String,
    },
    /// The browser, or the process of the page, is gone.
    Crashed {
        /// Process and reason.
        message: String,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// The page needed more memory than it gets.
    OutOfMemory(String),
    /// A WebGL, WebGPU or WebNN context was lost.
    ContextLost(String),
}

/// Destination of a console message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// Data that a script saves or restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// A JSON text.
    Json(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Saved {
    /// Returns the content.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Saved::Json(text) => text.as_bytes(),
            Saved::Bytes(bytes) => bytes,
        }
    }
}

/// Request of a script.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// Keep this as a checkpoint; the answer is its id.
    Checkpoint {
        /// Data to save.
        data: Saved,
        /// A name for people.
        name: Option<String>,
        /// Metadata of the checkpoint.
        meta: Map<String, Value>,
    },
    /// The newest checkpoint, or null.
    Restore,
    /// Progress report.
    Progress {
        /// Progress from 0 to 1.
        value: f64,
        /// Message to show.
        message: Option<String>,
        /// Merged into the state.
        data: Map<String, Value>,
    },
    /// Changes of its state; null deletes.
    State(Map<String, Value>),
    /// Keep this for the result.
    Artifact {
        /// Name of the artifact.
        name: String,
        /// Data to save.
        data: Saved,
    },
}

/// Answer to a request; the script gets the error as an exception.
pub type Answer = Pin<Box<dyn Future<Output = Result<Option<Saved>, String>> + Send>>;

/// The world outside of the page.
pub trait Host: Send + Sync + 'static {
    /// Does what a script asks for.
    fn grant(&self, wish: Wish) -> Answer;
    /// Completes each time that a checkpoint of the task is requested. Called only if the script has a
    /// handler for that.
    fn checkpoint_wanted(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// A line of the page's console.
    fn console(&self, level: Level, text: &str);
}

/// A message of page.js.
#[derive(Debug, Deserialize)]
struct Message {
    id: u64,
    op: String,
    #[serde(default)]
    json: Option<String>,
    #[serde(default)]
    bytes: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    meta: Option<Map<String, Value>>,
    #[serde(default)]
    value: Option<f64>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    data: Option<Map<String, Value>>,
    #[serde(default)]
    changes: Option<Map<String, Value>>,
    #[serde(default)]
    api: String,
    #[serde(default)]
    detail: String,
}

impl Message {
    fn wish(self) -> Result<Wish, String> {
        let op = self.op.as_str();
        let data = match (self.bytes, self.json) {
            (Some(text), _) => {
                let bytes = BASE64_STANDARD.decode(text);
                Some(Saved::Bytes(bytes.map_err(|e| format!("{op}: no base64: {e}"))?))
            }
            (None, text) => text.map(Saved::Json),
        };
        let lacks = |what| format!("{op} needs {what}");
        Ok(match op {
            "checkpoint" => Wish::Checkpoint {
                data: data.ok_or_else(|| lacks("a value"))?,
                name: self.name,
                meta: self.meta.unwrap_or_default(),
            },
            "restore" => Wish::Restore,
            "progress" => Wish::Progress {
                value: self.value.ok_or_else(|| lacks("a number from 0 to 1"))?,
                message: self.message,
                data: self.data.unwrap_or_default(),
            },
            "state" => Wish::State(self.changes.ok_or_else(|| lacks("an object"))?),
            "artifact" => Wish::Artifact {
                name: self.name.ok_or_else(|| lacks("a name"))?,
                data: data.ok_or_else(|| lacks("a value"))?,
            },
            other => return Err(format!("{other:?} is nothing that can be asked for")),
        })
    }
}

/// A request, and the receiver of its answer.
struct Errand {
    id: u64,
    context: Value,
    wish: Result<Wish, String>,
    bytes: usize,
}

/// Runs a script in a fresh page, and closes the page. A browser that crashed is of no more use.
pub async fn run(browser: &mut Browser, script: &Script, host: Arc<dyn Host>) -> End {
    browser.forget_words();
    let page = Arc::new(OnceLock::new());
    let (errands, clerk) = mpsc::channel(MAX_WISHES.0);
    let pending = Arc::new(AtomicUsize::new(0));
    let clerk = tokio::spawn(serve(clerk, page.clone(), host.clone(), pending.clone()));
    let mut pump = Pump {
        page: page.clone(),
        host,
        errands,
        pending,
        loaded: watch::Sender::new(false),
        bears: script.bears_context_loss,
        crashed: None,
        jobs: JoinSet::new(),
    };
    let loaded = pump.loaded.subscribe();
    let cdp = browser.cdp.clone();
    let worked = {
        let work = work(&cdp, script, &page, loaded);
        tokio::pin!(work);
        tokio::select! {
            worked = &mut work => Ok(worked),
            fatal = pump.run(&mut browser.events) => Err(fatal),
        }
    };
    let end = match worked {
        Ok(Ok(json)) => done(json),
        // The cause may be another event that is about to arrive.
        Ok(Err(error)) => match timeout(HINDSIGHT, pump.run(&mut browser.events)).await {
            Ok(fatal) => fatal.end(browser).await,
            Err(_) => failed(error, browser).await,
        },
        Err(fatal) => fatal.end(browser).await,
    };
    drop(pump);
    if matches!(end, End::Crashed { .. }) {
        clerk.abort();
    } else {
        // What was said last counts too, though nobody waited for its answer.
        let _ = timeout(LAST_WISHES, clerk).await;
        if let Some(page) = page.get() {
            let close = json!({"targetId": page.target});
            let _ = timeout(HINDSIGHT, cdp.call(None, "Target.closeTarget", close)).await;
        }
    }
    end
}

fn done(json: String) -> End {
    if json.len() <= MAX_VALUE {
        return End::Done(json);
    }
    let n = json.len();
    let what = "keep large data as a checkpoint or an artifact";
    let message = format!("the result is {n} bytes of JSON, more than {MAX_VALUE}: {what}");
    End::Failed { stack: message.clone(), message }
}

async fn failed(error: EvalError, browser: &mut Browser) -> End {
    match error {
        EvalError::Thrown(thrown) => End::Failed { message: thrown.message, stack: thrown.stack },
        EvalError::Cdp(CdpError::Closed) => Fatal::Gone.end(browser).await,
        EvalError::Cdp(error) => {
            let text = error.to_string();
            let message = match text.contains("navigated or closed") {
                true => "the page went somewhere else while the script ran".to_owned(),
                false => text,
            };
            End::Failed { stack: message.clone(), message }
        }
    }
}

async fn work(
    cdp: &crate::cdp::Cdp,
    script: &Script,
    place: &OnceLock<Page>,
    mut loaded: watch::Receiver<bool>,
) -> Result<String, EvalError> {
    let (url, html) = match script.page.trim_start() {
        "" => (OWN, "<!doctype html><title>task</title>"),
        html if html.starts_with('<') => (OWN, html),
        url => (url, ""),
    };
    let page = Page::open(cdp, html).await?;
    let page = place.get_or_init(|| page);
    let known = json!({
        "id": script.task, "attempt": script.attempt, "args": script.args
    });
    page.prepare(&known).await?;
    page.go(url).await?;
    if timeout(LOAD, loaded.wait_for(|l| *l)).await.is_err() {
        let message = format!("{url} did not load: timed out after {} s", LOAD.as_secs());
        let stack = message.clone();
        return Err(EvalError::Thrown(crate::page::Thrown { message, stack }));
    }
    page.run(&script.source).await
}

/// Event that ends the run.
enum Fatal {
    /// The browser closed its pipe.
    Gone,
    /// The page's process.
    Crash {
        status: String,
        code: i64,
    },
    Lost(String),
    Closed,
}

impl Fatal {
    async fn end(self, browser: &mut Browser) -> End {
        match self {
            Fatal::Gone => {
                let exit = browser.exit().await;
                let message = format!("browser crashed: {exit}");
                End::Crashed { message, signal: exit.signal() }
            }
            Fatal::Crash { status, code } if status == "oom" || browser.ran_out_of_memory() => {
                End::OutOfMemory(format!(
                    "out of memory: the page needed more than the browser gives it ({status}, \
                     code {code})"
                ))
            }
            Fatal::Crash { status, code } => {
                // "killed": by a signal that is the code.
                let signal = (status == "killed").then_some(9);
                End::Crashed { message: format!("page crashed: {status}, code {code}"), signal }
            }
            Fatal::Lost(text) => End::ContextLost(text),
            Fatal::Closed => {
                let message = "the page was closed while the script ran".to_owned();
                End::Failed { stack: message.clone(), message }
            }
        }
    }
}

struct Pump {
    page: Arc<OnceLock<Page>>,
    host: Arc<dyn Host>,
    errands: mpsc::Sender<Errand>,
    /// Bytes of the waiting requests.
    pending: Arc<AtomicUsize>,
    loaded: watch::Sender<bool>,
    bears: bool,
    /// The page's process died: when more should be known of it.
    crashed: Option<Instant>,
    /// Small answers to the browser.
    jobs: JoinSet<()>,
}

impl Pump {
    /// Handles all events until one ends the run.
    async fn run(&mut self, events: &mut mpsc::Receiver<Event>) -> Fatal {
        loop {
            let known = self.crashed.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let event = tokio::select! {
                event = events.recv() => event,
                () = sleep_until(known), if self.crashed.is_some() => {
                    return Fatal::Crash { status: "crashed".into(), code: 0 };
                }
                Some(_) = self.jobs.join_next() => continue,
            };
            let Some(event) = event else { return Fatal::Gone };
            if let Some(fatal) = self.on(event) {
                return fatal;
            }
        }
    }

    fn on(&mut self, event: Event) -> Option<Fatal> {
        let page = self.page.get()?;
        let Event { session, method, params } = event;
        let ours = session.as_deref() == Some(page.session.as_str());
        let target = params["targetId"] == page.target.as_str();
        match (method.as_str(), ours) {
            ("Target.targetCrashed", _) if target => {
                let status = params["status"].as_str().unwrap_or("crashed").to_owned();
                let code = params["errorCode"].as_i64().unwrap_or_default();
                return Some(Fatal::Crash { status, code });
            }
            ("Inspector.targetCrashed", true) => {
                self.crashed.get_or_insert_with(|| Instant::now() + HINDSIGHT);
            }
            ("Target.targetDestroyed", _) if target => return Some(Fatal::Closed),
            ("Page.loadEventFired", true) => drop(self.loaded.send_replace(true)),
            ("Fetch.requestPaused", true) => {
                let page = page.clone();
                self.jobs.spawn(async move { drop(page.serve(&params).await) });
            }
            ("Page.javascriptDialogOpening", true) => {
                let text = params["message"].as_str().unwrap_or_default();
                self.host.console(Level::Error, &console::cut(format!("dialog: {text}")));
                let page = page.clone();
                let accept = json!({"accept": true});
                self.jobs.spawn(async move {
                    drop(page.call("Page.handleJavaScriptDialog", accept).await);
                });
            }
            ("Runtime.consoleAPICalled", true) => {
                let level = match params["type"].as_str() {
                    Some("error" | "warning" | "assert" | "trace") => Level::Error,
                    _ => Level::Out,
                };
                self.host.console(level, &console::text(&params["args"]));
            }
            ("Runtime.exceptionThrown", true) => {
                let stack = thrown(&params["exceptionDetails"]).stack;
                let text = format!("in the page: {stack}");
                self.host.console(Level::Error, &console::cut(text));
            }
            ("Log.entryAdded", true) => {
                let entry = &params["entry"];
                let word = |name: &str| entry[name].as_str().unwrap_or_default();
                if matches!(word("level"), "error" | "warning") {
                    let text = format!("{}: {} {}", word("level"), word("text"), word("url"));
                    self.host.console(Level::Error, &console::cut(text));
                }
            }
            ("Runtime.bindingCalled", true) if params["name"] == BINDING => {
                return self.on_message(params);
            }
            _ => {}
        }
        None
    }

    fn on_message(&mut self, mut params: Value) -> Option<Fatal> {
        let context = params["executionContextId"].take();
        let payload = params["payload"].as_str().unwrap_or_default();
        let bytes = payload.len();
        let message: Message = match serde_json::from_str(payload) {
            Ok(message) => message,
            Err(error) => {
                // Whose numbers cannot be read cannot be answered by number.
                let id = serde_json::from_str::<Value>(payload).ok()?["id"].as_u64()?;
                let wish = Err(format!("this cannot be asked for: {error}"));
                self.send(Errand { id, context, wish, bytes: 0 });
                return None;
            }
        };
        let id = message.id;
        match message.op.as_str() {
            "lost" => {
                let what = if message.api == "WebGPU" { "device" } else { "context" };
                let mut text = format!("{} {what} lost", message.api);
                if !message.detail.is_empty() {
                    text += &format!(": {}", message.detail);
                }
                let text: String = text.chars().take(500).collect();
                if !self.bears {
                    return Some(Fatal::Lost(text));
                }
                self.host.console(Level::Error, &text);
            }
            "listen" => self.listen(id, context),
            _ => self.send(Errand { id, context, wish: message.wish(), bytes }),
        }
        None
    }

    fn send(&mut self, mut errand: Errand) {
        let waiting = self.pending.fetch_add(errand.bytes, Ordering::Relaxed) + errand.bytes;
        if waiting > MAX_WISHES.1 && waiting > errand.bytes {
            let more = "more is asked for than can be done; await each call";
            self.pending.fetch_sub(errand.bytes, Ordering::Relaxed);
            (errand.wish, errand.bytes) = (Err(more.into()), 0);
        }
        let bytes = errand.bytes;
        if let Err(error) = self.errands.try_send(errand) {
            self.pending.fetch_sub(bytes, Ordering::Relaxed);
            let errand = error.into_inner();
            let Some(page) = self.page.get().cloned() else { return };
            self.jobs.spawn(async move {
                let more = "more than 1024 calls wait; await each of them";
                answer(&page, errand.id, &errand.context, Err(more.into())).await;
            });
        }
    }

    /// The page makes checkpoints when it is asked to, from now on.
    fn listen(&mut self, id: u64, context: Value) {
        let (Some(page), host) = (self.page.get().cloned(), self.host.clone()) else { return };
        self.jobs.spawn(async move {
            answer(&page, id, &context, Ok(None)).await;
            loop {
                host.checkpoint_wanted().await;
                let make = json!({
                    "expression": "__outlast.asked()", "contextId": context, "awaitPromise": true
                });
                match page.call("Runtime.evaluate", make).await {
                    Ok(made) if made.get("exceptionDetails").is_some() => {
                        let why = thrown(&made["exceptionDetails"]).stack;
                        host.console(Level::Error, &console::cut(format!("onCheckpoint: {why}")));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
    }
}

/// The clerk.
async fn serve(
    mut errands: mpsc::Receiver<Errand>,
    page: Arc<OnceLock<Page>>,
    host: Arc<dyn Host>,
    pending: Arc<AtomicUsize>,
) {
    while let Some(Errand { id, context, wish, bytes }) = errands.recv().await {
        let granted = match wish {
            Ok(wish) => host.grant(wish).await,
            Err(why) => Err(why),
        };
        pending.fetch_sub(bytes, Ordering::Relaxed);
        let Some(page) = page.get() else { return };
        answer(page, id, &context, granted).await;
    }
}

async fn answer(page: &Page, id: u64, context: &Value, given: Result<Option<Saved>, String>) {
    let (ok, value) = match given {
        Ok(None) => (true, Value::Null),
        Ok(Some(Saved::Json(json))) => (true, json!({ "json": json })),
        Ok(Some(Saved::Bytes(bytes))) => (true, json!({"bytes": BASE64_STANDARD.encode(bytes)})),
        Err(why) => (false, why.into()),
    };
    let expression = format!("__outlast.answer({id}, {ok}, {value})");
    // A document that is gone needs no answer.
    let tell = json!({"expression": expression, "contextId": context});
    let _ = page.call("Runtime.evaluate", tell).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_or_refused_with_a_reason() {
        let read = |text: &str| serde_json::from_str::<Message>(text).unwrap().wish();
        let wish = read(r#"{"id":1,"op":"checkpoint","bytes":"AQI=","name":"n"}"#).unwrap();
        let data = Saved::Bytes(vec![1, 2]);
        let name = Some("n".to_owned());
        assert_eq!(wish, Wish::Checkpoint { data, name, meta: Map::new() });
        assert_eq!(read(r#"{"id":1,"op":"restore"}"#), Ok(Wish::Restore));
        for (text, names) in [
            (r#"{"id":1,"op":"checkpoint","bytes":"?"}"#, "base64"),
            (r#"{"id":1,"op":"progress","value":null}"#, "number"),
            (r#"{"id":1,"op":"artifact","json":"1"}"#, "name"),
            (r#"{"id":1,"op":"format"}"#, "format"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(names), "{text}: {error}");
        }
    }

    #[test]
    fn a_result_that_no_message_can_carry_is_a_failure() {
        assert_eq!(done("1".into()), End::Done("1".into()));
        assert!(matches!(done("x".repeat(MAX_VALUE + 1)), End::Failed { .. }));
    }
}
