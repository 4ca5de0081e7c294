//! Requests for the ends of any number of tasks, one at a time.

use outlast::api::EndedTasks;
use outlast::{Client, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Seconds that one request waits where it asks for all tasks, and where it does for some only.
const PATIENCE: (u64, u64) = (30, 1);
/// Between two requests, so that one answer has many ends.
const PACE: Duration = Duration::from_millis(3);

/// Up to a page of tasks to ask for.
pub(crate) struct Window {
    pub ids: Vec<String>,
    /// True if there are no others.
    pub all: bool,
}

/// The tasks whose ends are awaited, and the receiver of what comes of them.
pub(crate) trait Awaited: Send + Sync + 'static {
    /// The next tasks to ask for.
    fn window(&self) -> Window;

    /// Rings when a task is added.
    fn added(&self) -> &Notify;

    /// Takes the answer for a window; false if nobody awaits another.
    fn answered(
        &self,
        window: Window,
        answer: Result<EndedTasks, Error>,
    ) -> impl Future<Output = bool> + Send;
}

/// Asks for the ends of all awaited tasks until nobody awaits more.
pub(crate) async fn follow(client: Client, awaited: Arc<impl Awaited>) {
    let mut fresh = false;
    loop {
        let window = awaited.window();
        if window.ids.is_empty() {
            awaited.added().notified().await;
            continue;
        }
        let answer = if fresh {
            // Not restarted for new ones, or none would ever be answered.
            fresh = false;
            client.results(&window.ids, 0).await
        } else {
            let patience = if window.all { PATIENCE.0 } else { PATIENCE.1 };
            tokio::select! {
                answer = client.results(&window.ids, patience) => answer,
                () = awaited.added().notified(), if window.all => {
                    tokio::time::sleep(PACE).await;
                    fresh = true;
                    continue;
                }
            }
        };
        if !awaited.answered(window, answer).await {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}
