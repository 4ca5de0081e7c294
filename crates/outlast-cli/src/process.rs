//! What the long-running processes (coordinator, worker) have in common: signals that must not end
//! them, their limit of open files, and the duties of a container's first process.

use tokio::signal::unix::{SignalKind, signal};

/// Prepares this process to run for long. Needs the runtime.
///
/// A terminal that closes, or a log rotator's signal, is no reason to end: there is nothing to
/// reload or to reopen, since logs go to standard error.
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
        Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
    }
    outlast_worker::exec::serve_as_init();
    Ok(())
}

/// The exit code of a task that was killed by a signal, as a shell gives it.
pub(crate) fn code_of_signal(signal: Option<i32>) -> Option<u8> {
    signal.filter(|signal| (1..=64).contains(signal)).map(|signal| 128 + signal as u8)
}
