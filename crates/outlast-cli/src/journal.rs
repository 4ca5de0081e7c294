//! Log format: one line per event, whatever texts of other parties it contains.

use outlast_wire::text::Visible;
use std::fmt::Write;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

/// Formats the fields of events with control characters escaped, so that a line feed in a worker's
/// text does not forge a line.
pub(crate) fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let field = |writer: &mut tracing_subscriber::fmt::format::Writer<'_>,
                 field: &tracing::field::Field,
                 value: &dyn std::fmt::Debug| {
        match field.name() {
            "message" => write!(Visible(writer), "{value:?}"),
            name => write!(Visible(writer), "{name}={value:?}"),
        }
    };
    debug_fn(field).delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_a_line_whatever_it_says() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(fields())
            .finish();
        let forged = "gone\n INFO \u{1b}[31mall is well";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(worker = %"w\u{9b}1", count = 3, "worker said: {forged}");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let line = " WARN worker said: gone\\n INFO \\x1b[31mall is well worker=w\\x9b1 count=3\n";
        assert_eq!(text, line);
    }
}
