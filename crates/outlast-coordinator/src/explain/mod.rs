//! A task's story in plain sentences: why it waits, was moved, was run twice, is paused, failed.
//! Pure: from facts to words. `facts` has what is known, `story` makes sentences of it: `attempts`
//! of each try, `present` of how the task stands now; `words` says times, sizes and causes.

mod attempts;
pub(crate) mod facts;
mod present;
pub(crate) mod story;
#[cfg(test)]
mod tests;
mod words;
