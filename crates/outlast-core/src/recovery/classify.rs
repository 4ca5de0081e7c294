//! From evidence to a class: what the executor saw comes first, then the user's rules, then what
//! the task wrote, then its exit code. What nothing tells stays unknown.

use super::FailureClass;
use super::rules::{ADVICE, CHAINED, MUTED, PROGRAM, Patterns, REPORTS, SOFTWARE, SPECIFIC};
use super::said;
use outlast_model::json::Limit;
use outlast_model::recovery::Rule;
use outlast_model::{Cause, TaskOutcome};
use regex::{Regex, RegexBuilder, RegexSet};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::LazyLock;

/// Bytes from the end of each stream that are examined.
const TAIL: usize = 4096;
/// Limits for a failure's details.
const DETAILS: Limit = Limit { bytes: 2 << 20, weight: 4 << 20 };
/// The longest quote, in characters.
const QUOTE: usize = 120;
/// The largest program of a user's pattern, in bytes.
const PATTERN: usize = 1 << 18;

/// Messages of a worker whose machine, not the command, prevented an attempt's start.
const BY_SYSTEM: [&str; 4] = [
    "cannot create the task's files",
    "cannot start ",
    "the system's limit",
    "the system refuses another thread",
];

/// Evidence of an attempt's end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Cause as seen by the worker or the coordinator.
    pub cause: Cause,
    /// Exit code of the process.
    pub exit_code: Option<i32>,
    /// Signal that ended it; 0: none.
    pub signal: i32,
    /// Message of the task, or about it.
    pub message: String,
    /// The end of its standard error, and what a function's failure carried.
    pub stderr: String,
    /// The end of its standard output.
    pub stdout: String,
}

impl Evidence {
    /// Collects the evidence of an outcome.
    pub fn of(outcome: &TaskOutcome, cause: Cause) -> Evidence {
        let tail = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).into_owned()
        };
        let mut stderr = tail(&outcome.stderr_tail);
        if let Ok(value) = DETAILS.read::<Value>(&outcome.value_json) {
            strings(&value, &mut stderr);
        }
        Evidence {
            cause,
            exit_code: outcome.exit_code,
            signal: outcome.signal.unwrap_or_default(),
            message: outcome.message.clone(),
            stderr,
            stdout: tail(&outcome.stdout_tail),
        }
    }

    /// Collects the evidence of an attempt whose end was not reported.
    pub fn silent(cause: Cause, reason: &str) -> Evidence {
        Evidence { cause, message: reason.into(), ..Evidence::default() }
    }
}

/// The strings in a failure's details, such as a traceback.
fn strings(value: &Value, into: &mut String) {
    if into.len() > 2 * TAIL {
        return;
    }
    match value {
        Value::String(text) => {
            into.push('\n');
            into.extend(text.chars().take(TAIL));
        }
        Value::Array(items) => items.iter().for_each(|v| strings(v, into)),
        Value::Object(map) => map.values().for_each(|v| strings(v, into)),
        _ => {}
    }
}

/// A class, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// Class of the failure.
    pub class: FailureClass,
    /// The evidence, for people.
    pub text: String,
    /// True if it blames no worker: the only evidence is standard output, which may quote anything, or it
    /// is an ordinary mistake, such as a command that does not exist.
    pub weak: bool,
    /// The words of the evidence that name the cause.
    pub words: Option<String>,
    /// The replaced system's type, where it is not the one of the class.
    pub failure_type: Option<&'static str>,
}

impl Classified {
    /// Classification by strong evidence.
    pub fn new(class: FailureClass, text: impl Into<String>) -> Classified {
        Classified { class, text: text.into(), weak: false, words: None, failure_type: None }
    }

