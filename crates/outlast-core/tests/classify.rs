//! Real error texts against the classifier: precision and recall per class, with floors.

use outlast_core::recovery::classify::{Evidence, classify};
use outlast_core::recovery::{FailureClass, Rules};
use outlast_model::Cause;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct Corpus {
    error: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    class: FailureClass,
    source: String,
    rules_saw: bool,
    text: String,
}

fn corpus() -> Vec<Entry> {
    let corpus: Corpus = toml::from_str(include_str!("corpus/errors.toml")).expect("it is TOML");
    corpus.error
}

/// Classifies a text as a command's standard error, with an exit code without meaning.
fn found(entry: &Entry) -> FailureClass {
    let evidence = Evidence {
        cause: Cause::Exit,
        exit_code: Some(1),
        message: "exit code 1".into(),
        stderr: entry.text.clone(),
        ..Evidence::default()
    };
    classify(&evidence, std::iter::empty::<&Rules>()).class
}

#[derive(Default)]
struct Score {
    right: f64,
    found: f64,
    there: f64,
}

impl Score {
    fn precision(&self) -> f64 {
        if self.found == 0.0 { 1.0 } else { self.right / self.found }
    }
    fn recall(&self) -> f64 {
        if self.there == 0.0 { 1.0 } else { self.right / self.there }
    }
}

fn score(entries: &[&Entry]) -> BTreeMap<FailureClass, Score> {
    let mut scores: BTreeMap<FailureClass, Score> = BTreeMap::new();
    for entry in entries {
        let got = found(entry);
        scores.entry(entry.class).or_default().there += 1.0;
        scores.entry(got).or_default().found += 1.0;
        if got == entry.class {
            scores.entry(got).or_default().right += 1.0;
        } else {
            let (class, got) = (entry.class.as_str(), got.as_str());
            println!("  {class} taken for {got}: {}", entry.source);
        }
    }
    scores
}

fn print(name: &str, entries: &[&Entry]) -> BTreeMap<FailureClass, Score> {
    println!("{name}: {} texts", entries.len());
    let scores = score(entries);
    println!("  {:<16} {:>5} {:>10} {:>7}", "class", "texts", "precision", "recall");
    for (class, s) in &scores {
        let (precision, recall) = (s.precision(), s.recall());
        println!("  {:<16} {:>5} {precision:>10.2} {recall:>7.2}", class.as_str(), s.there);
    }
    scores
}

#[test]
fn precision_and_recall_hold() {
    let all = corpus();
    assert!(all.len() >= 60, "{} texts", all.len());
    let sources: BTreeSet<&str> = all.iter().map(|e| e.source.as_str()).collect();
    assert!(sources.len() >= 60 && sources.iter().all(|s| s.starts_with("https://")));
    let held: Vec<&Entry> = all.iter().filter(|e| !e.rules_saw).collect();
    assert!(held.len() >= 30, "{} held out", held.len());
    let held = print("held out", &held);
    let all = print("all", &all.iter().collect::<Vec<_>>());
    for (class, s) in &all {
        let word = class.as_str();
        assert!(s.precision() >= 0.9, "{word}: precision {:.2}", s.precision());
        assert!(s.recall() >= 0.85, "{word}: recall {:.2}", s.recall());
    }
    for (class, s) in &held {
        let word = class.as_str();
        assert!(s.precision() >= 0.8, "held out {word}: precision {:.2}", s.precision());
        assert!(s.recall() >= 0.75, "held out {word}: recall {:.2}", s.recall());
    }
}
