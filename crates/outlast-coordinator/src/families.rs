//! Metrics as they are gathered, and as `/metrics` shows them (the Prometheus text format).
//! OpenTelemetry's are made of the same.

use std::fmt::Write;

/// The label of a value: a key and a word, if there is one.
pub(crate) type Label = Option<(&'static str, String)>;
/// No label: the only value of its metric.
pub(crate) const NONE: Label = None;

/// A label.
pub(crate) fn label(key: &'static str, word: &str) -> Label {
    Some((key, word.to_owned()))
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole numbers that only grow while this process lives.
    Counter,
    /// The same of times in seconds, which are fractions.
    Seconds,
    /// Values that go up and down.
    Gauge,
    /// Two values: the sum of what was observed, in seconds, and how many times.
    Summary,
}

impl Kind {
    /// Prometheus' word for it.
    fn word(self) -> &'static str {
        match self {
            Kind::Counter | Kind::Seconds => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        }
    }
}

/// A metric with its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    /// Without the prefix that all share; a counter's ends in `_total`.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub values: Vec<(Label, f64)>,
}

impl Family {
    /// Metrics of one value each: name, help and value.
    pub fn each<const N: usize>(
        kind: Kind,
        all: [(&'static str, &'static str, u64); N],
    ) -> [Family; N] {
        let one = |n: u64| vec![(NONE, n as f64)];
        all.map(|(name, help, n)| Family { name, kind, help, values: one(n) })
    }

    /// A metric of one value per word of a label.
    pub fn by<'a>(
        key: &'static str,
        kind: Kind,
        (name, help): (&'static str, &'static str),
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Family {
        let value = |(word, n): (&str, u64)| (label(key, word), n as f64);
        Family { name, kind, help, values: values.into_iter().map(value).collect() }
    }
}

/// Returns the text that Prometheus reads.
pub(crate) fn text(families: &[Family]) -> String {
    let mut out = String::new();
    for Family { name, kind, help, values } in families {
        let (word, mut parts) = (kind.word(), ["_sum", "_count"].into_iter());
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP outlast_{name} {help}\n# TYPE outlast_{name} {word}");
        for (label, value) in values {
            let part = if *kind == Kind::Summary { parts.next().unwrap_or_default() } else { "" };
            let _ = match label {
                Some((key, word)) => {
                    writeln!(out, "outlast_{name}{part}{{{key}=\"{word}\"}} {value}")
                }
                None => writeln!(out, "outlast_{name}{part} {value}"),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_prometheus_reads_them() {
        let values = vec![(label("state", "pending"), 3.0), (NONE, 0.5)];
        let family = Family { name: "tasks", kind: Kind::Gauge, help: "Tasks.", values };
        let values = vec![(NONE, 12_345_678_901.0)];
        let counter = Family { name: "a_total", kind: Kind::Counter, help: "A.", values };
        let values = vec![(NONE, 1.5), (NONE, 3.0)];
        let summary = Family { name: "b_seconds", kind: Kind::Summary, help: "B.", values };
        assert_eq!(
            text(&[family, counter, summary]),
            "# HELP outlast_tasks Tasks.\n# TYPE outlast_tasks gauge\n\
             outlast_tasks{state=\"pending\"} 3\noutlast_tasks 0.5\n\
             # HELP outlast_a_total A.\n# TYPE outlast_a_total counter\n\
             outlast_a_total 12345678901\n\
             # HELP outlast_b_seconds B.\n# TYPE outlast_b_seconds summary\n\
             outlast_b_seconds_sum 1.5\noutlast_b_seconds_count 3\n"
        );
    }
}
