//! Counts of tasks submitted and ended over time, for the whole fleet: ten minutes by the second, a day by
//! the minute, since the process started.

use crate::clock;
use crate::input::Driver;
use outlast_core::coord::Coordinator;
use outlast_wire::api::Throughput;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Points kept by the second and by the minute.
const POINTS: (usize, usize) = (600, 1440);
const MINUTE: i64 = 60_000;

/// submitted, succeeded, failed, cancelled, requeued.
type Totals = [u64; 5];

#[derive(Clone, Copy)]
struct Point {
    at: i64,
    amounts: [u32; 5],
    waiting: u32,
}

#[derive(Default)]
struct History {
    seconds: VecDeque<Point>,
    minutes: VecDeque<Point>,
    former: Option<Totals>,
}

#[derive(Default)]
pub(crate) struct Pulse(Mutex<History>);

/// Looks at the core once a second, for as long as it runs.
pub(crate) async fn beat(driver: Driver, pulse: std::sync::Arc<Pulse>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Ok((totals, waiting)) = driver.query(totals).await else { return };
        pulse.add(clock::wall(), totals, waiting);
    }
}

fn totals(core: &Coordinator) -> (Totals, usize) {
    let c = core.counters();
    let [succeeded, failed, cancelled] = c.tasks.ended;
    ([c.tasks.submitted, succeeded, failed, cancelled, c.attempts.requeued], core.task_counts().1)
}

impl Pulse {
    fn add(&self, at: i64, totals: Totals, waiting: usize) {
        let mut history = self.0.lock();
        let former = history.former.replace(totals);
        // The first look only says where counting begins.
        let Some(former) = former else { return };
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let amounts = std::array::from_fn(|n| small(totals[n].saturating_sub(former[n])));
        let point = Point { at, amounts, waiting: small(waiting as u64) };
        keep(&mut history.seconds, point, POINTS.0);
        let minute = Point { at: at - at.rem_euclid(MINUTE) + MINUTE, ..point };
        match history.minutes.back_mut().filter(|last| last.at >= minute.at) {
            Some(last) => {
                for (sum, n) in last.amounts.iter_mut().zip(amounts) {
                    *sum = sum.saturating_add(n);
                }
                last.waiting = point.waiting;
            }
            None => keep(&mut history.minutes, minute, POINTS.1),
        }
    }

    pub fn seconds(&self, since: i64) -> Throughput {
        columns(&self.0.lock().seconds, since, 1000)
    }

    pub fn minutes(&self, since: i64) -> Throughput {
        columns(&self.0.lock().minutes, since, 60_000)
    }
}

fn keep(points: &mut VecDeque<Point>, point: Point, limit: usize) {
    if points.len() >= limit {
        points.pop_front();
    }
    points.push_back(point);
}

fn columns(points: &VecDeque<Point>, since: i64, step_ms: u64) -> Throughput {
    let wanted: Vec<&Point> = points.iter().filter(|p| p.at > since).collect();
    let column = |n: usize| wanted.iter().map(|p| p.amounts[n]).collect();
    Throughput {
        step_ms,
        at: wanted.iter().map(|p| p.at).collect(),
        submitted: column(0),
        succeeded: column(1),
        failed: column(2),
        cancelled: column(3),
        requeued: column(4),
        waiting: wanted.iter().map(|p| p.waiting).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_kept_by_second_and_minute_within_limits() {
        let pulse = Pulse::default();
        for n in 0..200_000i64 {
            let done = n as u64 * 3;
            pulse.add(n * 1000, [done, done, 0, 0, 1], 7);
        }
        let (seconds, minutes) = (pulse.seconds(0), pulse.minutes(0));
        assert_eq!((seconds.at.len(), minutes.at.len()), POINTS);
        assert!(seconds.succeeded.iter().all(|n| *n == 3) && seconds.requeued[0] == 0);
        assert_eq!((minutes.succeeded[5], minutes.waiting[5]), (180, 7));
        assert_eq!(minutes.at[6] - minutes.at[5], MINUTE);
        let newest = *seconds.at.last().unwrap();
        assert_eq!(pulse.seconds(newest - 2000).at, [newest - 1000, newest]);
    }

    #[test]
    fn the_first_query_counts_nothing() {
        let pulse = Pulse::default();
        pulse.add(0, [500; 5], 0);
        assert!(pulse.seconds(-1).at.is_empty());
        pulse.add(1000, [501; 5], 0);
        assert_eq!(pulse.seconds(0).submitted, [1]);
    }
}
