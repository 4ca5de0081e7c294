//! The pump of a page that runs a script: it takes all events of the browser, and never waits for an answer of
//! it. The clerk beside it passes the script's requests on to the host, one after the other.

use crate::cdp::Event;
use crate::console;
use crate::launch::Browser;
use crate::message::Message;
use crate::page::{BINDING, Page, thrown};
use crate::script::{End, Host, Level, Saved, Wish};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Number of requests that may wait, and their bytes together.
pub(crate) const MAX_WISHES: (usize, usize) = (1024, 128 << 20);
/// Time after a failure within which a cause that explains it may be reported.
pub(crate) const HINDSIGHT: Duration = Duration::from_millis(500);

/// A request, and the place where its answer goes.
pub(crate) struct Errand {
    id: u64,
    context: Value,
    wish: Result<Wish, String>,
    bytes: usize,
}

/// An event that ends everything.
pub(crate) enum Fatal {
    /// The browser closed its pipe.
    Gone,
    /// The page's process ended.
    Crash { status: String, code: i64 },
    /// A lost GPU context.
    Lost(String),
    /// The page was closed.
    Closed,
}

impl Fatal {
    /// The end that it means for the script.
    pub async fn end(self, browser: &mut Browser) -> End {
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

/// The state of the pump.
pub(crate) struct Pump {
    pub page: Arc<OnceLock<Page>>,
    pub host: Arc<dyn Host>,
    pub errands: mpsc::Sender<Errand>,
    /// Bytes of the requests that wait.
    pub pending: Arc<AtomicUsize>,
    pub loaded: watch::Sender<bool>,
    pub bears: bool,
    /// The page's process died: when more should be known of it.
    pub crashed: Option<Instant>,
    /// Small answers to the browser.
    pub jobs: JoinSet<()>,
}

impl Pump {
    /// Takes all events until one ends everything.
    pub async fn run(&mut self, events: &mut mpsc::Receiver<Event>) -> Fatal {
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

    /// Passes requests for checkpoints on to the page from now on.
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

/// Works as the clerk.
pub(crate) async fn serve(
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
    let call = json!({"expression": expression, "contextId": context});
    let _ = page.call("Runtime.evaluate", call).await;
}
