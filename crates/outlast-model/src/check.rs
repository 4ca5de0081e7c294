//! Checks of the values of a specification's fields, as far as their types allow too much.

use crate::spec::{
    Browser, Call, MAX_KNOBS, MAX_LABEL, MAX_LABELS, MAX_TASK_ID, MAX_WORDS, Run, SpecError,
    TaskSpec, bad,
};
use crate::trace::{MAX_TRACESTATE, TraceParent, is_tracestate};
use serde_json::Value;

impl TaskSpec {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`SpecError::Field`] for the first field that cannot be used.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_run()?;
        self.check_times()?;
        self.check_sizes()?;
        if !self.traceparent.is_empty() && TraceParent::parse(&self.traceparent).is_none() {
            return bad("traceparent", "must be like 00-TRACE-SPAN-01 (W3C Trace Context)");
        }
        if !self.tracestate.is_empty() && !is_tracestate(&self.tracestate) {
            let problem = format!("must be printable ASCII, {MAX_TRACESTATE} bytes at most");
            return bad("tracestate", problem);
        }
        if let Some(recovery) = &self.recovery
            && let Err(problem) = recovery.check()
        {
            return bad("recovery", problem);
        }
        self.check_knobs()
    }

    fn check_run(&self) -> Result<(), SpecError> {
        match &self.run {
            Run::Command(argv) if argv.is_empty() || argv[0].is_empty() => {
                return bad("command", "is empty; give a program and its arguments");
            }
            Run::Command(argv) if argv.len() > MAX_WORDS => {
                return bad("command", format!("more than {MAX_WORDS} arguments"));
            }
            Run::Command(argv) if argv.iter().any(|a| a.contains('\0')) => {
                return bad("command", "contains a NUL character");
            }
            Run::Shell(line) if line.trim().is_empty() => return bad("shell", "is empty"),
            Run::Shell(line) if line.contains('\0') => {
                return bad("shell", "contains a NUL character");
            }
            Run::Call(call) if call.function.is_empty() => return bad("call", "names no function"),
            Run::Browser(browser) => browser.check()?,
            _ => {}
        }
        if self.env.len() > MAX_WORDS {
            return bad("env", format!("more than {MAX_WORDS} variables"));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return bad("env", format!("{name:?} is no usable variable"));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), SpecError> {
        for (field, value) in [
            ("timeout", self.timeout.unwrap_or(1.0)),
            ("kill_grace", self.kill_grace),
            ("reconnect_window", self.reconnect_window),
            ("checkpoint_interval", self.checkpoint_interval.unwrap_or(1.0)),
            ("keep_checkpoints", self.keep_checkpoints.every.unwrap_or(1.0)),
        ] {
            if !value.is_finite() || !(0.0..=1e9).contains(&value) {
                return bad(field, format!("{value} is not a number of seconds from 0 to 1e9"));
            }
        }
        if self.timeout == Some(0.0) {
            return bad("timeout", "is 0; leave it out for no limit");
        }
        if self.checkpoint_interval.is_some_and(|s| s < 1.0) {
            return bad("checkpoint_interval", "is less than a second; leave it out for never");
        }
        if self.keep_checkpoints.every.is_some_and(|s| s < 1.0) {
            return bad("keep_checkpoints", "every is less than a second");
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), SpecError> {
        if !(1..=1000).contains(&self.keep_checkpoints.last) {
            return bad("keep_checkpoints", "last must be from 1 to 1000");
        }
        if let Some(signal) = &self.checkpoint_signal
            && !["USR1", "USR2", "HUP"].contains(&signal.as_str())
        {
            return bad("checkpoint_signal", format!("{signal:?} is none of USR1, USR2, HUP"));
        }
        if self.slots == 0 || self.slots > 1_000_000 {
            return bad("slots", "must be from 1 to 1000000");
        }
        if self.labels.len() > MAX_LABELS || self.requires.len() > MAX_LABELS {
            return bad("labels", format!("more than {MAX_LABELS} entries"));
        }
        let long = |(name, value): (&String, &String)| name.len().max(value.len()) > MAX_LABEL;
        if self.labels.iter().any(long) || self.requires.iter().any(long) {
            return bad("labels", format!("a name or value of more than {MAX_LABEL} bytes"));
        }
        if self.queue.len() > MAX_TASK_ID {
            return bad("queue", format!("longer than {MAX_TASK_ID} bytes"));
        }
        if self.task_type.len() > MAX_TASK_ID {
            return bad("type", format!("longer than {MAX_TASK_ID} bytes"));
        }
        Ok(())
    }

    fn check_knobs(&self) -> Result<(), SpecError> {
        let (most, longest) = MAX_KNOBS;
        if self.knobs.len() > most {
            return bad("knobs", format!("more than {most}"));
        }
        for (name, values) in &self.knobs {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                return bad("knobs", format!("{name:?} must be 1 to 64 of a-z 0-9 _"));
            }
            if values.is_empty() || values.len() > longest {
                return bad("knobs", format!("{name} must have 1 to {longest} values"));
            }
            let plain = |v: &Value| match v {
                Value::String(s) => s.len() <= 256 && !s.contains('\0'),
                Value::Number(_) | Value::Bool(_) => true,
                _ => false,
            };
            if let Some(value) = values.iter().find(|v| !plain(v)) {
                let what = "is no number, boolean or string of at most 256 bytes";
                return bad("knobs", format!("{name}: {value} {what}"));
            }
            if let Some((_, value)) =
                values.iter().enumerate().find(|(n, v)| values[..*n].contains(v))
            {
                return bad("knobs", format!("{name} has {value} twice; each step must differ"));
            }
        }
        if self.knobs.is_empty() {
            return Ok(());
        }
        match &self.run {
            Run::Command(argv) => argv.iter().try_for_each(|a| self.check_placeholders(a)),
            Run::Shell(line) => self.check_placeholders(line),
            Run::Call(Call { args, .. }) | Run::Browser(Browser { args, .. })
                if args.is_object() || args.is_null() =>
            {
                Ok(())
            }
            Run::Call(_) | Run::Browser(_) => {
                bad("knobs", "need args to be an object, which they become part of")
            }
        }
    }

    fn check_placeholders(&self, text: &str) -> Result<(), SpecError> {
        for rest in text.split("{knob.").skip(1) {
            let name = rest.split('}').next().unwrap_or(rest);
            if !self.knobs.contains_key(name) {
                return bad("knobs", format!("{{knob.{name}}} names none of them"));
            }
        }
        Ok(())
    }
}

impl Browser {
    fn check(&self) -> Result<(), SpecError> {
        if self.script.trim().is_empty() {
            return bad("browser", "script is empty; give JavaScript such as async (task) => 1");
        }
        let page = self.page.trim_start();
        let schemes = ["http://", "https://", "file://", "about:", "data:"];
        if !page.is_empty()
            && !page.starts_with('<')
            && !schemes.iter().any(|s| page.starts_with(s))
        {
            let what = "is neither a URL (http, https, file) nor HTML, which begins with <";
            return bad("browser", format!("page {:?} {what}", first(page, 60)));
        }
        Ok(())
    }
}

fn first(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
