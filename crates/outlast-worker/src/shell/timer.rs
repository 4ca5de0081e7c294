//! The timer of the core.

use super::driver::Driver;
use outlast_core::stats::ConnectionState;
use std::sync::Arc;
use std::time::Duration;

/// Longest sleep of the timer: what is due earlier than expected is not late by more.
const LONGEST: Duration = Duration::from_millis(250);
/// Shortest sleep of the timer.
const SHORTEST: Duration = Duration::from_millis(1);

/// Wakes the core when something is due.
pub(super) async fn run(driver: Arc<Driver>) {
    loop {
        let due = driver.sleep(LONGEST);
        tokio::time::sleep(due.max(SHORTEST)).await;
        driver.wake();
        if driver.outlets.status.borrow().0 == ConnectionState::Failed {
            driver.end_if_hopeless();
        }
    }
}

impl Driver {
    /// Ends the agent if its link is abandoned and nothing is left to finish.
    fn end_if_hopeless(&self) {
        let core = self.lock();
        let (running, waiting, unacked) = core.load();
        if core.connection_state() == ConnectionState::Failed && running + waiting == 0 {
            drop(core);
            let mut reason = self.outlets.status.borrow().1.clone();
            if unacked > 0 {
                reason += &format!("; {unacked} results are kept in the state folder");
            }
            self.outlets.end(true, &reason);
        }
    }
}
