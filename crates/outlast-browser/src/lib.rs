//! Chromium for tasks: started without a window, watched, and controlled by the
//! DevTools protocol over a pipe, which nobody else on the machine can reach.
//!
//! [`Browser`] is the process. [`run`] runs a script in a page of it, and distinguishes its
//! ends ([`End`]): the script's own failure, a crash, a lost GPU context, too little memory.
//! [`probe`] measures what a browser can do here. Requests of a script (checkpoints, progress)
//! are answered by the [`Host`]: nothing here knows tasks or workers.

mod cdp;
mod console;
mod launch;
mod message;
mod page;
pub mod probe;
mod pump;
mod run;
mod script;

pub use cdp::CdpError;
pub use launch::{Browser, Exit, Launch, LaunchError, NotFound, find};
pub use message::MAX_MESSAGE;
pub use probe::{Acceleration, Found};
pub use run::{MAX_VALUE, run};
pub use script::{Answer, End, Host, Level, Saved, Script, Wish};
