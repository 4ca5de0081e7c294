//! Final report.

use crate::oracle::Totals;
use crate::watch::Seen;
use crate::world::World;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Reasons that are printed; the others are counted.
const SHOWN: usize = 40;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub seed: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub faults_skipped: u64,
    pub workers_destroyed: u64,
    /// Processes that ended without being asked to, and were started again.
    pub ended_by_themselves: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub totals: Totals,
    /// Checkpoints that were read back from the coordinator, byte by byte.
    pub read_back: u64,
    /// True if the coordinator's API has checkpoints and states.
    pub checkpoints_checked: bool,
    pub looks: u64,
    pub looks_failed: u64,
    pub converged_s: f64,
    pub wrong: Vec<String>,
}

impl Report {
    pub fn new(seed: u64, world: &World, took: Duration, seen: &Seen, told: bool) -> Report {
        Report {
            seed,
            faults: world.counts.clone(),
            faults_skipped: world.skipped,
            workers_destroyed: world.destroyed.len() as u64,
            ended_by_themselves: world.ended.clone(),
            totals: Totals::default(),
            read_back: 0,
            checkpoints_checked: told,
            looks: seen.looks,
            looks_failed: seen.failed,
            converged_s: took.as_secs_f64(),
            wrong: Vec::new(),
        }
    }

    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let list = |all: &mut dyn Iterator<Item = (String, u64)>| {
            all.map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
        };
        let t = &self.totals;
        let faults = list(&mut self.faults.iter().map(|(w, n)| ((*w).to_owned(), *n)));
        println!("\nseed         {}", self.seed);
        println!("faults       {faults}; {} skipped", self.faults_skipped);
        println!("tasks        {}", list(&mut t.ends.iter().map(|(w, n)| (w.to_string(), *n))));
        println!(
            "attempts     {}, {} processes, {} late results kept on record",
            t.attempts, t.starts, t.superseded
        );
        let share = 100.0 * t.steps_twice as f64 / (t.steps.max(1)) as f64;
        println!(
            "steps        {}, of which {} were run again ({share:.1}%)",
            t.steps, t.steps_twice
        );
        print!(
            "checkpoints  {} acknowledged, {} refused for want of room, {} restored ({} of them \
             though a newer one had come since the assignment)",
            t.checkpoints, t.refused, t.restored, t.behind
        );
        if self.checkpoints_checked {
            println!(
                ", {} lost with {} destroyed workers; {} read back",
                t.lost_with_workers, self.workers_destroyed, self.read_back
            );
        } else {
            println!("; {} workers were destroyed", self.workers_destroyed);
        }
        println!("looks        {}, {} without an answer", self.looks, self.looks_failed);
        println!("converged    {:.1} s after the last fault", self.converged_s);
        for (text, times) in &self.ended_by_themselves {
            println!("note         {times} times: {text}");
        }
        println!();
        for text in self.wrong.iter().take(SHOWN) {
            println!("WRONG: {text}");
        }
        if self.wrong.len() > SHOWN {
            println!("WRONG: and {} more", self.wrong.len() - SHOWN);
        }
        println!(
            "{}",
            match self.wrong.len() {
                0 => "Every task ended once, and nothing that was acknowledged is missing.",
                _ => "FAILED.",
            }
        );
        Ok(())
    }
}
