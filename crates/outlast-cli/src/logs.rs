//! Output of tasks, copied to standard output and standard error.

use crate::context::{Context, SHORT};
use crate::output;
use outlast::api::TaskResult;
use outlast::{Client, Error, LogPart};
use std::io::Write;
use std::time::Duration;

/// First and longest pause of a follower while there is no new output.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Destination of a log.
#[derive(Clone, Copy)]
enum To {
    Stdout,
    Stderr,
}

impl To {
    fn write(self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            To::Stdout => output::raw(bytes),
            To::Stderr => std::io::stderr().lock().write_all(bytes),
        }
    }
}

/// Position up to which a log was copied.
struct Log<'a> {
    id: &'a str,
    stderr: bool,
    /// The log's attempt, once known.
    attempt: Option<u64>,
    offset: u64,
    to: To,
}

impl Log<'_> {
    /// Fetches the next part of this attempt, or of `attempt`, without copying it.
    async fn part(&self, client: &Client, attempt: Option<u64>) -> Result<LogPart, Error> {
        client.log_part(self.id, self.stderr, attempt, self.offset).await
    }

    fn take(&mut self, part: &LogPart) -> std::io::Result<()> {
        if let (false, Some((from, to))) = (part.whole, part.gap) {
            let bytes = to - from;
            eprintln!(
                "outlast: its worker is away, which has {bytes} more bytes from offset {from}"
            );
        }
        self.attempt = self.attempt.or(part.attempt);
        self.offset = part.next;
        self.to.write(&part.data)
    }

    /// Copies this attempt's log up to its present end.
    async fn rest(&mut self, client: &Client) -> anyhow::Result<()> {
        loop {
            let part = self.part(client, self.attempt).await?;
            self.take(&part)?;
            if part.end {
                return Ok(());
            }
        }
    }
}

/// Copies the whole output of a task to the stream that it wrote to, byte by byte. The result only
/// has text, and possibly only the end.
pub(crate) async fn written(
    context: &Context,
    result: &TaskResult,
    stderr: bool,
) -> anyhow::Result<()> {
    let (text, cut) = match stderr {
        false => (&result.stdout, result.stdout_truncated),
        true => (&result.stderr, result.stderr_truncated),
    };
    let to = if stderr { To::Stderr } else { To::Stdout };
    if !cut && !text.contains(char::REPLACEMENT_CHARACTER) {
        return Ok(to.write(text.as_bytes())?);
    }
    let attempt = Some(result.attempt);
    let mut log = Log { id: &result.id, stderr, attempt, offset: 0, to };
    match log.rest(&context.client(SHORT)?).await {
        Ok(()) => Ok(()),
        Err(error) if log.offset == 0 => {
            eprintln!("outlast: only the end of the output is available: {error}");
            Ok(to.write(text.as_bytes())?)
        }
        Err(error) => Err(error),
    }
}

/// Copies a log to standard output.
pub(crate) async fn copy(
    context: &Context,
    id: &str,
    stderr: bool,
    follow: bool,
    attempt: Option<u64>,
) -> anyhow::Result<u8> {
    let mut log = Log { id, stderr, attempt, offset: 0, to: To::Stdout };
    if follow {
        return log.follow(context, attempt.is_some()).await.map(|()| 0);
    }
    let client = context.client(SHORT)?;
    if client.task(id).await?.attempt == 0 {
        eprintln!(
            "outlast: task {id} has no log yet, since no worker has it; --follow waits for it"
        );
        return Ok(6);
    }
    log.rest(&client).await.map(|()| 0)
}

impl Log<'_> {
    /// Copies new output until the task has ended: of all attempts from the present one on, unless one
    /// was chosen.
    async fn follow(&mut self, context: &Context, only: bool) -> anyhow::Result<()> {
        let (waiting, client) = (context.client(Duration::MAX)?, context.quiet_client()?);
        let asked = self.attempt.filter(|_| only);
        let mut pause = PAUSE.0;
        loop {
            // Fetched first, so that no output before the end is missed.
            let over = waiting.result(self.id, 0).await?.is_some();
            let (end, idle) = match self.part(&client, asked).await {
                Ok(part) if self.is_newer(&part) => {
                    // The last output of the previous attempt, whose worker may be gone.
                    if let Err(error) = self.rest(&client).await {
                        let former = self.attempt.unwrap_or(0);
                        eprintln!("outlast: the end of attempt {former} is not available: {error}");
                    }
                    eprintln!("outlast: attempt {}", part.attempt.unwrap_or(0));
                    (self.attempt, self.offset) = (part.attempt, 0);
                    continue;
                }
                Ok(part) => {
                    self.take(&part)?;
                    if !part.data.is_empty() {
                        pause = PAUSE.0;
                    }
                    (part.end, part.end)
                }
                // Temporary; or the coordinator is away, which the next request for the result waits for.
                Err(error) if !over && matches!(error.status(), None | Some(429 | 503)) => {
                    (true, true)
                }
                Err(error) if matches!(error.status(), Some(429)) => (false, true),
                Err(error) => return Err(error.into()),
            };
            if over && end {
                return Ok(());
            }
            if idle {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }

    fn is_newer(&self, part: &LogPart) -> bool {
        matches!((self.attempt, part.attempt), (Some(former), Some(now)) if former != now)
    }
}
