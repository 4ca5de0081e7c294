//! Alerts: which are firing, which were cleared, and who is notified. `outlast_core::alerts` judges what is
//! an alert. Firing ones are kept with the history: after a crash they are not sent again, and are cleared
//! once they have ended.

use super::webhook::{Webhook, WebhookConfig};
use crate::clock::{self, text};
use crate::events::FeedEvent;
use outlast_core::alerts::{Change, Measure, Phase, Rule, Severity, judge};
use outlast_store::AlertEntry;
use outlast_wire::api::{Alert, AlertList, AlertRule};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::broadcast;

/// Cleared alerts that are remembered.
const CLEARED: usize = 1_000;
/// Firing alerts at a time; more are counted only in the log.
const FIRING: usize = 10_000;
/// Alerts that are written into the log at one measurement, one by one.
const LOGGED: usize = 20;

/// Measurements for each rule: the value, and the number of its samples.
pub(super) type Samples = [Option<(f64, u32)>; Measure::ALL.len()];
type Phases = [Option<Phase>; Measure::ALL.len()];

/// The rules of alerts, and the address that they are sent to.
#[derive(Debug, Clone)]
pub struct AlertConfig {
    /// Rules, one for each measure.
    pub rules: Vec<Rule>,
    /// The webhook that alerts are sent to, if any.
    pub webhook: Option<WebhookConfig>,
}

impl Default for AlertConfig {
    fn default() -> Self {
        AlertConfig { rules: Measure::ALL.map(Rule::of).to_vec(), webhook: None }
    }
}

/// All alerts.
pub(super) struct Alerts {
    rules: Vec<Rule>,
    phases: HashMap<Arc<str>, Phases>,
    /// Firing alerts by worker and rule.
    firing: BTreeMap<(Arc<str>, usize), Alert>,
    cleared: VecDeque<Alert>,
    last_id: u64,
    watchers: broadcast::Sender<Arc<FeedEvent>>,
    webhook: Option<Webhook>,
    logged: usize,
    /// Changes of firing alerts, since they were last taken to be kept.
    changes: Vec<AlertEntry>,
}

impl Alerts {
    /// The alerts of a new process; the webhook needs a tokio runtime. `former`: those that were
    /// firing when the former process ended.
    pub fn new(
        config: &AlertConfig,
        former: Vec<Alert>,
        watchers: broadcast::Sender<Arc<FeedEvent>>,
    ) -> Result<Alerts, String> {
        let rule = |m: Measure| config.rules.iter().find(|r| r.measure == m).cloned();
        let rules: Vec<Rule> =
            Measure::ALL.into_iter().map(|m| rule(m).unwrap_or_else(|| Rule::of(m))).collect();
        for rule in &rules {
            rule.check()?;
        }
        let mut phases: HashMap<Arc<str>, Phases> = HashMap::new();
        let mut firing = BTreeMap::new();
        for alert in former {
            // Rules do not come and go.
            let Some(n) = rules.iter().position(|r| r.measure.name() == alert.rule) else {
                continue;
            };
            let id: Arc<str> = alert.worker_id.as_str().into();
            phases.entry(id.clone()).or_default()[n] =
                Some(Phase::Firing { worst: alert.value, good_since: None });
            firing.insert((id, n), alert);
        }
        Ok(Alerts {
            rules,
            phases,
            firing,
            cleared: VecDeque::new(),
            // Grows over restarts too.
            last_id: clock::wall().unsigned_abs(),
            watchers,
            webhook: config.webhook.as_ref().map(Webhook::start).transpose()?,
            logged: 0,
            changes: Vec::new(),
        })
    }

    /// Takes the changes since the last time.
    pub fn changes(&mut self) -> Vec<AlertEntry> {
        std::mem::take(&mut self.changes)
    }

