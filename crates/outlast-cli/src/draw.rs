//! Character drawings: sparklines, and a bar of states over time. Pure.

use outlast::api::Interval;

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns true unless `NO_COLOR` (no-color.org) is set or the terminal is dumb.
pub(crate) fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Draws values as bars of eight heights from zero to the highest, the newest at the right. If there
/// are more than fit, each bar is the highest value of its share; a blank means no value.
pub(crate) fn sparkline(values: &[Option<f64>], width: usize) -> String {
    if width == 0 {
        return String::new();
    }
    let share = values.len().div_ceil(width).max(1);
    // Shares are counted from the right, so that only the oldest may be incomplete.
    let first = values.len() % share;
    let (odd, even) = values.split_at(first);
    let parts = (!odd.is_empty()).then_some(odd).into_iter().chain(even.chunks(share));
    let top = |part: &[Option<f64>]| part.iter().flatten().copied().reduce(f64::max);
    let bars: Vec<Option<f64>> = parts.map(top).collect();
    let most = bars.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(_) if most <= 0.0 => LEVELS[0],
        Some(v) => LEVELS[((v / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    bars.iter().map(bar).collect()
}

/// Resamples values to the width: each is the highest of its share of the time; those of a short time
/// are repeated.
pub(crate) fn stretch(values: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
    let part = |n: usize| {
        let (from, to) = (n * values.len() / width, (n + 1) * values.len() / width);
        let part = &values[from..to.max(from + 1).min(values.len())];
        part.iter().flatten().copied().reduce(f64::max)
    };
    (0..if values.is_empty() { 0 } else { width }).map(part).collect()
}

/// States of a bar with their characters; worse ones come later.
pub(crate) const STATES: [(&str, char); 5] =
    [("connected", '━'), ("resync", '≈'), ("unknown", '?'), ("away", '·'), ("suspect", '▒')];

/// Draws the states from `from` to `to` as a bar. Each character shows the worst state that took at
/// least a fifth of its time, so that a short cut is visible and does not hide the rest.
pub(crate) fn bar(
    intervals: &[Interval],
    from: i64,
    to: i64,
    width: usize,
) -> Vec<(char, &'static str)> {
    let cell = ((to - from).max(1) as f64 / width.max(1) as f64).max(1.0);
    let mut bar = Vec::with_capacity(width);
    for n in 0..width {
        let begin = from as f64 + n as f64 * cell;
        let end = begin + cell;
        let mut worst: Option<usize> = None;
        let mut longest = (0.0, None);
        for i in intervals {
            let (a, b) = (i.from as f64, i.to.unwrap_or(to) as f64);
            let time = b.min(end) - a.max(begin);
            let Some(rank) = STATES.iter().position(|(s, _)| *s == i.state) else { continue };
            if time > longest.0 {
                longest = (time, Some(rank));
            }
            if time >= cell / 5.0 {
                worst = worst.max(Some(rank));
            }
        }
        bar.push(worst.or(longest.1).map_or((' ', ""), |r| (STATES[r].1, STATES[r].0)));
    }
    bar
}

/// Formats milliseconds with their significant digits.
pub(crate) fn ms(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.1} ms"),
        v if v < 10_000.0 => format!("{v:.0} ms"),
        v => format!("{:.0} s", v / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast::api::LinkCause;

    #[test]
    fn sparklines_scale_fold_and_leave_gaps() {
        let some = |v: &[f64]| v.iter().map(|v| Some(*v)).collect::<Vec<_>>();
        assert_eq!(sparkline(&some(&[1.0, 2.0, 4.0, 8.0]), 10), "▁▂▄█");
        assert_eq!(sparkline(&[Some(8.0), None, Some(1.0)], 10), "█ ▁");
        // A peak is not lost if several values share a bar.
        assert_eq!(sparkline(&some(&[0.0, 0.0, 9.0, 1.0, 1.0, 1.0, 1.0]), 4).chars().count(), 4);
        assert_eq!(sparkline(&some(&[0.0, 0.0, 9.0, 1.0, 1.0, 1.0, 1.0]), 4), "▁█▁▁");
        assert_eq!(sparkline(&some(&[0.0, 0.0]), 4), "▁▁");
        assert_eq!(
            (sparkline(&[], 4), sparkline(&some(&[1.0]), 0)),
            (String::new(), String::new())
        );
    }

    #[test]
    fn few_values_are_stretched_and_many_folded() {
        let values: Vec<_> = (0..6).map(|n| Some(f64::from(n))).collect();
        assert_eq!(stretch(&values, 3), [Some(1.0), Some(3.0), Some(5.0)]);
        let twice = [Some(1.0), Some(1.0), None, None];
        assert_eq!(stretch(&[Some(1.0), None], 4), twice);
        assert_eq!((stretch(&[], 4).len(), stretch(&values, 7).len()), (0, 7));
    }

    #[test]
    fn a_short_cut_is_seen_in_a_bar() {
        let interval = |state: &str, from, to| Interval {
            state: state.into(),
            from,
            to,
            cause: LinkCause::Unspecified,
            reason: String::new(),
        };
        let all = [
            interval("resync", 200, Some(201)),
            interval("connected", 201, Some(530)),
            interval("suspect", 530, Some(560)),
            interval("connected", 560, None),
        ];
        let text: String = bar(&all, 0, 1000, 10).iter().map(|(c, _)| *c).collect();
        assert_eq!(text, "  ━━━▒━━━━");
        assert_eq!(bar(&[], 0, 10, 3).len(), 3);
        assert_eq!(
            (ms(0.25), ms(12.4), ms(61_000.0)),
            ("0.2 ms".into(), "12 ms".into(), "61 s".into())
        );
    }
}
