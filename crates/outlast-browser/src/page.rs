//! One page: opened with our object in it, and evaluated in.

use crate::cdp::{Cdp, CdpError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// Script that runs in every page before the page's own scripts.
const API: &str = include_str!("page.js");
/// The name of the function by which the page speaks to us.
pub(crate) const BINDING: &str = "__outlast_send";
/// Address of a page that comes from no server. HTTPS, since WebGPU requires a secure origin; the
/// name is reserved and can never exist.
pub(crate) const OWN: &str = "https://task.outlast.invalid/";
/// The name that a script has in stack traces.
const SCRIPT: &str = "task.js";

/// An exception that a script threw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thrown {
    /// Message with its type, such as `TypeError: x is not a function`.
    pub message: String,
    /// The message, and where it was thrown.
    pub stack: String,
}

/// Reason why an evaluation returned no value.
#[derive(Debug)]
pub(crate) enum EvalError {
    Thrown(Thrown),
    Cdp(CdpError),
}

impl From<CdpError> for EvalError {
    fn from(error: CdpError) -> EvalError {
        EvalError::Cdp(error)
    }
}

#[derive(Clone)]
pub(crate) struct Page {
    pub cdp: Cdp,
    pub target: String,
    pub session: String,
    /// Document that is served at [`OWN`].
    html: String,
}

impl Page {
    /// A blank page with a session, of which nothing is heard yet.
    pub async fn open(cdp: &Cdp, html: &str) -> Result<Page, CdpError> {
        let context = cdp.call(None, "Target.createBrowserContext", json!({})).await?;
        let blank = json!({
            "url": "about:blank", "browserContextId": context["browserContextId"]
        });
        let made = cdp.call(None, "Target.createTarget", blank).await?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let target = text(&made["targetId"]);
        let attach = json!({"targetId": target, "flatten": true});
        let session = text(&cdp.call(None, "Target.attachToTarget", attach).await?["sessionId"]);
        Ok(Page { cdp: cdp.clone(), target, session, html: html.into() })
    }

    /// Subscribes to the page's events, and installs the `outlast` object with these values in its
    /// documents.
    pub async fn prepare(&self, known: &Value) -> Result<(), CdpError> {
        // JSON is JavaScript.
        let source =
            format!("{API}\n;globalThis.__outlast?.begin({known});\n//# sourceURL=outlast-api.js");
        for (method, params) in [
            ("Page.enable", json!({})),
            ("Runtime.enable", json!({})),
            ("Log.enable", json!({})),
            ("Inspector.enable", json!({})),
            ("Fetch.enable", json!({"patterns": [{"urlPattern": format!("{OWN}*")}]})),
            ("Runtime.addBinding", json!({"name": BINDING})),
            ("Page.addScriptToEvaluateOnNewDocument", json!({"source": source})),
        ] {
            self.call(method, params).await?;
        }
        Ok(())
    }

    pub async fn call(&self, method: &str, params: Value) -> Result<Value, CdpError> {
        self.cdp.call(Some(&self.session), method, params).await
    }

    /// Goes somewhere; that it is there is an event.
    pub async fn go(&self, url: &str) -> Result<(), EvalError> {
        let went = self.call("Page.navigate", json!({"url": url})).await?;
        match went["errorText"].as_str() {
            Some(why) => {
                let message = format!("{url}: {why}");
                Err(EvalError::Thrown(Thrown { stack: message.clone(), message }))
            }
            None => Ok(()),
        }
    }

    /// Answers a request for [`OWN`]; of all else below it there is nothing.
    pub async fn serve(&self, request: &Value) -> Result<(), CdpError> {
        let at = request["request"]["url"].as_str().unwrap_or_default();
        let (code, body) = match at.strip_prefix(OWN) {
            Some("") => (200, self.html.as_str()),
            // Every browser looks for it, and nobody wants to read of that.
            Some("favicon.ico") => (204, ""),
            _ => (404, ""),
        };
        let answer = json!({
            "requestId": request["requestId"],
            "responseCode": code,
            "responseHeaders": [{"name": "content-type", "value": "text/html; charset=utf-8"}],
            "body": BASE64_STANDARD.encode(body),
        });
        self.call("Fetch.fulfillRequest", answer).await.map(drop)
    }

