//! The run of a script in a page, from its start to its end: the page is opened and loaded, the script runs, and
//! the pump works beside it.

use crate::cdp::CdpError;
use crate::launch::Browser;
use crate::page::{EvalError, OWN, Page};
use crate::pump::{Fatal, HINDSIGHT, MAX_WISHES, Pump, serve};
use crate::script::{End, Host, Script};
use serde_json::json;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The largest result, in bytes of JSON.
pub const MAX_VALUE: usize = 1 << 20;
/// Time that a page may take to load.
const LOAD: Duration = Duration::from_secs(60);
/// Time that the last requests of a script that has ended may take.
const LAST_WISHES: Duration = Duration::from_secs(30);

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
        // Something else may be the reason, and be reported soon.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_no_message_can_carry_is_a_failure() {
        assert_eq!(done("1".into()), End::Done("1".into()));
        assert!(matches!(done("x".repeat(MAX_VALUE + 1)), End::Failed { .. }));
    }
}
