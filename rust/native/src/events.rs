//! News from the engine, as Python sees it.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use turbopump_core::feed::Change;
use turbopump_engine::events::Event;

/// A client sent a cold command.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Asked {
    ask: u64,
    command: &'static str,
    args: Vec<Py<PyBytes>>,
}

/// A thread of the engine has something to say.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Logged {
    level: &'static str,
    event: &'static str,
    fields: Py<PyDict>,
}

/// A thread of the engine panicked.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Failed {
    message: String,
}

/// The key of a wait has a value now, or had one.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Appeared {
    wait: u64,
}

/// A call of `Engine.execute` is answered.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Replied {
    call: u64,
    reply: Py<PyBytes>,
}

/// There are changes for who watches.
#[pyclass(frozen, module = "turbopump._native")]
pub struct Stirred {}

/// A key has changed.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Changed {
    revision: u64,
    kind: &'static str,
    key: Py<PyBytes>,
    version: String,
    size: u64,
}

impl Changed {
    /// A change, as Python sees it.
    pub fn of(py: Python<'_>, change: &Change) -> PyResult<Py<Changed>> {
        let (revision, kind, size) = (change.revision, change.kind.name(), change.size);
        let key = PyBytes::new(py, &change.key).unbind();
        Py::new(py, Changed { revision, kind, key, version: change.version.to_string(), size })
    }
}

/// The drain is over.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Drained {
    answered: u64,
    aborted: u64,
}

#[pymethods]
impl Asked {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str) {
        ("ask", "command", "args")
    }
}

#[pymethods]
impl Logged {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str) {
        ("level", "event", "fields")
    }
}

#[pymethods]
impl Failed {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("message",)
    }
}

#[pymethods]
impl Appeared {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("wait",)
    }
}

#[pymethods]
impl Replied {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("call", "reply")
    }
}

#[pymethods]
impl Changed {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str, &'static str) {
        ("revision", "kind", "key", "version", "size")
    }
}

#[pymethods]
impl Drained {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("answered", "aborted")
    }
}

/// An event as its Python class.
pub fn object(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Asked { ask, command, args } => {
            let args = args.iter().map(|arg| PyBytes::new(py, arg).unbind()).collect();
            Py::new(py, Asked { ask, command, args })?.into_any()
        }
        Event::Logged { level, event, fields } => {
            let dict = PyDict::new(py);
            fields.into_iter().try_for_each(|(name, value)| dict.set_item(name, value))?;
            Py::new(py, Logged { level, event, fields: dict.unbind() })?.into_any()
        }
        Event::Failed(message) => Py::new(py, Failed { message })?.into_any(),
        Event::Appeared(wait) => Py::new(py, Appeared { wait })?.into_any(),
        Event::Replied { call, reply } => {
            Py::new(py, Replied { call, reply: PyBytes::new(py, &reply).unbind() })?.into_any()
        }
        Event::Stirred => Py::new(py, Stirred {})?.into_any(),
        Event::Changed(change) => Changed::of(py, &change)?.into_any(),
        Event::Drained { answered, aborted } => Py::new(py, Drained { answered, aborted })?.into_any(),
    })
}
