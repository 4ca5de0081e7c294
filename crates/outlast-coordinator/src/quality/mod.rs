//! Measuring: a meter per worker (`meters`), fed by its link (`tap`), by the core's news and by a
//! query of the core once a second (`sampler`); its history (`history`, `timeline`), and alerts.
//! Decides nothing about workers or tasks, and nothing waits for it.

mod adapted;
pub(crate) mod alerts;
pub(crate) mod fleet;
pub(crate) mod history;
pub(crate) mod meters;
mod news;
pub(crate) mod prom;
pub(crate) mod sampler;
pub(crate) mod tap;
pub(crate) mod timeline;
pub(crate) mod webhook;
