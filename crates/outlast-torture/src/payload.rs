//! Content of a task's checkpoint: bytes that are derived from the task and the step alone, so that a
//! restore can be verified without keeping a copy.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// Blocks change one eighth at a time, as real checkpoints do: both the deltas and the sharing of
/// chunks are exercised.
const BLOCK: usize = 4096;
const ROUND: u64 = 8;

/// A hash that is the same in every process and every version of this program.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The checkpoint of `task` after `step`, `size` bytes long.
pub(crate) fn payload(task: &str, step: u32, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (n, block) in bytes.chunks_mut(BLOCK).enumerate() {
        let n = n as u64;
        let age = (u64::from(step) + n % ROUND) / ROUND;
        let seed = fnv(task.as_bytes()) ^ n.rotate_left(20) ^ age.rotate_left(48);
        SmallRng::seed_from_u64(seed).fill_bytes(block);
    }
    // No two steps are the same.
    let head = format!("{task} {step} {size}\n");
    let len = head.len().min(size);
    bytes[..len].copy_from_slice(&head.as_bytes()[..len]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_from_task_and_step() {
        let (a, b) = (payload("t-1", 10, 100_000), payload("t-1", 11, 100_000));
        assert_eq!(a, payload("t-1", 10, 100_000));
        let same = a.chunks(BLOCK).zip(b.chunks(BLOCK)).filter(|(a, b)| a == b).count();
        assert!((18..24).contains(&same), "{same} of 25 blocks are the same");
        assert_ne!(a, payload("t-2", 10, 100_000));
    }
}
