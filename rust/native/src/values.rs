//! Values that cross the border between the languages.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyString};
use turbopump_core::error;
use turbopump_core::replica::Body;
use turbopump_core::reply::Reply;

/// Bytes, or text that stands for its UTF-8.
pub struct Key(pub Vec<u8>);

impl<'py> FromPyObject<'_, 'py> for Key {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.cast::<PyString>() {
            return Ok(Key(text.to_str()?.as_bytes().to_vec()));
        }
        Ok(Key(object.cast::<PyBytes>()?.as_bytes().to_vec()))
    }
}

/// A value for Python. A large one is copied while Python goes on.
pub fn bytes<'py>(py: Python<'py>, value: &Body<'static>) -> PyResult<Bound<'py, PyBytes>> {
    let Body::Shared(blob) = value else { return Ok(PyBytes::new(py, value.piece())) };
    // SAFETY: `PyBytes_FromStringAndSize` returns a new object, or null with an error set. Nobody else has
    // seen it, so its bytes, which no pointer of Python's reaches yet, may be written: `len` of them, once.
    unsafe {
        let len = blob.len();
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let room = ffi::PyBytes_AsString(object.as_ptr()) as usize;
        py.detach(|| {
            let mut at = room as *mut u8;
            for chunk in blob.chunks() {
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), at, chunk.len());
                at = at.add(chunk.len());
            }
        });
        Ok(object)
    }
}

/// An error to answer a cold command with.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Refusal {
    code: String,
    message: String,
}

#[pymethods]
impl Refusal {
    #[new]
    fn new(code: String, message: String) -> Self {
        Refusal { code, message }
    }

    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("code", "message")
    }

    fn __repr__(&self) -> String {
        format!("Refusal({:?}, {:?})", self.code, self.message)
    }
}

/// The answer to a cold command; a `TypeError` when it is none that a protocol can say.
pub fn reply(object: &Bound<'_, PyAny>) -> PyResult<Reply> {
    convert(object).map_err(|error| {
        let text = error.value(object.py()).to_string();
        PyTypeError::new_err(format!("no protocol can say this answer: {text}"))
    })
}

fn convert(object: &Bound<'_, PyAny>) -> PyResult<Reply> {
    if object.is_none() {
        return Ok(Reply::Nil);
    }
    if let Ok(value) = object.cast::<PyBool>() {
        return Ok(if value.is_true() { Reply::Ok } else { Reply::Int(0) });
    }
    if let Ok(value) = object.cast::<PyInt>() {
        return Ok(Reply::Int(value.extract()?));
    }
    if let Ok(value) = object.cast::<PyString>() {
        return Ok(Reply::Text(value.to_str()?.to_owned()));
    }
    if let Ok(value) = object.cast::<PyBytes>() {
        return Ok(Reply::Bytes(value.as_bytes().to_vec()));
    }
    if let Ok(items) = object.cast::<PyList>() {
        return Ok(Reply::List(items.iter().map(|item| convert(&item)).collect::<PyResult<_>>()?));
    }
    if let Ok(pairs) = object.cast::<PyDict>() {
        let pair =
            |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| Ok((name.extract()?, convert(&value)?));
        return Ok(Reply::Map(pairs.iter().map(pair).collect::<PyResult<_>>()?));
    }
    if let Ok(refusal) = object.cast::<Refusal>() {
        let Refusal { code, message } = refusal.get();
        return Ok(Reply::Refused(error::Refusal::Told { code: code.clone(), message: message.clone() }));
    }
    Err(PyTypeError::new_err(format!("an answer is not a {}", object.get_type().name()?)))
}
