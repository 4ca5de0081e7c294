//! The memory of Python objects, read in place: what a checkpoint of an array is made from, in this
//! process or in that of a task.
//!
//! The stable ABI has the buffer protocol from Python 3.11 on; this package is for 3.9. CPython
//! exports the same two functions with the same structure since 3.3, so they are declared here.

#![allow(unsafe_code)]

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

#[repr(C)]
struct PyBuffer {
    buf: *mut c_void,
    obj: *mut ffi::PyObject,
    len: isize,
    itemsize: isize,
    readonly: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut isize,
    strides: *mut isize,
    suboffsets: *mut isize,
    internal: *mut c_void,
}

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut ffi::PyObject, view: *mut PyBuffer, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut PyBuffer);
}

/// Contiguous bytes, that need not be writable; and that must be.
const SIMPLE: c_int = 0;
const WRITABLE: c_int = 1;

/// An object's memory. It stays where it is while this lives; its content may be changed by
/// others at any time, so it is only ever copied from and to, never lent as a slice.
pub(crate) struct View(Box<PyBuffer>);

// SAFETY: a view is a pointer to memory that the object may not move or free before the release,
// which is done with the GIL. No method gives a reference into it.
unsafe impl Send for View {}
// SAFETY: as above; reading while others write gives either's bytes, which is said to callers.
unsafe impl Sync for View {}

impl View {
    fn of(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<View> {
        let empty = PyBuffer {
            buf: std::ptr::null_mut(),
            obj: std::ptr::null_mut(),
            len: 0,
            itemsize: 0,
            readonly: 0,
            ndim: 0,
            format: std::ptr::null_mut(),
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            suboffsets: std::ptr::null_mut(),
            internal: std::ptr::null_mut(),
        };
        let mut view = Box::new(empty);
        // SAFETY: the object is alive and we have the GIL; the structure is that of CPython, and
        // stays at its place in the box, as some exporters rely on.
        if unsafe { PyObject_GetBuffer(object.as_ptr(), &mut *view, flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(View(view))
    }

    /// Returns a view of a readable object.
    pub(crate) fn read(object: &Bound<'_, PyAny>) -> PyResult<View> {
        View::of(object, SIMPLE)
    }

    /// Returns a view of a writable object.
    pub(crate) fn write(object: &Bound<'_, PyAny>) -> PyResult<View> {
        View::of(object, WRITABLE)
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.0.len).unwrap_or(0)
    }

    /// Copies from `at` on; how much there was.
    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        let count = self.len().saturating_sub(at).min(to.len());
        if count > 0 {
            // SAFETY: the range lies within the view, `to` is our own and as long.
            unsafe {
                let from = self.0.buf.cast::<u8>().add(at);
                std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), count);
            }
        }
        count
    }

    /// Copies there; what does not fit is left out.
    pub(crate) fn copy_in(&self, at: usize, from: &[u8]) {
        let count = self.len().saturating_sub(at).min(from.len());
        if count > 0 && self.0.readonly == 0 {
            // SAFETY: the range lies within the view, which can be written to, and `from` is ours.
            unsafe {
                let to = self.0.buf.cast::<u8>().add(at);
                std::ptr::copy_nonoverlapping(from.as_ptr(), to, count);
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Without an interpreter nothing is freed any more, and nobody would miss it.
        let _ = Python::try_attach(|_| {
            // SAFETY: made by PyObject_GetBuffer, released once, with the GIL.
            unsafe {
                PyBuffer_Release(&mut *self.0);
            }
        });
    }
}

/// Views one behind the other, as one stream that can be read again and again.
pub(crate) struct Views(Vec<View>);

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Views({} parts)", self.0.len())
    }
}

impl Views {
    /// Returns views of a sequence of objects with buffers.
    pub(crate) fn of(parts: &[Bound<'_, PyAny>]) -> PyResult<Views> {
        Ok(Views(parts.iter().map(View::read).collect::<PyResult<_>>()?))
    }
}

struct Stream {
    views: Arc<Views>,
    part: usize,
    at: usize,
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(view) = self.views.0.get(self.part) {
            let count = view.copy_out(self.at, &mut buf[filled..]);
            filled += count;
            self.at += count;
            if self.at < view.len() {
                break;
            }
            (self.part, self.at) = (self.part + 1, 0);
        }
        Ok(filled)
    }
}

impl outlast_worker::local::Memory for Views {
    fn read(self: Arc<Self>) -> Box<dyn Read + Send> {
        Box::new(Stream { views: self, part: 0, at: 0 })
    }
}

/// Objects whose memory stays where it is while this lives, for another process to read.
#[pyclass(frozen, module = "outlast._outlast")]
pub struct Held(Views);

#[pymethods]
impl Held {
    #[new]
    fn new(parts: Vec<Bound<'_, PyAny>>) -> PyResult<Held> {
        Ok(Held(Views::of(&parts)?))
    }

    /// (address, bytes) of each.
    #[getter]
    fn parts(&self) -> Vec<(usize, usize)> {
        self.0.0.iter().map(|view| (view.0.buf.addr(), view.len())).collect()
    }
}

/// Memory of a process that this one may read, as a parent may.
#[derive(Debug)]
pub(crate) struct Foreign {
    process: Pid,
    /// The same memory: it reads slower, and ends with the process, while a number may be reused.
    memory: File,
    /// (address, bytes) of each part.
    parts: Vec<(u64, u64)>,
}

impl Foreign {
    /// # Errors
    /// If the system does not let us, or there is no such memory.
    pub(crate) fn of(process: u32, parts: Vec<(u64, u64)>) -> io::Result<Foreign> {
        let memory = File::open(format!("/proc/{process}/mem"))?;
        let process = i32::try_from(process).map_err(|_| io::ErrorKind::InvalidInput)?;
        let foreign = Foreign { process: Pid::from_raw(process), memory, parts };
        for (at, bytes) in foreign.parts.iter().filter(|(_, bytes)| *bytes > 0) {
            foreign.read(*at, &mut [0])?;
            foreign.read(at.saturating_add(bytes - 1), &mut [0])?;
        }
        foreign.still_there()?;
        Ok(foreign)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let (base, len) = (usize::try_from(at).unwrap_or(usize::MAX), into.len());
        let from = [RemoteIoVec { base, len }];
        Ok(process_vm_readv(self.process, &mut [IoSliceMut::new(into)], &from)?)
    }

    /// Checks that the data read so far came from this process, and not from another one with its number.
    fn still_there(&self) -> io::Result<()> {
        match self.parts.iter().find(|(_, bytes)| *bytes > 0) {
            Some((at, _)) => self.memory.read_exact_at(&mut [0], *at),
            None => Ok(()),
        }
    }
}

struct ForeignStream {
    of: Arc<Foreign>,
    part: usize,
    at: u64,
}

impl Read for ForeignStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some((start, bytes)) = self.of.parts.get(self.part) {
            let left = bytes - self.at;
            if left == 0 {
                (self.part, self.at) = (self.part + 1, 0);
                continue;
            }
            let count = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.of.read(start + self.at, &mut buf[..count])?;
            if read == 0 && count > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += read as u64;
            return Ok(read);
        }
        self.of.still_there()?;
        Ok(0)
    }
}

impl outlast_worker::local::Memory for Foreign {
    fn read(self: Arc<Self>) -> Box<dyn Read + Send> {
        Box::new(ForeignStream { of: self, part: 0, at: 0 })
    }
}
