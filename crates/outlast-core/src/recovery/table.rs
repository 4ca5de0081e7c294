//! The table: which strategies are tried in which order, and how long a delay is.

use super::classify::Rules;
use super::{FailureClass, HardwareClass, Strategy};
use crate::Millis;
use outlast_model::TaskSpec;
use outlast_model::recovery::{PatternRules, Recovery, RecoveryFile};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The built-in ladders by class of failure. Those of the replaced system, and for losses of
/// workers what was always done.
const BY_ERROR: &[(FailureClass, &[Strategy])] = {
    use FailureClass as F;
    use Strategy as S;
    &[
        (
            F::OutOfMemory,
            &[S::ReducedBatchSize, S::ReducedPrecision, S::DifferentWorker, S::FallbackCpu],
        ),
        (F::Device, &[S::DelayedRetry, S::DifferentWorker, S::FallbackCpu]),
        (F::BrowserCrash, &[S::BrowserRestart, S::DifferentWorker, S::FallbackCpu]),
        (F::ContextLost, &[S::BrowserRestart, S::DifferentWorker, S::FallbackCpu]),
        (F::Disk, &[S::DifferentWorker, S::DelayedRetry]),
        (F::Network, &[S::DelayedRetry, S::DifferentWorker]),
        (F::WorkerCrash, &[S::ImmediateRetry, S::DifferentWorker]),
        (F::WorkerLost, &[S::ImmediateRetry]),
        (F::WorkerStopped, &[S::ImmediateRetry]),
        (F::NotStarted, &[S::DifferentWorker, S::DelayedRetry]),
    ]
};

/// The built-in ladders by class of hardware, for failures of the other classes.
const BY_HARDWARE: &[(HardwareClass, &[Strategy])] = {
    use HardwareClass as H;
    use Strategy as S;
    &[
        (H::Cpu, &[S::DelayedRetry, S::DifferentWorker, S::ReducedBatchSize]),
        (
            H::Gpu,
            &[
                S::DelayedRetry,
                S::DifferentWorker,
                S::ReducedPrecision,
                S::ReducedBatchSize,
                S::FallbackCpu,
            ],
        ),
        (H::Tpu, &[S::DelayedRetry, S::DifferentWorker, S::ReducedBatchSize, S::FallbackCpu]),
        (H::Npu, &[S::DelayedRetry, S::DifferentWorker, S::ReducedPrecision, S::FallbackCpu]),
        (
            H::Webgpu,
            &[
                S::BrowserRestart,
                S::DelayedRetry,
                S::DifferentWorker,
                S::ReducedPrecision,
                S::FallbackCpu,
            ],
        ),
        (H::Webnn, &[S::BrowserRestart, S::DelayedRetry, S::DifferentWorker, S::FallbackCpu]),
        (H::Browser, &[S::BrowserRestart, S::DelayedRetry, S::DifferentWorker]),
    ]
};

/// The ladders and delays that hold for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladders {
    /// Strategies for each class of failure; these come first.
    pub errors: BTreeMap<FailureClass, Vec<Strategy>>,
    /// Strategies for each class of hardware.
    pub hardware: BTreeMap<HardwareClass, Vec<Strategy>>,
    /// Before the first delayed retry.
    pub base_delay: Millis,
    /// No delay is longer.
    pub max_delay: Millis,
    /// Share of a delay by which it varies, 0 to 1.
    pub jitter: f64,
    /// True to remember and use knob values that worked.
    pub remember: bool,
}

impl Default for Ladders {
    fn default() -> Self {
        let errors = BY_ERROR.iter().map(|(class, ladder)| (*class, ladder.to_vec()));
        let hardware = BY_HARDWARE.iter().map(|(class, ladder)| (*class, ladder.to_vec()));
        Ladders {
            errors: errors.collect(),
            hardware: hardware.collect(),
            base_delay: 2_000,
            max_delay: 60_000,
            jitter: 0.2,
            remember: true,
        }
    }
}

impl Ladders {
    /// Returns the strategies after a failure of this class on this hardware.
    pub fn ladder(&self, class: FailureClass, hardware: HardwareClass) -> &[Strategy] {
        let of_error = self.errors.get(&class);
        of_error.or_else(|| self.hardware.get(&hardware)).map_or(&[], Vec::as_slice)
    }

    fn over(&mut self, with: &Recovery) {
        self.errors.extend(with.errors.clone());
        // A ladder of a class of hardware counts where the user gave none for the error.
        self.hardware.extend(with.hardware.clone());
        let ms = |seconds: f64| (seconds * 1000.0) as Millis;
        self.base_delay = with.base_delay.map_or(self.base_delay, ms);
        self.max_delay = with.max_delay.map_or(self.max_delay, ms);
        self.jitter = with.jitter.unwrap_or(self.jitter);
        self.remember = with.remember.unwrap_or(self.remember);
    }
}

/// With what is left out at its default, too.
fn check_delays(ladders: &Ladders) -> Result<(), String> {
    let (base, max) = (ladders.base_delay, ladders.max_delay);
    if base > max {
        return Err(format!(
            "base_delay is {} s, and must not be above max_delay, {} s",
            base as f64 / 1000.0,
            max as f64 / 1000.0
        ));
    }
    Ok(())
}

