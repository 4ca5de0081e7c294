//! Inputs from inputs.

use rand::Rng;
use rand::rngs::SmallRng;

/// The longest input that is made, in bytes.
const LONGEST: usize = 1 << 20;
/// Numbers at which something may change.
const EDGES: [u64; 12] = [0, 1, 2, 127, 128, 255, 256, 65_535, 65_536, 1 << 31, 1 << 56, u64::MAX];

/// Changes inputs.
pub struct Mutator<'a> {
    /// Source of randomness.
    pub rng: &'a mut SmallRng,
    /// Dictionary of words that readers recognize.
    pub words: &'static [&'static str],
}

impl Mutator<'_> {
    /// Picks one of the inputs and changes it a few times.
    pub fn mutated(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one(inputs).to_vec();
        for _ in 0..self.rng.random_range(1..=6) {
            self.change(&mut input, inputs);
        }
        input.truncate(LONGEST);
        input
    }

    fn one<'b>(&mut self, inputs: &'b [Vec<u8>]) -> &'b [u8] {
        if inputs.is_empty() { &[] } else { &inputs[self.rng.random_range(0..inputs.len())] }
    }

    /// A part of so many bytes: mostly short.
    fn part(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.rng.random_range(0..=len);
        let most = if self.rng.random_ratio(1, 4) { len - from } else { (len - from).min(16) };
        from..from + self.rng.random_range(0..=most)
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.rng.random_range(0..=input.len());
        match self.rng.random_range(0..9) {
            0 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] ^= 1 << self.rng.random_range(0..8);
            }
            1 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] = self.rng.random();
            }
            2 => drop(input.drain(self.part(input.len()))),
            // Again and again: what grows out of proportion is mostly a list.
            3 | 4 => {
                let part = input[self.part(input.len())].to_vec();
                let room = LONGEST.saturating_sub(input.len()) / part.len().max(1);
                let times = 1_usize << self.rng.random_range(0..16);
                let many = part.repeat(times.min(room));
                input.splice(at..at, many);
            }
            5 => {
                let other = self.one(inputs);
                let part = other[self.part(other.len())].to_vec();
                input.splice(at..at, part);
            }
            6 if !self.words.is_empty() => {
                let word = self.words[self.rng.random_range(0..self.words.len())];
                input.splice(at..at, word.bytes());
            }
            7 => {
                let number = EDGES[self.rng.random_range(0..EDGES.len())];
                let bytes = match self.rng.random_range(0..3) {
                    0 => number.to_string().into_bytes(),
                    1 => number.to_le_bytes()[..4].to_vec(),
                    _ => varint(number),
                };
                let end = (at + bytes.len()).min(input.len());
                input.splice(at..if self.rng.random() { end } else { at }, bytes);
            }
            _ => input.truncate(at),
        }
    }
}

/// A number as protobuf has it.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
