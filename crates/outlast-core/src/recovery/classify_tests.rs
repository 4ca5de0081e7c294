//! Single texts and single ways to end; real texts are in `tests/classify.rs`.

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
    assert_eq!(found.text, "exit code 1; its output does not show the reason");
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
    assert_eq!(class(&exit("supervisor: Killed process 4321 at the user's request")), F::Unknown);
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