    /// Clears, after the first measurement, the alerts of the former process that nobody measures any
    /// more.
    pub fn settle(&mut self, here: &HashSet<&Arc<str>>, wall: i64) {
        let unseen = |id: &Arc<str>, n: usize| !here.contains(id) || !self.rules[n].enabled;
        let over: Vec<_> = self.firing.iter().filter(|((id, n), _)| unseen(id, *n)).collect();
        let over = over.into_iter().map(|((id, n), a)| (id.clone(), *n, a.worker.clone(), a.value));
        for (id, n, name, worst) in over.collect::<Vec<_>>() {
            if let Some(phases) = self.phases.get_mut(&id) {
                phases[n] = None;
            }
            self.change(&id, &name.into(), n, (Change::Cleared(worst), ""), wall);
        }
    }

    /// A measurement begins.
    pub fn begin(&mut self) {
        if self.logged > LOGGED {
            tracing::warn!("and {} more alerts; see /api/v1/alerts", self.logged - LOGGED);
        }
        self.logged = 0;
    }

    /// Judges a worker. Returns the severity of its worst firing alert; empty: none.
    pub fn judge(
        &mut self,
        (id, name, why): (&Arc<str>, &Arc<str>, &str),
        samples: &Samples,
        now: u64,
        wall: i64,
    ) -> &'static str {
        let known = self.phases.get(id).copied();
        let mut phases = known.unwrap_or_default();
        let mut changes = Vec::new();
        for (n, rule) in self.rules.iter().enumerate().filter(|(_, r)| r.enabled) {
            let (phase, change) = judge(rule, phases[n], samples[n], now);
            phases[n] = phase;
            changes.extend(change.map(|c| (n, c)));
        }
        let quiet = phases.iter().all(Option::is_none);
        if !quiet {
            self.phases.insert(id.clone(), phases);
        } else if known.is_some() {
            self.phases.remove(id);
        }
        for (n, change) in changes {
            self.change(id, name, n, (change, why), wall);
        }
        if quiet { "" } else { self.worst(&phases) }
    }

    fn worst(&self, phases: &Phases) -> &'static str {
        let firing = phases.iter().zip(&self.rules);
        let firing = firing.filter(|(p, _)| matches!(p, Some(Phase::Firing { .. })));
        firing.map(|(_, r)| r.severity).max().map_or("", Severity::as_str)
    }

    /// Clears the alerts of a worker that was forgotten.
    pub fn forget(&mut self, id: &Arc<str>, name: &Arc<str>, wall: i64) {
        let Some(phases) = self.phases.remove(id) else { return };
        for (n, phase) in phases.iter().enumerate() {
            if let Some(Phase::Firing { worst, .. }) = phase {
                self.change(id, name, n, (Change::Cleared(*worst), ""), wall);
            }
        }
    }

    /// Clears all alerts when the coordinator ends: nobody would report their end later. What still
    /// holds fires again after the next start. The webhook has to be ended.
    pub fn end(&mut self, wall: i64) -> Option<Webhook> {
        let webhook = self.webhook.take();
        for ((id, n), mut alert) in std::mem::take(&mut self.firing) {
            self.keep(&id, n, None);
            alert.state = "cleared".into();
            alert.cleared_at = Some(text(wall));
            alert.message += "; cleared because the coordinator ends";
            if let Some(webhook) = webhook.as_ref().filter(|_| self.rules[n].webhook) {
                webhook.send(alert);
            }
        }
        webhook
    }

    fn keep(&mut self, id: &Arc<str>, n: usize, alert: Option<&Alert>) {
        let alert = alert.and_then(|alert| serde_json::to_string(alert).ok());
        let rule = self.rules[n].measure.name().to_owned();
        self.changes.push(AlertEntry { worker: id.clone(), rule, alert });
    }

    /// `why`: what a worker said of itself that does not work.
    fn change(
        &mut self,
        id: &Arc<str>,
        name: &Arc<str>,
        n: usize,
        (change, why): (Change, &str),
        wall: i64,
    ) {
        let rule = &self.rules[n];
        let key = (id.clone(), n);
        let alert = match change {
            Change::Fired(_) if self.firing.len() >= FIRING => {
                self.logged += 1;
                return;
            }
            Change::Fired(value) => {
                self.last_id += 1;
                let alert = Alert {
                    id: self.last_id,
                    rule: rule.measure.name().into(),
                    severity: rule.severity.as_str().into(),
                    state: "firing".into(),
                    worker: name.to_string(),
                    worker_id: id.to_string(),
                    message: message(rule, name, value, why),
                    value: fine(value),
                    threshold: rule.threshold,
                    since: text(wall),
                    cleared_at: None,
                };
                self.firing.insert(key, alert.clone());
                alert
            }
            Change::Cleared(worst) => {
                let Some(mut alert) = self.firing.remove(&key) else { return };
                alert.state = "cleared".into();
                alert.value = fine(worst);
                alert.cleared_at = Some(text(wall));
                if self.cleared.len() == CLEARED {
                    self.cleared.pop_front();
                }
                self.cleared.push_back(alert.clone());
                alert
            }
        };
        self.keep(id, n, (alert.cleared_at.is_none()).then_some(&alert));
        let rule = &self.rules[n];
        self.logged += usize::from(rule.log);
        if rule.log && self.logged <= LOGGED {
            log(rule, &alert);
        }
        if let Some(webhook) = self.webhook.as_ref().filter(|_| rule.webhook) {
            webhook.send(alert.clone());
        }
        // Nobody may be watching.
        let _ = self.watchers.send(Arc::new(FeedEvent::Alert(Box::new(alert))));
    }

    /// Lists firing alerts, newest first, then those that were cleared; of one worker, or all.
    pub fn list(&self, worker: Option<&str>, state: Option<&str>, limit: usize) -> AlertList {
        let mut alerts: Vec<&Alert> = self.firing.values().collect();
        alerts.sort_by_key(|a| std::cmp::Reverse(a.id));
        alerts.extend(self.cleared.iter().rev());
        let wanted = |a: &&&Alert| {
            worker.is_none_or(|w| a.worker == w || a.worker_id == w)
                && state.is_none_or(|s| a.state == s)
        };
        let alerts = alerts.iter().filter(wanted).take(limit).map(|a| (*a).clone()).collect();
        AlertList { alerts, rules: self.rules.iter().map(|r| self.rule(r)).collect() }
    }

    fn rule(&self, rule: &Rule) -> AlertRule {
        let to = [(rule.log, "log"), (rule.webhook && self.webhook.is_some(), "webhook")];
        AlertRule {
            name: rule.measure.name().into(),
            measures: rule.measure.describe().into(),
            when: if rule.above { "above" } else { "below" }.into(),
            threshold: rule.threshold,
            clear: rule.clear,
            hold_s: rule.hold as f64 / 1000.0,
            clear_s: rule.clear_hold as f64 / 1000.0,
            min_samples: rule.min_samples,
            severity: rule.severity.as_str().into(),
            to: to.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).into()).collect(),
            enabled: rule.enabled,
        }
    }
}

