//! Actions that the coordinator's core asks of its driver.

use super::ids::{ConnId, RequestId};
use super::loads::{LoadId, Query};
use super::news::LinkNews;
use super::request::Response;
use super::v1;
use crate::Millis;
use outlast_model::message::ToWorker;

/// Action for the driver.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send on a link, if it is still open.
    Send(ConnId, ToWorker),
    /// The same on a link of the v1 dialect.
    SendV1(ConnId, v1::ToWorker),
    /// Send a WebSocket ping with this number on a link of the v1 dialect; answer with `on_pong`.
    Ping(ConnId, u64),
    /// A silence of so many milliseconds may happen on this link, and is not its end; 0: what is
    /// configured holds.
    Timeout(ConnId, Millis),
    /// Close a link, after what was sent on it. No `on_close` need follow.
    Close(ConnId, String),
    /// Answer these queries from the store and the blobs, as they are after this output or later, then call
    /// `on_loaded` with the facts in their order. A driver that cannot read tries again.
    Load(LoadId, Vec<Query>),
    /// Answer a request.
    Reply(RequestId, Response),
    /// Tell those who watch; nothing rests on it.
    News(LinkNews),
    /// Write to the log. Comes once a second at most.
    Warn(String),
}
