//! Recovery from failures. Pure: evidence becomes a class ([`mod@classify`]), and class, hardware,
//! history and fleet become an action with its reason ([`mod@plan`]), driven by a table that users
//! can read and override ([`table`]). [`knobs`] changes a task's settings, [`patterns`] finds repeated
//! failures, [`reported`] serves programs that report failures themselves. The coordinator's `recover`
//! module requests decisions and carries them out.

pub mod classify;
mod device;
mod follow;
pub mod knobs;
pub mod patterns;
pub mod plan;
pub mod reported;
mod rules;
mod said;
pub mod state;
pub mod table;

pub use classify::{Classified, Evidence, Rules};
pub use outlast_model::recovery::{FailureClass, HardwareClass, Strategy};
pub use patterns::{Failure, Pattern, PatternKind, Quarantine};
pub use plan::{Blame, Budget, Fleet, Plan, Situation, plan};
pub use state::{Decision, Learned, TaskRecovery, Tried};
pub use table::{Config, Ladders};
