//! W3C Trace Context: who a piece of work belongs to, as one header or variable tells another.
//! <https://www.w3.org/TR/trace-context/>

use std::fmt;

/// The variable (and, in lower case, the header) that a trace's context travels in.
pub const TRACEPARENT: &str = "TRACEPARENT";
/// Environment variable with data of tracing systems.
pub const TRACESTATE: &str = "TRACESTATE";
/// The longest `tracestate` that is passed on, in bytes.
pub const MAX_TRACESTATE: usize = 512;

/// A trace and the span in it that others are children of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Id of the trace; not all zero.
    pub trace_id: [u8; 16],
    /// Id of the parent span; not all zero.
    pub span_id: [u8; 8],
    /// The caller may have recorded its span; if not, others need not record theirs.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads `00-TRACE-SPAN-FLAGS`; of later versions what this one knows. None if it is
    /// malformed: then it is as if there were none.
    pub fn parse(text: &str) -> Option<TraceParent> {
        let text = text.trim();
        let (known, rest) = (text.get(..55)?, text.get(55..)?);
        let mut parts = known.split('-');
        let [version] = hex(parts.next()?)?;
        let (trace_id, span_id) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        let more = rest.is_empty() || (version > 0 && rest.starts_with('-'));
        let real = trace_id != [0; 16] && span_id != [0; 8];
        let good = version != 0xff && more && real && parts.next().is_none();
        good.then_some(TraceParent { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

/// Returns true if a `tracestate` can be forwarded: short, and printable ASCII.
pub fn is_tracestate(text: &str) -> bool {
    let printable = |b: u8| (0x20..0x7f).contains(&b) || b == b'\t';
    !text.trim().is_empty() && text.len() <= MAX_TRACESTATE && text.bytes().all(printable)
}

/// Lower-case digits only, as the recommendation wants them.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N {
        return None;
    }
    let mut all = [0; N];
    for (byte, pair) in all.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written_again() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), GOOD);
        let off = GOOD.replace("-01", "-00");
        assert!(!TraceParent::parse(&off).unwrap().sampled);
        // Flags that are not known yet are not passed on.
        let parent = TraceParent::parse(&GOOD.replace("-01", "-ff")).unwrap();
        assert_eq!(parent.to_string(), GOOD);
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = GOOD.replace("00-4b", "cc-4b");
        assert!(TraceParent::parse(&later).is_some());
        assert!(TraceParent::parse(&format!("{later}-more")).is_some());
        assert!(TraceParent::parse(&format!("{later}.more")).is_none());
        assert!(TraceParent::parse(&format!("{GOOD}-more")).is_none());
        assert!(TraceParent::parse(&GOOD.replace("00-4b", "ff-4b")).is_none());
    }

    #[test]
    fn what_is_malformed_counts_as_nothing() {
        let zeros = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let other = "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01";
        for bad in ["", "00", &GOOD[..54], &GOOD.to_uppercase(), zeros, parent, other, "é"] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
        assert_eq!(TraceParent::parse(&GOOD.replace("4bf9", "4bg9")), None);
        assert_eq!(TraceParent::parse(&GOOD.replace("4bf9", "4ü9")), None);
    }

    #[test]
    fn a_tracestate_is_short_and_printable() {
        assert!(is_tracestate("vendor=value,other=1"));
        assert!(!is_tracestate(" "));
        assert!(!is_tracestate("a=ü"));
        assert!(!is_tracestate(&"a".repeat(513)));
    }
}