    /// Describes the failure and what is done about it, for people, with the words and the counts
    /// that it rests on.
    pub fn describe(&self, reason: &str, counted: Option<&str>) -> String {
        let own = self.failure_type() == self.class.failure_type();
        let class = self.class.as_str().to_owned();
        let class = if own { class } else { self.failure_type().to_ascii_lowercase() };
        // Where they are the whole line they are quoted already.
        let words = self.words.as_ref().filter(|w| !self.text.ends_with(&quote(w)));
        let by = words.map(|w| format!(", by {w:?}")).unwrap_or_default();
        let counted = counted.map(|c| format!("; {c}")).unwrap_or_default();
        format!("{class} ({}{by}): {reason}{counted}", self.text)
    }

    /// The replaced system's name for what happened.
    pub fn failure_type(&self) -> &'static str {
        self.failure_type.unwrap_or_else(|| self.class.failure_type())
    }
}

/// A user's rules, compiled.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<(Regex, Rule)>);

impl Rules {
    /// Compiles them.
    ///
    /// # Errors
    /// Which pattern is no regular expression, and why.
    pub fn new(rules: &[Rule]) -> Result<Rules, String> {
        let compile = |rule: &Rule| {
            let built = RegexBuilder::new(&rule.pattern).size_limit(PATTERN).build();
            match built {
                Ok(regex) => Ok((regex, rule.clone())),
                Err(e) => Err(format!("rules: {:?} is no pattern: {e}", rule.pattern)),
            }
        };
        rules.iter().map(compile).collect::<Result<_, _>>().map(Rules)
    }

    /// Iterates over the rules in their given order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().map(|(_, rule)| rule)
    }

    fn find(&self, e: &Evidence) -> Option<Classified> {
        let texts = [("stderr", &e.stderr), ("its message", &e.message), ("stdout", &e.stdout)];
        for (regex, rule) in &self.0 {
            for (what, text) in texts {
                if let Some(line) = text.lines().rev().find(|l| regex.is_match(l)) {
                    let text = format!("{what}: {}, by rule {:?}", quote(line), rule.pattern);
                    return Some(Classified::new(rule.class, text));
                }
            }
        }
        None
    }
}

struct BuiltIn {
    specific: Patterns,
    software: RegexSet,
    muted: RegexSet,
    advice: Regex,
    reports: Regex,
    program: Regex,
    chained: Regex,
}

static BUILT_IN: LazyLock<BuiltIn> = LazyLock::new(|| {
    let set = |patterns: Vec<&str>| RegexSet::new(patterns).expect("a test compiles them");
    let one = |pattern| Regex::new(pattern).expect("a test compiles them");
    BuiltIn {
        specific: Patterns::new(SPECIFIC.iter().map(|(_, p)| *p)),
        software: set(SOFTWARE.to_vec()),
        muted: set(MUTED.to_vec()),
        advice: one(ADVICE),
        reports: one(REPORTS),
        program: one(PROGRAM),
        chained: one(CHAINED),
    }
});

/// Classifies what a task's attempt left. `rules` are tried in order before the built-in ones, for
/// what the task itself did.
pub fn classify<'a>(e: &Evidence, rules: impl IntoIterator<Item = &'a Rules>) -> Classified {
    by(e, rules, false)
}

/// Classifies what a program reports of a failure: its message may also be about the worker, and
/// say in words how the process ended.
pub fn reported<'a>(e: &Evidence, rules: impl IntoIterator<Item = &'a Rules>) -> Classified {
    let mut e = e.clone();
    if let Some(code) = e.exit_code.filter(|code| *code < 0 && e.signal == 0) {
        // As Python's subprocess counts.
        (e.exit_code, e.signal) = (None, code.saturating_neg());
    }
    if e.exit_code.is_none() && e.signal == 0 {
        (e.exit_code, e.signal) = said::ended(&e.message);
        if let Some(code) = e.exit_code.filter(|code| *code < 0) {
            (e.exit_code, e.signal) = (None, -code);
        }
    }
    by(&e, rules, true)
}