/// The table with everything that a coordinator's user overrides.
#[derive(Debug, Clone)]
pub struct Config {
    ladders: Ladders,
    rules: Rules,
    labels: BTreeMap<String, (Recovery, Rules)>,
    /// Criteria of a pattern.
    pub patterns: PatternRules,
}

impl Default for Config {
    fn default() -> Self {
        let (ladders, rules) = (Ladders::default(), Rules::default());
        Config { ladders, rules, labels: BTreeMap::new(), patterns: PatternRules::default() }
    }
}

impl Config {
    /// The built-in table with what the file overrides.
    ///
    /// # Errors
    /// Which rule's pattern is no regular expression, and why.
    pub fn new(file: &RecoveryFile) -> Result<Config, String> {
        let mut ladders = Ladders::default();
        ladders.over(&file.all);
        check_delays(&ladders)?;
        let rules = Rules::new(&file.all.rules)?;
        let labels = file.labels.iter().map(|(label, with)| {
            let mut own = ladders.clone();
            own.over(with);
            let rules = check_delays(&own).and_then(|()| Rules::new(&with.rules));
            let rules = rules.map_err(|e| format!("labels.{label}: {e}"))?;
            Ok((label.clone(), (with.clone(), rules)))
        });
        let labels = labels.collect::<Result<_, String>>()?;
        Ok(Config { rules, labels, ladders, patterns: file.patterns.clone() })
    }

    /// Returns the rules for all tasks.
    pub fn all(&self) -> &Ladders {
        &self.ladders
    }

    /// Iterates over the overrides for each label `key=value`.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &Recovery)> {
        self.labels.iter().map(|(label, (with, _))| (label.as_str(), with))
    }

    /// The user's rules for all tasks.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    fn of_labels<'a>(&'a self, spec: &'a TaskSpec) -> impl Iterator<Item = &'a (Recovery, Rules)> {
        spec.labels.iter().filter_map(|(k, v)| self.labels.get(&format!("{k}={v}")))
    }

    /// Returns the rules for a task.
    pub fn of(&self, spec: &TaskSpec) -> Cow<'_, Ladders> {
        let mut ladders = Cow::Borrowed(&self.ladders);
        for (with, _) in self.of_labels(spec) {
            ladders.to_mut().over(with);
        }
        if let Some(with) = &spec.recovery {
            ladders.to_mut().over(with);
        }
        ladders
    }

    /// The rules for a task, in the order in which they are tried: its own, those of its labels,
    /// those for all.
    pub fn rules_of<'a>(&'a self, spec: &'a TaskSpec) -> Vec<Cow<'a, Rules>> {
        // They compiled when the task was accepted.
        let own = spec.recovery.iter().filter_map(|r| Rules::new(&r.rules).ok()).map(Cow::Owned);
        let labels = self.of_labels(spec).map(|(_, rules)| Cow::Borrowed(rules));
        own.chain(labels).chain([Cow::Borrowed(&self.rules)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::Run;
    use serde_json::json;

    #[test]
    fn a_label_overrides_the_file_and_a_task_both() {
        let file = RecoveryFile::from_value(json!({
            "base_delay": 5, "errors": {"disk": ["escalation"]},
            "rules": [{"pattern": "flux", "class": "device"}],
            "labels": {"team=ml": {"base_delay": 7, "hardware": {"cpu": ["immediate_retry"]}}}
        }));
        let config = Config::new(&file.unwrap()).unwrap();
        let mut spec = TaskSpec::new(Run::Shell("x".into()));
        assert_eq!(config.of(&spec).base_delay, 5000);
        assert_eq!(
            config.of(&spec).ladder(FailureClass::Disk, HardwareClass::Gpu),
            [Strategy::Escalation]
        );
        spec.labels.insert("team".into(), "ml".into());
        assert_eq!(config.of(&spec).base_delay, 7000);
        let ladder = config.of(&spec).ladder(FailureClass::Unknown, HardwareClass::Cpu).to_vec();
        assert_eq!(ladder, [Strategy::ImmediateRetry]);
        let own = serde_json::from_value(json!({"base_delay": 9})).unwrap();
        spec.recovery = Some(Box::new(own));
        assert_eq!(config.of(&spec).base_delay, 9000);
        for wrong in [
            json!({"base_dealy": 5}),
            json!({"labels": {"team": {}}}),
            json!({"patterns": {"count": 1}}),
            json!({"errors": {"disc": []}}),
            json!({"patterns": {"history": 5, "count": 6}}),
            json!({"base_delay": 9, "max_delay": 8}),
        ] {
            assert!(RecoveryFile::from_value(wrong.clone()).is_err(), "{wrong}");
        }
        let bad = json!({"rules": [{"pattern": "(", "class": "device"}]});
        let error = Config::new(&RecoveryFile::from_value(bad).unwrap()).unwrap_err();
        assert!(error.contains("\"(\""), "{error}");
        // Also over what is left out.
        for (above, said) in [
            (json!({"base_delay": 90}), "base_delay is 90 s"),
            (json!({"labels": {"a=b": {"max_delay": 1}}}), "labels.a=b: base_delay is 2 s"),
        ] {
            let error = Config::new(&RecoveryFile::from_value(above).unwrap()).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
