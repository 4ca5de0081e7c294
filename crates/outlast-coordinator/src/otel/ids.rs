//! The ids of traces and spans, which follow from what they stand for: whoever exports a task
//! again, after a restart or a retry, gives the same. A running task gets its span in its spec.

use outlast_blob::Hash;
use outlast_model::TaskSpec;
use outlast_model::message::Assignment;
use outlast_wire::spec::MAX_SPEC;
use outlast_wire::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use std::sync::Arc;

/// The sampler of traces, by OpenTelemetry's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// A submitter's decision precedes ours.
    parent: bool,
    /// Share of the traces that begin here.
    share: f64,
}

impl Sampler {
    pub fn new(name: Option<&str>, share: Option<&str>) -> Result<Sampler, String> {
        let ratio = || match share.map(|s| (s, s.trim().parse::<f64>())) {
            None => Ok(1.0),
            Some((_, Ok(share))) if (0.0..=1.0).contains(&share) => Ok(share),
            Some((text, _)) => Err(format!("OTEL_TRACES_SAMPLER_ARG={text}: must be from 0 to 1")),
        };
        let (parent, share) = match name.unwrap_or("parentbased_always_on").trim() {
            "parentbased_always_on" => (true, 1.0),
            "parentbased_always_off" => (true, 0.0),
            "parentbased_traceidratio" => (true, ratio()?),
            "always_on" => (false, 1.0),
            "always_off" => (false, 0.0),
            "traceidratio" => (false, ratio()?),
            other => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER={other}: there are always_on, always_off and \
                     traceidratio, each also as parentbased_…"
                ));
            }
        };
        Ok(Sampler { parent, share })
    }

    fn keeps(&self, trace_id: [u8; 16], parent: Option<&TraceParent>) -> bool {
        if let Some(parent) = parent.filter(|_| self.parent) {
            return parent.sampled;
        }
        // By the random part of the id, so that all who look at a trace decide alike.
        let [.., a, b, c, d, e, f, g] = trace_id;
        let random = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
        (random as f64) < self.share * (1u64 << 56) as f64
    }
}

/// A task's place among traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub trace_id: [u8; 16],
    /// The submitter's span.
    pub parent: Option<[u8; 8]>,
    /// Set if its spans are exported.
    pub sampled: bool,
}

/// Gives ids.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// UUID of this coordinator's store.
    coordinator: String,
    sampler: Sampler,
}

impl Tracer {
    pub(super) fn new(coordinator: &str, sampler: Sampler) -> Tracer {
        Tracer { coordinator: coordinator.into(), sampler }
    }

    fn hash(&self, what: &str, task: &str, number: u64) -> Hash {
        // The lengths keep apart what would read alike.
        let (a, b) = (self.coordinator.len(), task.len());
        let text = format!("outlast {what} {a} {b} {}{task} {number}", self.coordinator);
        Hash::of(text.as_bytes())
    }

    fn span(&self, what: &str, task: &str, number: u64) -> [u8; 8] {
        let hash = self.hash(what, task, number);
        hash.as_bytes().first_chunk().copied().expect("a hash has 32 bytes")
    }

    pub(super) fn place(&self, task: &str, spec: &TaskSpec) -> Place {
        let parent = TraceParent::parse(&spec.traceparent);
        let own = || *self.hash("trace", task, 0).as_bytes().first_chunk().expect("32 bytes");
        let trace_id = parent.map_or_else(own, |p| p.trace_id);
        let sampled = self.sampler.keeps(trace_id, parent.as_ref());
        Place { trace_id, parent: parent.map(|p| p.span_id), sampled }
    }

    /// The span of a task's whole life. By its number too: an id may come again.
    pub(super) fn task_span(&self, task: &str, number: u64) -> [u8; 8] {
        self.span("task", task, number)
    }

    /// The span of an attempt.
    pub(super) fn attempt_span(&self, task: &str, epoch: u64) -> [u8; 8] {
        self.span("attempt", task, epoch)
    }
}

