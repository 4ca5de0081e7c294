//! Links to a coordinator: TCP, TLS, WebSocket, and messages over it; and HTTP for bulk. This crate knows
//! nothing of tasks or sessions, and does not decide when to dial.

mod dial;
mod error;
mod http;
mod io;
mod limit;
mod link;
mod prove;
pub mod pulse;
mod tls;

pub use dial::Dialler;
pub use error::DialError;
pub use http::{Answer, Http};
pub use limit::{BodyLimit, Stopped};
pub use link::{Receiver, Sender};
pub use outlast_wire::Url;