fn fine(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn message(rule: &Rule, name: &str, value: f64, why: &str) -> String {
    let limit = rule.threshold;
    match rule.measure {
        Measure::Reconnects => {
            format!("worker {name} came back {value} times within a minute (limit {limit})")
        }
        Measure::ReconnectFailed => {
            format!("worker {name} lost its link and has not come back for {value:.0} s")
        }
        Measure::Latency => {
            format!("worker {name}: round trips take {value:.0} ms on average (limit {limit})")
        }
        Measure::TaskSuccess => format!(
            "worker {name}: {:.0}% of its newest tasks succeeded (limit {:.0}%)",
            value * 100.0,
            limit * 100.0
        ),
        Measure::Compression => {
            format!("worker {name}: its messages are compressed {value:.2} to 1 (limit {limit})")
        }
        Measure::Unfit => format!("worker {name} {why}"),
        Measure::Copies => format!(
            "worker {name}: {value} times a process with a copy of its state folder was refused; \
             delete the copy, or start it with --new-identity"
        ),
    }
}

fn log(rule: &Rule, alert: &Alert) {
    let (mark, message) = (rule.measure.mark(), &alert.message);
    if alert.cleared_at.is_some() {
        return tracing::info!("{mark} alert {} is cleared: {message}", alert.rule);
    }
    match rule.severity {
        Severity::Critical => tracing::error!("{mark} critical: {message}"),
        Severity::Warning => tracing::warn!("{mark} warning: {message}"),
        Severity::Info => tracing::info!("{mark} info: {message}"),
    }
}
