//! Where Rust's errors become Python's exceptions: the only place.

use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyTypeInfo, create_exception};
use turbopump_core::error::Refusal;
use turbopump_core::pipe::response::BrokenReply;
use turbopump_engine::engine::EngineError;

create_exception!(turbopump._native, TurbopumpError, PyException, "Everything that goes wrong here.");
create_exception!(turbopump._native, RequestError, TurbopumpError, "The request was wrong. Nothing changed.");
create_exception!(
    turbopump._native,
    ConflictError,
    TurbopumpError,
    "The condition of a write does not hold. Nothing changed."
);
create_exception!(turbopump._native, NotFoundError, TurbopumpError, "There is nothing under the key.");
create_exception!(
    turbopump._native,
    NoSpaceError,
    TurbopumpError,
    "The node or the keyspace is full. Nothing changed."
);
create_exception!(turbopump._native, UnavailableError, TurbopumpError, "The node could not answer.");
create_exception!(
    turbopump._native,
    DeniedError,
    TurbopumpError,
    "The client may not do this. Nothing changed."
);
create_exception!(
    turbopump._native,
    NodeFailedError,
    TurbopumpError,
    "A thread of this process's engine panicked."
);
create_exception!(
    turbopump._native,
    ProtocolError,
    TurbopumpError,
    "The peer broke the protocol. The connection is gone."
);

fn with_code<E: PyTypeInfo>(py: Python<'_>, code: &str, message: String) -> PyErr {
    let error = PyErr::from_type(E::type_object(py), message);
    match error.value(py).setattr("code", code) {
        Ok(()) => error,
        Err(failure) => failure,
    }
}

/// The exception for a refusal.
pub fn refused(py: Python<'_>, refusal: &Refusal) -> PyErr {
    let (code, message) = (refusal.code(), refusal.to_string());
    match refusal {
        Refusal::Exists(_) | Refusal::Missing | Refusal::VersionMismatch(_) | Refusal::Immutable(_) => {
            with_code::<ConflictError>(py, code, message)
        }
        Refusal::NotFound => with_code::<NotFoundError>(py, code, message),
        Refusal::NoSpace(_) => with_code::<NoSpaceError>(py, code, message),
        Refusal::Timeout
        | Refusal::Busy(_)
        | Refusal::Gone { .. }
        | Refusal::ShuttingDown
        | Refusal::Unavailable(_)
        | Refusal::Internal(_) => with_code::<UnavailableError>(py, code, message),
        Refusal::Denied(_) | Refusal::AuthRequired => with_code::<DeniedError>(py, code, message),
        _ => with_code::<RequestError>(py, code, message),
    }
}

/// The exception for a server that breaks the protocol.
pub fn broken(py: Python<'_>, broken: &BrokenReply) -> PyErr {
    with_code::<ProtocolError>(py, "protocol", broken.to_string())
}

/// The exception for an engine that cannot do it.
pub fn engine(py: Python<'_>, error: EngineError) -> PyErr {
    match error {
        EngineError::Layout(_) => PyValueError::new_err(error.to_string()),
        EngineError::Bind(..) => PyOSError::new_err(error.to_string()),
        EngineError::System(error) => PyOSError::new_err(error.to_string()),
        EngineError::Errno(errno) => PyOSError::new_err((errno.raw_os_error(), errno.to_string())),
        EngineError::Started => PyRuntimeError::new_err(error.to_string()),
        EngineError::Failed => with_code::<NodeFailedError>(py, "node_failed", error.to_string()),
    }
}

/// The exception for an option that is wrong.
pub fn option(name: &str, problem: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: {problem}"))
}
