//! Further documents for the dashboard: the login, and the throughput of the fleet.

use serde::{Deserialize, Serialize};

documents! {
    /// Logs in.
    pub struct Login {
        /// An API key of role submit or operate.
        pub key: String,
    }

    /// Current login.
    pub struct Session {
        /// Role of the login: submit or operate; null: not logged in.
        #[serde(default)]
        pub role: Option<String>,
        /// True if a key is required.
        pub needed: bool,
        /// End of the session; null without one.
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
        /// Attempts that were abandoned and are retried.
        pub requeued: Vec<u32>,
        /// Tasks that wait for a worker, at the end of the interval.
        pub waiting: Vec<u32>,
    }
}