fn by<'a>(e: &Evidence, rules: impl IntoIterator<Item = &'a Rules>, reported: bool) -> Classified {
    use FailureClass as F;
    let seen = |class, text: &str| Classified::new(class, text);
    match e.cause {
        Cause::OutOfMemory => return seen(F::OutOfMemory, &e.message),
        Cause::TimedOut => return seen(F::Timeout, &e.message),
        Cause::Disk => return seen(F::Disk, &e.message),
        Cause::NotStarted => {
            let weak = !BY_SYSTEM.iter().any(|words| e.message.contains(words));
            return Classified { weak, ..seen(F::NotStarted, &e.message) };
        }
        Cause::WorkerCrashed => return seen(F::WorkerCrash, &e.message),
        Cause::Network | Cause::Forgotten | Cause::Lost => return seen(F::WorkerLost, &e.message),
        Cause::Stopped | Cause::Drained | Cause::Moved | Cause::AskedBack | Cause::Machine => {
            return seen(F::WorkerStopped, &e.message);
        }
        Cause::Unspecified
        | Cause::Done
        | Cause::Exit
        | Cause::Signal
        | Cause::Cancelled
        | Cause::Superseded => {}
    }
    if let Some(found) = rules.into_iter().find_map(|r| r.find(e)) {
        return found;
    }
    let message = Reader::Message { reported };
    let last = e.message.lines().last().unwrap_or_default().trim();
    // A traceback ends with the message, and says no more than it.
    let stderr = Reader::Stderr { message: last, reported };
    let texts = [("stderr", &e.stderr), ("its message", &e.message), ("stdout", &e.stdout)];
    let mut software = None;
    for ((what, text), reader) in texts.into_iter().zip([stderr, message, Reader::Stdout]) {
        match read(text, reader) {
            Some(Found { class: F::Software, line, last_word: last, .. }) => {
                software.get_or_insert((what, line));
                if last {
                    break;
                }
            }
            Some(Found { class, line, words, failure_type, .. }) => {
                let text = format!("{what}: {}", quote(line));
                let weak = matches!(reader, Reader::Stdout);
                return Classified { class, text, weak, words, failure_type };
            }
            None => {}
        }
    }
    if let Some(found) = by_end(e, software.is_some()) {
        return found;
    }
    match software {
        Some((what, line)) => Classified::new(F::Software, format!("{what}: {}", quote(line))),
        None => Classified::new(F::Unknown, unknown(e)),
    }
}

/// A text, by who reads what in it.
#[derive(Clone, Copy)]
enum Reader<'a> {
    /// Standard error, and the last line of the message that may stand in it.
    Stderr { message: &'a str, reported: bool },
    /// The message of a failure: whatever it states is meant.
    Message { reported: bool },
    /// Standard output, which mentions anything: only lines that report an error name a cause.
    Stdout,
}

impl Reader<'_> {
    /// Returns true if the line is the message itself, of a failure that is `reported`.
    fn is_message(self, line: &str) -> bool {
        match self {
            Self::Message { reported } => reported,
            Self::Stderr { message, reported } => {
                reported && !message.is_empty() && line.trim_end().ends_with(message)
            }
            Self::Stdout => false,
        }
    }

    /// Returns true if the line may state anything. Source lines of a traceback, which are indented,
    /// do not.
    fn may_state(self, line: &str, said: &str) -> bool {
        let reports = || !line.starts_with("    ") && BUILT_IN.reports.is_match(said);
        match self {
            Self::Message { .. } => true,
            Self::Stderr { .. } => self.is_message(line) || reports(),
            Self::Stdout => false,
        }
    }
}

/// The finding in a text.
struct Found<'a> {
    class: FailureClass,
    /// The line that says it.
    line: &'a str,
    /// True if no other text takes precedence.
    last_word: bool,
    /// The words in it that name a cause.
    words: Option<String>,
    failure_type: Option<&'static str>,
}