    /// Runs the script as a console would, `await` and all, and then what it made: a function of
    /// the task, or a value. The result is JSON.
    pub async fn run(&self, script: &str) -> Result<String, EvalError> {
        let source = format!("{script}\n//# sourceURL={SCRIPT}");
        let made = self.evaluate(&source).await?;
        let api = self.evaluate("__outlast").await?;
        let mut argument = json!({});
        for field in ["objectId", "value", "unserializableValue"] {
            if let Some(given) = made.get(field) {
                argument[field] = given.clone();
            }
        }
        let run = json!({
            "objectId": api["objectId"],
            "functionDeclaration": "function (made) { return this.run(made) }",
            "arguments": [argument],
            "awaitPromise": true,
            "returnByValue": true,
        });
        let answer = self.call("Runtime.callFunctionOn", run).await?;
        let result = outcome(answer)?;
        Ok(result["value"].as_str().unwrap_or("null").to_owned())
    }

    /// Evaluates, and waits for what is promised.
    pub async fn evaluate(&self, source: &str) -> Result<Value, EvalError> {
        let ask = json!({"expression": source, "awaitPromise": true, "replMode": true});
        outcome(self.call("Runtime.evaluate", ask).await?)
    }

    /// Evaluates what gives a value that JSON can say.
    pub async fn value(&self, source: &str) -> Result<Value, EvalError> {
        let ask = json!({"expression": source, "awaitPromise": true, "returnByValue": true});
        let mut found = outcome(self.call("Runtime.evaluate", ask).await?)?;
        Ok(found["value"].take())
    }
}

fn outcome(mut answer: Value) -> Result<Value, EvalError> {
    match answer.get("exceptionDetails") {
        Some(details) => Err(EvalError::Thrown(thrown(details))),
        None => Ok(answer["result"].take()),
    }
}

/// Formats an exception without frames of this crate's scripts.
pub(crate) fn thrown(details: &Value) -> Thrown {
    let exception = &details["exception"];
    let text = match (exception["description"].as_str(), &exception["value"]) {
        (Some(text), _) => text.to_owned(),
        (None, Value::String(text)) => format!("Uncaught {text}"),
        (None, Value::Null) => details["text"].as_str().unwrap_or("Uncaught").to_owned(),
        (None, value) => format!("Uncaught {value}"),
    };
    let ours = |line: &str| line.contains("outlast-api.js") || line.contains("(<anonymous>:");
    let mut stack: Vec<&str> = text.lines().filter(|l| !ours(l)).collect();
    // A mistake in the syntax has no stack, but a place.
    let place = format!(
        "    at {SCRIPT}:{}:{}",
        details["lineNumber"].as_u64().unwrap_or_default() + 1,
        details["columnNumber"].as_u64().unwrap_or_default() + 1
    );
    let of_script = details["url"] == SCRIPT || details["lineNumber"].is_u64();
    if stack.len() < 2 && of_script {
        stack.push(&place);
    }
    let message = stack.iter().take_while(|l| !l.starts_with("    at ")).copied();
    let message = message.collect::<Vec<_>>().join("\n");
    Thrown { message, stack: stack.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_read_as_in_a_console() {
        let stack = "TypeError: a is no b\n    at run (task.js:2:3)\n    at Object.run (outlast-api.js:9:9)";
        let error = thrown(&json!({"exception": {"description": stack}}));
        assert_eq!(error.message, "TypeError: a is no b");
        assert_eq!(error.stack, "TypeError: a is no b\n    at run (task.js:2:3)");
        let error = thrown(&json!({
            "lineNumber": 4, "columnNumber": 2,
            "exception": {"description": "SyntaxError: Unexpected token"}
        }));
        assert_eq!(error.stack, "SyntaxError: Unexpected token\n    at task.js:5:3");
        assert_eq!(thrown(&json!({"exception": {"value": "no"}})).message, "Uncaught no");
    }
}
