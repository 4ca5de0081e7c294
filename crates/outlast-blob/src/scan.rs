//! Finds the cuts of FastCDC (2020) several times as fast as one byte after the other: whether a
//! place is a cut depends on the 64 bytes before it only, so several stretches are looked at in
//! one loop, and the processor does not wait for one sum before it begins the next. The cuts are
//! exactly those of `fastcdc::v2020`, whose tables and masks these are.

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

/// Stretches at a time, and bytes of each.
const LANES: usize = 4;
const LANE: usize = 1 << 10;
/// Bytes that a sum depends on: older ones have been shifted out.
const WINDOW: usize = 64;

/// Finds the cuts between chunks.
pub(crate) struct Scanner {
    min: usize,
    avg: usize,
    max: usize,
    /// Before the average length, and beyond.
    masks: (u64, u64),
    gear: Box<[u64; 256]>,
}

impl Scanner {
    /// For chunks of these lengths in bytes.
    pub fn new(min: usize, avg: usize, max: usize) -> Self {
        let masks = select_masks(avg, Normalization::Level1);
        let (table, _) = get_gear_with_seed(0);
        let mut gear = Box::new([0; 256]);
        gear.copy_from_slice(&table);
        Self { min, avg, max, masks, gear }
    }

    /// The length of the chunk that these bytes begin with.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(self.max);
        if end <= self.min {
            return end;
        }
        // Pairs of bytes are what `fastcdc` tests: an odd one at the end is no candidate.
        let center = self.avg.min(end) & !1;
        let (strict, loose) = self.masks;
        let found = self.find(bytes, self.min, center, strict);
        found.or_else(|| self.find(bytes, center, end & !1, loose)).unwrap_or(end)
    }

    /// The sum at `at`, without the byte there.
    fn sum(&self, bytes: &[u8], at: usize) -> u64 {
        let from = self.min.max(at.saturating_sub(WINDOW));
        bytes[from..at].iter().fold(0, |sum, byte| self.add(sum, *byte))
    }

    #[inline(always)]
    fn add(&self, sum: u64, byte: u8) -> u64 {
        (sum << 1).wrapping_add(self.gear[usize::from(byte)])
    }

    /// The first place from `from` on where the sum has none of these bits.
    fn find(&self, bytes: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
        let mut at = from;
        while at + LANES * LANE <= to {
            if let Some(found) = self.strip(bytes, at, mask) {
                return Some(found);
            }
            at += LANES * LANE;
        }
        self.one(bytes, at, to, mask)
    }

    /// The same, one byte after the other.
    fn one(&self, bytes: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
        let mut sum = self.sum(bytes, from);
        let hit = bytes.get(from..to)?.iter().position(|byte| {
            sum = self.add(sum, *byte);
            sum & mask == 0
        });
        hit.map(|n| from + n)
    }

    /// The same for `LANES` stretches at once.
    fn strip(&self, bytes: &[u8], from: usize, mask: u64) -> Option<usize> {
        let strip = &bytes[from..from + LANES * LANE];
        let (a, rest) = strip.split_at(LANE);
        let (b, rest) = rest.split_at(LANE);
        let (c, d) = rest.split_at(LANE);
        let mut sums: [u64; LANES] = std::array::from_fn(|n| self.sum(bytes, from + n * LANE));
        for (n, (((a, b), c), d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
            sums[0] = self.add(sums[0], *a);
            sums[1] = self.add(sums[1], *b);
            sums[2] = self.add(sums[2], *c);
            sums[3] = self.add(sums[3], *d);
            if sums.iter().any(|sum| sum & mask == 0) {
                let lane = sums.iter().position(|sum| sum & mask == 0)?;
                let hit = from + lane * LANE + n;
                // What the lanes before this one have not looked at yet comes first. A hit of
                // theirs at an earlier turn would have ended the loop.
                let before = (0..lane).find_map(|lane| {
                    let start = from + lane * LANE;
                    self.one(bytes, start + n + 1, start + LANE, mask)
                });
                return Some(before.unwrap_or(hit));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::cut;

    const LENGTHS: (usize, usize, usize) = (16 << 10, 64 << 10, 256 << 10);

    fn reference(bytes: &[u8], (min, avg, max): (usize, usize, usize)) -> usize {
        let (s, l) = select_masks(avg, Normalization::Level1);
        cut(bytes, min, avg, max, s, l, s << 1, l << 1).1
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn agree(data: &[u8], lengths: (usize, usize, usize)) {
        let scanner = Scanner::new(lengths.0, lengths.1, lengths.2);
        let mut at = 0;
        while at < data.len() {
            let len = scanner.cut(&data[at..]);
            assert_eq!(len, reference(&data[at..], lengths), "at {at} of {}", data.len());
            at += len;
        }
    }

    #[test]
    fn cuts_are_those_of_fastcdc() {
        for seed in 0..20 {
            agree(&noise(2_000_000 + seed as usize * 1013, seed), LENGTHS);
            // Small chunks put several hits into one strip.
            agree(&noise(300_000 + seed as usize, seed), (64, 256, 1024));
            agree(&noise(600_000 + seed as usize, seed), (64, 4096, 65536));
        }
        agree(&vec![0; 1_000_001], LENGTHS);
        let text: Vec<u8> = (0..400_000u32).flat_map(|n| n.to_le_bytes()).collect();
        agree(&text, LENGTHS);
    }

    #[test]
    fn ends_of_any_length() {
        let data = noise(40 << 10, 1);
        for len in (0..200).chain(16_300..16_600).chain(20_400..20_600) {
            agree(&data[..len], LENGTHS);
        }
    }
}