impl<'a> Found<'a> {
    fn software(line: &'a str, last_word: bool) -> Found<'a> {
        let class = FailureClass::Software;
        Found { class, line, last_word, words: None, failure_type: None }
    }

    fn stated(of: said::Said, line: &'a str) -> Found<'a> {
        let said::Said { class, failure_type, words } = of;
        Found { class, line, last_word: true, words: Some(words), failure_type }
    }
}

/// Returns true for classes that name the failed part. They come before how it was noticed, such as
/// by a timeout.
fn is_subject(class: FailureClass) -> bool {
    use FailureClass as F;
    matches!(class, F::BrowserCrash | F::ContextLost | F::WorkerCrash | F::WorkerLost)
}

/// Reads a text from its end.
fn read<'a>(text: &'a str, reader: Reader<'_>) -> Option<Found<'a>> {
    let built = &*BUILT_IN;
    let printed = matches!(reader, Reader::Stdout);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let chained = lines.iter().any(|l| built.chained.is_match(l));
    let (mut software, mut statement) = (None, None);
    for line in lines.iter().rev() {
        if built.muted.is_match(line) {
            continue;
        }
        // An error may end with advice, and the advice names another one.
        let said: Cow<'_, str> = built.advice.replace_all(line, "");
        let (names, states) = (built.specific.is_match(&said), reader.may_state(line, &said));
        // Most lines neither name nor state anything.
        let said = match names || states {
            true => Cow::Owned(said::unmasked(&said).into_owned()),
            false => said,
        };
        let stated = || states.then(|| said::stated(&said, reader.is_message(line)))?;
        let specific = names.then(|| built.specific.find(&said, |_| true)).flatten();
        if let Some((n, words)) = specific.filter(|_| !printed || built.reports.is_match(&said)) {
            let class = SPECIFIC[n].0;
            if matches!(class, FailureClass::Network | FailureClass::Timeout)
                && let Some(of) = stated().filter(|s| is_subject(s.class))
            {
                return Some(Found::stated(of, line));
            }
            let words = Some(words);
            return Some(Found { class, line, last_word: true, words, failure_type: None });
        }
        if built.program.is_match(line) {
            if !chained {
                return statement.or_else(|| Some(Found::software(line, true)));
            }
            software.get_or_insert(*line);
        } else if let Some(of) = stated().filter(|_| statement.is_none()) {
            // Another line may name the cause of it.
            statement = Some(Found::stated(of, line));
        } else if built.software.is_match(line) {
            software.get_or_insert(*line);
        }
    }
    statement.or_else(|| software.map(|line| Found::software(line, false)))
}

/// Classifies by the end of the process alone.
fn by_end(e: &Evidence, told: bool) -> Option<Classified> {
    use FailureClass as F;
    let shell = e.exit_code.filter(|c| (129..=159).contains(c)).map(|c| c - 128);
    let signal = if e.signal > 0 { Some(e.signal) } else { shell };
    let class = match (signal, e.exit_code) {
        // SIGXCPU, SIGXFSZ
        (Some(24), _) => F::Timeout,
        (Some(25), _) => F::Disk,
        // SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS
        (Some(4..=8 | 11 | 31), _) => F::Software,
        // timeout(1)
        (None, Some(124)) if !told => F::Timeout,
        // A shell that cannot run a command.
        (None, Some(126 | 127)) => F::NotStarted,
        _ => return None,
    };
    let weak = class == F::NotStarted;
    Some(Classified { weak, ..Classified::new(class, e.message.as_str()) })
}

fn unknown(e: &Evidence) -> String {
    let how = if e.message.is_empty() { "it failed" } else { &e.message };
    let killed = e.signal == 9 || e.exit_code == Some(137);
    match killed {
        true => format!("{how}; nothing tells who killed it"),
        false => format!("{how}; its output does not show the reason"),
    }
}

pub(super) fn quote(line: &str) -> String {
    let line = line.trim();
    match line.chars().count() > QUOTE {
        true => format!("\"{}…\"", line.chars().take(QUOTE).collect::<String>().trim_end()),
        false => format!("\"{line}\""),
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
