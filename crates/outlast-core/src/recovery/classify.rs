//! From evidence to a class: what the executor saw comes first, then the user's rules, then what
//! the task wrote, then its exit code. What nothing tells stays unknown.

use super::FailureClass;
use super::rules::{ADVICE, CHAINED, MUTED, PROGRAM, REPORTS, SOFTWARE, SPECIFIC};
use outlast_wire::json::Limit;
use outlast_wire::recovery::Rule;
use outlast_wire::v2::{Cause, TaskOutcome};
use regex::{Regex, RegexBuilder, RegexSet};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::LazyLock;

/// How much of each stream is looked at, in bytes from its end.
const TAIL: usize = 4096;
/// What is looked at of a failure's details.
const DETAILS: Limit = Limit { bytes: 2 << 20, weight: 4 << 20 };
/// The longest quote, in characters.
const QUOTE: usize = 120;
/// The largest program of a user's pattern, in bytes.
const PATTERN: usize = 1 << 18;

/// What a worker says when its machine, not the command, is why an attempt did not start.
const BY_SYSTEM: [&str; 4] = [
    "cannot create the task's files",
    "cannot start ",
    "the system's limit",
    "the system refuses another thread",
];

/// What is known of how an attempt ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// As the worker or the coordinator saw it.
    pub cause: Cause,
    /// Of the process.
    pub exit_code: Option<i32>,
    /// That ended it; 0: none.
    pub signal: i32,
    /// What it said of itself, or was said of it.
    pub message: String,
    /// The end of its standard error, and what a function's failure carried.
    pub stderr: String,
    /// The end of its standard output.
    pub stdout: String,
}

impl Evidence {
    /// Of an outcome.
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
            exit_code: outcome.has_exit_code.then_some(outcome.exit_code),
            signal: outcome.signal,
            message: outcome.message.clone(),
            stderr,
            stdout: tail(&outcome.stdout_tail),
        }
    }

    /// Of an attempt that nobody heard the end of.
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
    /// What happened.
    pub class: FailureClass,
    /// The evidence, for people.
    pub text: String,
    /// It blames no worker: only standard output says so, which may quote anything, or it is an
    /// ordinary mistake, such as a command that does not exist.
    pub weak: bool,
}

impl Classified {
    /// By evidence that counts.
    pub fn new(class: FailureClass, text: impl Into<String>) -> Classified {
        Classified { class, text: text.into(), weak: false }
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

    /// As they were given.
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
    specific: RegexSet,
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
        specific: set(SPECIFIC.iter().map(|(_, p)| *p).collect()),
        software: set(SOFTWARE.to_vec()),
        muted: set(MUTED.to_vec()),
        advice: one(ADVICE),
        reports: one(REPORTS),
        program: one(PROGRAM),
        chained: one(CHAINED),
    }
});

/// Classifies. `rules` are tried in order before the built-in ones, for what the task itself did.
pub fn classify<'a>(e: &Evidence, rules: impl IntoIterator<Item = &'a Rules>) -> Classified {
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
    let texts = [("stderr", &e.stderr), ("its message", &e.message), ("stdout", &e.stdout)];
    let mut software = None;
    for (what, text) in texts {
        let printed = what == "stdout";
        match read(text, printed) {
            Some(Found { class: F::Software, line, last_word }) => {
                software.get_or_insert((what, line));
                if last_word {
                    break;
                }
            }
            Some(Found { class, line, .. }) => {
                let text = format!("{what}: {}", quote(line));
                return Classified { class, text, weak: printed };
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

/// What a text says.
struct Found<'a> {
    class: FailureClass,
    /// The line that says it.
    line: &'a str,
    /// Nothing that is said elsewhere counts more.
    last_word: bool,
}

/// What a text says. Of what was `printed` to standard output, which tells anything, only lines
/// that report an error name a cause.
fn read(text: &str, printed: bool) -> Option<Found<'_>> {
    let built = &*BUILT_IN;
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let chained = lines.iter().any(|l| built.chained.is_match(l));
    let mut software = None;
    for line in lines.iter().rev() {
        if built.muted.is_match(line) {
            continue;
        }
        // An error may end with advice, and the advice names another one.
        let said: Cow<'_, str> = built.advice.replace_all(line, "");
        let specific = built.specific.matches(&said).iter().next();
        if let Some(n) = specific.filter(|_| !printed || built.reports.is_match(&said)) {
            return Some(Found { class: SPECIFIC[n].0, line, last_word: true });
        }
        if built.program.is_match(line) {
            if !chained {
                return Some(Found { class: FailureClass::Software, line, last_word: true });
            }
            software.get_or_insert(*line);
        } else if built.software.is_match(line) {
            software.get_or_insert(*line);
        }
    }
    software.map(|line| Found { class: FailureClass::Software, line, last_word: false })
}

/// What the way in which the process ended says by itself.
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
        false => format!("{how}; nothing that it wrote tells why"),
    }
}

