//! Proof that a coordinator knows a key, before the key is sent to it: a challenge that only a holder of
//! the key, or of its hash, can answer. Used where TLS does not authenticate the peer.
//!
//! The client sends the key's public part and a number of its own choice, once; the answer is a keyed
//! hash of that number. A process that took the coordinator's address while it was away learns nothing
//! from it. A process that relays everything to the coordinator gets the answer, and with it the key:
//! only TLS protects against that.

use serde::{Deserialize, Serialize};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Route of the challenge, below the coordinator's address.
pub const PATH: &str = "/api/v1/prove";
/// Prefix of the hashed bytes.
const CONTEXT: &[u8] = b"outlast: a coordinator's proof, version 1\0";
/// Allowed lengths of a challenge in characters.
const NONCE: std::ops::RangeInclusive<usize> = 32..=128;

/// Parameters of a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
pub struct Challenge {
    /// The public part of the key: `olk_<this>_…`.
    pub key: String,
    /// 32 to 128 hexadecimal digits, not used before.
    pub nonce: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Proof {
    /// BLAKE3 of the text `outlast: a coordinator's proof, version 1`, a zero, and the nonce, keyed
    /// with the BLAKE3 hash of the key's secret part; hexadecimal. Empty: no keys are needed here.
    pub proof: String,
}

impl Challenge {
    /// A new one for this key; `None` if that is none of ours.
    pub fn new(token: &str) -> Option<Challenge> {
        let (key, _) = split(token)?;
        // std seeds these from the system's randomness.
        let random = |n: u8| format!("{:016x}", RandomState::new().hash_one(n));
        Some(Challenge { key: key.into(), nonce: (0..4).map(random).collect() })
    }

    /// The path and query to ask at, below the coordinator's address. Without a body: one would not be
    /// read before there is a key.
    pub fn path(&self) -> String {
        // A public part is hexadecimal; a wrong one must not become part of the request's head.
        let key: String = self.key.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("{PATH}?key={key}&nonce={}", self.nonce)
    }

    /// Returns true if the challenge may be answered.
    pub fn is_valid(&self) -> bool {
        NONCE.contains(&self.nonce.len()) && self.nonce.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// The answer of who knows the hash of the key's secret part.
    pub fn answer(&self, hash: &[u8; 32]) -> Proof {
        let mut hasher = blake3::Hasher::new_keyed(hash);
        hasher.update(CONTEXT).update(self.nonce.as_bytes());
        Proof { proof: hasher.finalize().to_hex().to_string() }
    }

    /// Returns true if this answer is correct for the key that the challenge was made for.
    pub fn is_proven(&self, token: &str, answer: &Proof) -> bool {
        let Some((_, secret)) = split(token) else { return false };
        let right = self.answer(blake3::hash(secret.as_bytes()).as_bytes());
        // Hashes are compared in the same time wherever they differ.
        blake3::hash(right.proof.as_bytes()) == blake3::hash(answer.proof.as_bytes())
    }
}

/// The public and the secret part.
fn split(token: &str) -> Option<(&str, &str)> {
    token.trim().strip_prefix("olk_")?.split_once('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_key_can_answer() {
        let token = "olk_ab12_5ec4e7";
        let challenge = Challenge::new(token).unwrap();
        assert_eq!((challenge.key.as_str(), challenge.is_valid()), ("ab12", true));
        let path = format!("/api/v1/prove?key=ab12&nonce={}", challenge.nonce);
        assert_eq!(challenge.path(), path);
        assert_ne!(challenge.nonce, Challenge::new(token).unwrap().nonce);
        let answer = challenge.answer(blake3::hash(b"5ec4e7").as_bytes());
        assert!(challenge.is_proven(token, &answer));
        // Not of another key, of another challenge, or of a guess.
        assert!(!challenge.is_proven("olk_ab12_other", &answer));
        assert!(!Challenge::new(token).unwrap().is_proven(token, &answer));
        for wrong in ["", "0", &answer.proof[1..]] {
            assert!(!challenge.is_proven(token, &Proof { proof: wrong.into() }), "{wrong}");
        }
        assert_eq!(Challenge::new("something else"), None);
        for nonce in [String::new(), "0".repeat(31), "0".repeat(129), "g".repeat(32)] {
            assert!(!Challenge { key: "k".into(), nonce }.is_valid());
        }
    }
}
