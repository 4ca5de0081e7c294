//! Chromium, and what a task does in it: started without a window, watched, spoken to by the
//! DevTools protocol over a pipe, which nobody else on the machine can reach.
//!
//! [`Browser`] is the process. [`run`] runs a script in a page of it, and tells apart how that
//! ends ([`End`]): the script's own failure, a crash, a lost GPU context, too little memory.
//! [`probe`] finds out what a browser can do here. What a script asks for (checkpoints, progress)
//! is the [`Host`]'s to answer: nothing here knows tasks or workers.

mod cdp;
mod console;
mod launch;
mod page;
pub mod probe;
mod run;

pub use cdp::CdpError;
pub use launch::{Browser, Exit, Launch, LaunchError, NotFound, find};
pub use probe::{Acceleration, Found};
pub use run::{Answer, End, Host, Level, MAX_MESSAGE, MAX_VALUE, Saved, Script, Wish, run};
