//! A few seeds in every test run; `make sim` runs many.

use outlast_sim::{Bug, run};

#[test]
fn seeds_converge() {
    for seed in 0..150 {
        let outcome = run(seed, None, false);
        assert_eq!(outcome.wrong, None, "cargo run -p outlast-sim -- --seed {seed} --trace");
    }
}

/// The world is judged only after a worker that is just coming back has nothing unacknowledged.
#[test]
fn a_worker_may_come_back_as_the_last_thing() {
    assert_eq!(run(27_647, None, false).wrong, None);
}

/// An attempt from before a person's retry comes back, with the knobs that it was given.
#[test]
fn an_attempt_from_before_a_retry_keeps_its_knobs() {
    assert_eq!(run(1_425, None, false).wrong, None);
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..5 {
        assert_eq!(run(seed, None, false).hash, run(seed, None, false).hash);
    }
}

#[test]
fn planted_bugs_are_caught() {
    for bug in Bug::ALL {
        let caught = (0..3000).any(|seed| run(seed, Some(bug), false).wrong.is_some());
        assert!(caught, "{bug:?}");
    }
}

/// Seeds that found mistakes once.
#[test]
fn seeds_that_failed_converge() {
    // 218: an oracle that took a v1 worker's acknowledgement for another one's. 312: a copy of a store that
    // lacks a checkpoint of its original. 410: a v1 worker that went on saying that a cancelled task runs. 3488: an
    // outcome beside its lane, of a task that was removed, kept its slot for ever. 1868, 2080: an
    // outcome that a copy of a store had announced, under a number that the original had used.
    // 14368: a dead copy's hello came to a coordinator that had started after it had died. 2769: a full disk whose
    // shorter second fault ended before its first one. 15682, 19316: a pause that outlived its worker's process,
    // whose record did not. 9338: a worker that was back for a moment, between two checks of how long it is away.
    // 11712: a store that went back behind its copy, and believed a collected checkpoint not to be acknowledged.
    // 4980: a task of no slots, held with a guess of one while memory did not know it.
    let seeds = [218, 312, 410, 3488, 1868, 2080, 14_368, 2769, 15_682, 19_316, 9338, 11_712, 4980];
    for seed in seeds {
        let outcome = run(seed, None, false);
        assert_eq!(outcome.wrong, None, "cargo run -p outlast-sim -- --seed {seed} --trace");
    }
}
