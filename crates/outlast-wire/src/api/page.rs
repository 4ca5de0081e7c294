//! What the dashboard needs beside the rest: who is logged in, and how busy the fleet was.

use serde::{Deserialize, Serialize};

documents! {
    /// Logs in.
    pub struct Login {
        /// An API key of role submit or operate.
        pub key: String,
    }

    /// Who is logged in.
    pub struct Session {
        /// What may be done: submit or operate; null: log in first.
        #[serde(default)]
        pub role: Option<String>,
        /// Whether a key is needed at all.
        pub needed: bool,
        /// When the session ends; null without one.
        #[serde(default)]
        pub expires_at: Option<String>,
    }

    /// Tasks over time, a column each, since the coordinator started.
    pub struct Throughput {
        /// Milliseconds from one to the next.
        pub step_ms: u64,
        /// Ends of the intervals, Unix milliseconds, in order.
        pub at: Vec<i64>,
        /// Tasks accepted within the interval.
        pub submitted: Vec<u32>,
        /// Tasks that ended well.
        pub succeeded: Vec<u32>,
        /// Tasks that ended badly.
        pub failed: Vec<u32>,
        /// Tasks that ended on request.
        pub cancelled: Vec<u32>,
        /// Attempts that were given up and are tried again.
        pub requeued: Vec<u32>,
        /// Tasks that wait for a worker, at the end of the interval.
        pub waiting: Vec<u32>,
    }
}
