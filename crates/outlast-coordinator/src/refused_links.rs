//! WebSockets that found nothing, or were refused, at their address: a worker whose address is wrong
//! shows only an HTTP status, so the log says why.

use crate::problem::Refusal;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(5);
/// Characters of an address that are shown.
const SHOWN: usize = 200;

/// Refused links that the log has, or will have.
#[derive(Default)]
pub(crate) struct RefusedLinks(Mutex<State>);

#[derive(Default)]
struct State {
    logged: Option<Instant>,
    more: u64,
}

impl RefusedLinks {
    /// Logs a refusal, a line in 5 s at most.
    pub fn log(&self, place: &str, refusal: &Refusal) {
        if let Some(more) = self.due(Instant::now()) {
            let place: String = place.chars().take(SHOWN).collect();
            let (status, title) = (refusal.problem.status, &refusal.problem.title);
            let detail: String = refusal.problem.detail.chars().take(2 * SHOWN).collect();
            let more = if more > 0 { format!(" (and {more} more before)") } else { String::new() };
            tracing::warn!(
                "CONNECT a link to {place:?} was refused, {status}: {title}: {detail:?}{more}"
            );
        }
    }

    /// Returns the number left out since the last line, if there is to be one now.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.logged.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            state.more += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_dials_for_ever_has_a_line_now_and_then() {
        let (refused, now) = (RefusedLinks::default(), Instant::now());
        assert_eq!(refused.due(now), Some(0));
        assert_eq!((refused.due(now), refused.due(now + EVERY / 2)), (None, None));
        assert_eq!(refused.due(now + EVERY), Some(2));
    }
}
