//! The interruption of a thread: `TaskStopped` is raised in it, which ends what comes back to Python code and
//! lets it pass.
#![allow(unsafe_code)]

use crate::watch::Why;
use pyo3::prelude::*;
use std::ffi::{c_long, c_ulong};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The thread of a task, as long as something may be raised in it. It is read and changed with the GIL held
/// only.
#[derive(Default)]
pub struct Thread(Mutex<State>);

#[derive(Default)]
struct State {
    id: Option<c_ulong>,
    /// The first reason why `TaskStopped` was raised in it.
    why: Option<Why>,
}

impl Thread {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the work in this thread; meanwhile it may be interrupted. Nothing is raised any more once
    /// this has returned.
    pub fn run<'py>(&self, work: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = work.py();
        let id = py.import("threading")?.call_method0("get_ident")?.extract()?;
        self.lock().id = Some(id);
        let done = work.call0();
        let mut state = self.lock();
        state.id = None;
        // SAFETY: the GIL is held; null takes back what was not raised yet.
        unsafe { pyo3::ffi::PyThreadState_SetAsyncExc(id as c_long, std::ptr::null_mut()) };
        drop(state);
        done
    }

    /// Raises `TaskStopped` in it, if it runs still.
    pub fn interrupt(&self, py: Python<'_>, why: Why) -> PyResult<()> {
        let class = py.import("outlast.errors")?.getattr("TaskStopped")?;
        let mut state = self.lock();
        let Some(id) = state.id else { return Ok(()) };
        state.why.get_or_insert(why);
        // SAFETY: the GIL is held, and the class is alive; the thread takes a reference of its own.
        unsafe { pyo3::ffi::PyThreadState_SetAsyncExc(id as c_long, class.as_ptr()) };
        Ok(())
    }

    /// The first reason why it was interrupted.
    pub fn why(&self) -> Option<Why> {
        self.lock().why
    }

    /// Returns whether it runs still.
    pub fn runs(&self) -> bool {
        self.lock().id.is_some()
    }
}
