//! Common parts of the long-running processes (coordinator, worker): ignored signals, the limit of
//! open files, and the duties of a container's first process.

use tokio::signal::unix::{SignalKind, signal};

/// Prepares a long-running process. Needs the runtime.
///
/// A closing terminal or a log rotator's signal does not end it: there is nothing to reload or to
/// reopen, since logs go to standard error.
pub(crate) fn settle() -> std::io::Result<()> {
    let signals = [
        ("SIGHUP", SignalKind::hangup()),
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
    ];
    for (name, kind) in signals {
        let mut heard = signal(kind)?;
        tokio::spawn(async move {
            while heard.recv().await.is_some() {
                tracing::info!("{name} has no effect: SIGTERM ends this process");
            }
        });
    }
    match outlast_spawn::limits::raise_files() {
        Ok(Some(limit)) => tracing::debug!("up to {limit} open files"),
        Ok(None) => {}
        Err(error) => tracing::warn!("cannot raise the limit of open files: {error}"),
    }
    outlast_worker::exec::serve_as_init();
    Ok(())
}

/// Exit code for a task that was killed by a signal, as in a shell.
pub(crate) fn code_of_signal(signal: Option<i32>) -> Option<u8> {
    signal.filter(|signal| (1..=64).contains(signal)).map(|signal| 128 + signal as u8)
}