fn quote(line: &str) -> String {
    let line = line.trim();
    match line.chars().count() > QUOTE {
        true => format!("\"{}…\"", line.chars().take(QUOTE).collect::<String>().trim_end()),
        false => format!("\"{line}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(stderr: &str) -> Evidence {
        let message = "exit code 1".into();
        let stderr = stderr.into();
        Evidence { cause: Cause::Exit, exit_code: Some(1), message, stderr, ..Evidence::default() }
    }

    fn class(e: &Evidence) -> FailureClass {
        classify(e, []).class
    }

    #[test]
    fn what_the_executor_saw_comes_first() {
        let mut e = exit("Traceback (most recent call last):\nValueError: x");
        assert_eq!(class(&e), FailureClass::Software);
        e.cause = Cause::OutOfMemory;
        assert_eq!(class(&e), FailureClass::OutOfMemory);
    }

    #[test]
    fn unknown_says_so() {
        let found = classify(&exit("done 3 of 4\n"), []);
        assert_eq!(found.class, FailureClass::Unknown);
        assert_eq!(found.text, "exit code 1; nothing that it wrote tells why");
        let mut killed = exit("");
        (killed.signal, killed.message) = (9, "killed by signal 9 (SIGKILL)".into());
        let found = classify(&killed, []);
        assert_eq!(found.class, FailureClass::Unknown);
        assert!(found.text.contains("nothing tells who killed it"), "{}", found.text);
    }

    #[test]
    fn a_users_rule_beats_the_built_in_ones() {
        let rule = Rule { pattern: "flux [0-9]+".into(), class: FailureClass::Device };
        let rules = Rules::new(&[rule]).unwrap();
        let found = classify(&exit("flux 88 decoupled\nMemoryError"), [&rules]);
        assert_eq!(found.class, FailureClass::Device);
        assert_eq!(found.text, "stderr: \"flux 88 decoupled\", by rule \"flux [0-9]+\"");
        let bad = Rule { pattern: "x{9999}{9999}".into(), class: FailureClass::Device };
        assert!(Rules::new(&[bad]).is_err());
    }

    #[test]
    fn the_way_a_process_ends_tells_where_its_words_do_not() {
        let end = |signal, code: Option<i32>| Evidence {
            cause: Cause::Signal,
            signal,
            exit_code: code,
            ..Evidence::default()
        };
        assert_eq!(class(&end(11, None)), FailureClass::Software);
        assert_eq!(class(&end(0, Some(139))), FailureClass::Software);
        assert_eq!(class(&end(24, None)), FailureClass::Timeout);
        assert_eq!(class(&end(0, Some(124))), FailureClass::Timeout);
        assert_eq!(class(&end(0, Some(127))), FailureClass::NotStarted);
        assert_eq!(class(&end(15, None)), FailureClass::Unknown);
        // A crash whose words name the cause.
        let mut e = end(6, None);
        e.stderr = "terminate called after throwing an instance of 'std::bad_alloc'".into();
        assert_eq!(class(&e), FailureClass::OutOfMemory);
    }

    #[test]
    fn what_is_printed_overrules_no_exception_and_must_report_an_error() {
        let mut e = exit("Traceback (most recent call last):\nValueError: lr must be positive\n");
        e.stdout = "config: out of memory guard enabled, CUDA error checks on\n\
            ERROR: CUDA error: unspecified launch failure\n"
            .into();
        let found = classify(&e, []);
        assert_eq!(found.class, FailureClass::Software);
        assert!(found.text.contains("ValueError"), "{}", found.text);
        // Without an exception, what it prints about its settings tells nothing.
        for printed in [
            "CUDA error checks enabled",
            "--guard out of memory guard is enabled",
            "config: out of memory guard enabled, CUDA error checks on",
        ] {
            e = Evidence { stdout: printed.into(), ..exit("") };
            assert_eq!(class(&e), FailureClass::Unknown, "{printed}");
        }
        // An error that it prints does, but its worker is not blamed for what only it says.
        for printed in [
            "RuntimeError: CUDA error: unspecified launch failure",
            "[ERROR] worker 3: CUDA error 700",
            "2024-01-01 12:00:00 ERROR train - CUDA error 700",
            "step 7 failed with CUDA error 700",
        ] {
            e = Evidence { stdout: printed.into(), ..exit("") };
            let found = classify(&e, []);
            assert_eq!((found.class, found.weak), (FailureClass::Device, true), "{printed}");
            e = exit(printed);
            assert_eq!(classify(&e, []).class, FailureClass::Device);
            assert!(!classify(&e, []).weak);
        }
    }

    #[test]
    fn advice_does_not_hide_an_error_and_is_none() {
        use FailureClass as F;
        for (line, wanted) in [
            ("ERROR: could not extend file \"base/1/2\": No space left on device", F::Disk),
            ("could not connect to server: Connection timed out", F::Network),
            ("RuntimeError: could not create a primitive, out of memory", F::OutOfMemory),
            ("Could not allocate memory: out of memory", F::OutOfMemory),
            ("write would exceed quota: No space left on device", F::Disk),
            (
                "MemoryError: Unable to allocate 3 GiB; reduce the batch size if it runs out of memory",
                F::OutOfMemory,
            ),
            ("Could not reserve enough space for 2097152KB object heap", F::OutOfMemory),
            // What may happen has not.
            ("a larger batch may cause CUDA out of memory", F::Unknown),
            ("this could lead to an out of memory condition", F::Unknown),
            ("if you run out of memory, reduce the batch size", F::Unknown),
            ("reduce the batch size to avoid out-of-memory", F::Unknown),
        ] {
            assert_eq!(class(&exit(line)), wanted, "{line}");
        }
    }

    #[test]
    fn what_any_program_may_say_blames_no_machine() {
        use FailureClass as F;
        assert_eq!(class(&exit("Bus error (core dumped)")), F::Software);
        assert_eq!(class(&exit("supervisor: Killed process 4321 at the user's wish")), F::Unknown);
        let kernel = "Memory cgroup out of memory: Killed process 4321 (py)";
        assert_eq!(class(&exit(kernel)), F::OutOfMemory);
        assert_ne!(class(&exit("split: write error: File too large")), F::Disk);
        assert_ne!(class(&exit("upload refused: file too large (max 10 MB)")), F::Disk);
    }

    #[test]
    fn a_command_that_does_not_exist_blames_no_worker() {
        let mut e = Evidence { cause: Cause::NotStarted, ..Evidence::default() };
        for (message, weak) in [
            ("command not found: pyhton3 (looked in PATH: /bin)", true),
            ("not executable: ./run.sh: permission denied", true),
            ("working directory /data does not exist", true),
            ("cannot create the task's files in /var: Input/output error", false),
            ("the system's limit of processes is reached", false),
        ] {
            e.message = message.into();
            let found = classify(&e, []);
            assert_eq!((found.class, found.weak), (FailureClass::NotStarted, weak), "{message}");
        }
        let shell = Evidence { exit_code: Some(127), ..exit("sh: 1: pyhton3: not found") };
        let found = classify(&shell, []);
        assert_eq!((found.class, found.weak), (FailureClass::NotStarted, true));
    }

    #[test]
    fn a_functions_traceback_is_read() {
        let outcome = TaskOutcome {
            value_json: br#"{"traceback": "File x\nMemoryError\n"}"#.to_vec().into(),
            message: "MemoryError".into(),
            ..TaskOutcome::default()
        };
        assert_eq!(class(&Evidence::of(&outcome, Cause::Exit)), FailureClass::OutOfMemory);
    }
}
