//! Short texts: addresses, traces, ids, and texts that are shown.

use crate::memory::measure;
use crate::target::{Run, Target, said};
use outlast_wire::spec::check_task_id;
use outlast_wire::text::{visible, visible_lines};
use outlast_wire::trace::{TraceParent, is_tracestate};
use outlast_wire::{Url, limits};

const TALK: usize = 4 << 10;
/// The longest text that is looked at, in bytes.
const LONGEST: usize = 16 << 10;

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "texts",
        what: "addresses, traces, ids, texts that are shown",
        seeds: || {
            let all = [
                "https://[::1]:80/a/",
                "ws://host:7117",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "a=1,b=2",
                "\u{1b}[2J\u{202e}\u{9b}x\n",
                "t-1:a.b_c",
            ];
            all.iter().map(|text| text.as_bytes().to_vec()).collect()
        },
        words: &["://", "[", "]", ":", "/", "\u{202e}", "\u{9b}", "-", "ff-", "\u{0}"],
        make: None,
        run: |input| {
            let text = String::from_utf8_lossy(&input[..input.len().min(LONGEST)]).into_owned();
            let read = || {
                let url = said(Url::parse(&text), |url| url.http());
                let trace = TraceParent::parse(&text).map(|trace| trace.to_string());
                let id = check_task_id(&text).is_ok();
                let safe = visible(&text);
                assert!(!safe.chars().any(char::is_control), "{safe:?}");
                let lines = visible_lines(&text);
                let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
                assert!(!lines.chars().any(bad), "{lines:?}");
                assert!(limits::cut(&text, 10).len() <= 10);
                format!("{url} {trace:?} {id} {}", is_tracestate(&text))
            };
            let (said, peak) = measure(read);
            // A character of one byte is escaped with up to ten, twice, in texts that double.
            Run { said, peak, bound: 64 * text.len() + TALK }
        },
    }]
}