/// Has the attempts' processes know the span that theirs are children of: that of their attempt
/// or, while nothing is traced here, the submitter's. A worker gets it as a variable of the task,
/// and keeps it with the task.
pub(crate) fn set_spans(tasks: &mut [Assignment], tracer: Option<&Tracer>) {
    for given in tasks {
        let Ok(known) = &mut given.spec else { continue };
        if tracer.is_none() && known.traceparent.is_empty() && known.tracestate.is_empty() {
            continue;
        }
        let spec = Arc::make_mut(known);
        let theirs = TraceParent::parse(&spec.traceparent);
        let ours = tracer.map(|tracer| {
            let place = tracer.place(&given.task, spec);
            let span_id = tracer.attempt_span(&given.task, given.epoch);
            TraceParent { trace_id: place.trace_id, span_id, sampled: place.sampled }
        });
        // Workers need not know these fields, and older ones do not.
        spec.traceparent.clear();
        let state = std::mem::take(&mut spec.tracestate);
        let bare = spec.clone();
        // Whoever set the variable himself knows best.
        if let Some(context) = ours.or(theirs)
            && !spec.env.contains_key(TRACEPARENT)
        {
            spec.env.insert(TRACEPARENT.into(), context.to_string());
            if theirs.is_some() && !state.is_empty() {
                spec.env.entry(TRACESTATE.into()).or_insert(state);
            }
        }
        if spec.to_json().len() > MAX_SPEC {
            *spec = bare;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_wire::Run;

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer() -> Tracer {
        Tracer::new("c", Sampler::new(None, None).unwrap())
    }

    fn spec() -> TaskSpec {
        TaskSpec::new(Run::Shell("true".into()))
    }

    fn sent(spec: &TaskSpec, tracer: Option<&Tracer>) -> TaskSpec {
        let mut given = [Assignment::new("t".into(), 2, Arc::new(spec.clone()))];
        set_spans(&mut given, tracer);
        let [given] = given;
        Arc::unwrap_or_clone(given.spec.unwrap())
    }

    #[test]
    fn ids_follow_from_what_they_stand_for() {
        let (a, b) = (tracer(), tracer());
        assert_eq!(a.place("t", &spec()), b.place("t", &spec()));
        assert_ne!(a.place("t", &spec()), a.place("u", &spec()));
        assert_eq!(a.attempt_span("t", 1), b.attempt_span("t", 1));
        assert_ne!(a.attempt_span("t", 1), a.attempt_span("t", 2));
        assert_ne!(a.attempt_span("t", 1), a.task_span("t", 1));
        let other = Tracer::new("d", Sampler::new(None, None).unwrap());
        assert_ne!(a.place("t", &spec()), other.place("t", &spec()));
    }

    #[test]
    fn a_task_gets_the_span_of_its_attempt() {
        let (tracer, plain) = (tracer(), spec());
        let env = sent(&plain, Some(&tracer)).env;
        let context = TraceParent::parse(&env[TRACEPARENT]).unwrap();
        assert_eq!(context.trace_id, tracer.place("t", &plain).trace_id);
        assert_eq!(context.span_id, tracer.attempt_span("t", 2));
        assert!(context.sampled);
        // Nothing changes while nothing is traced.
        assert_eq!(sent(&plain, None), plain);
    }

    #[test]
    fn a_submitter_s_trace_goes_on() {
        let traced = TaskSpec { traceparent: THEIRS.into(), tracestate: "a=1".into(), ..spec() };
        let tracer = tracer();
        let got = sent(&traced, Some(&tracer));
        let context = TraceParent::parse(&got.env[TRACEPARENT]).unwrap();
        assert_eq!(context.trace_id, TraceParent::parse(THEIRS).unwrap().trace_id);
        assert_eq!(context.span_id, tracer.attempt_span("t", 2));
        assert_eq!(got.env[TRACESTATE], "a=1");
        assert!(got.traceparent.is_empty() && got.tracestate.is_empty());
        // Without a trace of ours the task is the submitter's own child.
        let got = sent(&traced, None);
        assert_eq!(got.env[TRACEPARENT], THEIRS);
        assert!(got.traceparent.is_empty());
        let own = TaskSpec { env: [(TRACEPARENT.into(), "mine".into())].into(), ..traced };
        assert_eq!(sent(&own, Some(&tracer)).env, own.env);
    }

    #[test]
    fn a_sampler_keeps_its_share_and_its_parent() {
        let keeps = |name, share, tasks: &TaskSpec| {
            let tracer = Tracer::new("c", Sampler::new(Some(name), share).unwrap());
            (0..1000).filter(|n| tracer.place(&n.to_string(), tasks).sampled).count()
        };
        let off = TaskSpec { traceparent: THEIRS.replace("-01", "-00"), ..spec() };
        assert_eq!(keeps("always_off", None, &spec()), 0);
        assert_eq!(keeps("parentbased_always_on", None, &spec()), 1000);
        assert_eq!(keeps("parentbased_always_on", None, &off), 0);
        assert_eq!(keeps("always_on", None, &off), 1000);
        let tenth = keeps("parentbased_traceidratio", Some("0.1"), &spec());
        assert!((50..200).contains(&tenth), "{tenth}");
        assert!(Sampler::new(Some("traceidratio"), Some("2")).is_err());
    }
}
