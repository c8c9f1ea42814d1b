//! The client's half of the pipe protocol, as Python sees it.

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use turbopump_core::pipe::commands;
use turbopump_core::pipe::request::write_header;
use turbopump_core::pipe::response::{self, BrokenReply, Response};

use crate::error;
use crate::values::Key;

/// Bodies this long are believed unless the caller says otherwise.
const REPLY_MAX: usize = 2 << 30;

/// A buffer that has held a large reply shrinks back to this many bytes.
const RECEIVED_KEPT: usize = 64 * 1024;

/// A framed reply.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Answer {
    id: u64,
    code: Option<String>,
    params: Py<PyDict>,
    body: Py<PyBytes>,
}

#[pymethods]
impl Answer {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("id", "code", "params", "body")
    }
}

impl Answer {
    fn of(py: Python<'_>, response: Response<'_>) -> PyResult<Self> {
        let params = PyDict::new(py);
        let mut code = None;
        for (name, value) in response.params {
            if name == "code" && !response.ok { code = Some(value) } else { params.set_item(name, value)? }
        }
        let code = if response.ok { None } else { Some(code.unwrap_or_else(|| "internal".into())) };
        let body = PyBytes::new(py, response.body).unbind();
        Ok(Answer { id: response.id, code, params: params.unbind(), body })
    }
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// What has come of a reply that is not whole.
    received: Vec<u8>,
    /// What was wrong with the replies: nothing more is read.
    broken: Option<BrokenReply>,
}

/// One connection's codec.
#[pyclass(frozen, module = "turbopump._native")]
pub struct ClientCodec {
    reply_max: usize,
    state: Mutex<State>,
}

#[pymethods]
impl ClientCodec {
    #[new]
    #[pyo3(signature = (max_reply = REPLY_MAX))]
    fn new(max_reply: usize) -> Self {
        ClientCodec { reply_max: max_reply, state: Mutex::new(State { next_id: 1, ..State::default() }) }
    }

    #[pyo3(signature = (password = None))]
    fn hello<'py>(&self, py: Python<'py>, password: Option<&str>) -> Bound<'py, PyBytes> {
        let mut out = Vec::new();
        if let Some(password) = password {
            write_header(
                &mut out,
                "auth",
                &[("password", password.as_bytes()), ("id", b"0"), ("frame", b"1")],
            );
            out.push(b'\n');
        }
        write_header(&mut out, "keep", &[("frame", b"1"), ("id", b"0")]);
        out.push(b'\n');
        PyBytes::new(py, &out)
    }

    #[pyo3(signature = (command, params, value = None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        command: &str,
        params: &Bound<'py, PyDict>,
        value: Option<&[u8]>,
    ) -> PyResult<(u64, Bound<'py, PyBytes>)> {
        if commands::find(command.as_bytes()).is_none() {
            return Err(PyValueError::new_err(format!("there is no command {command:?}")));
        }
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::with_capacity(params.len() + 2);
        for (name, value) in params.iter() {
            let name: String = name.extract()?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                return Err(PyValueError::new_err(format!("{name:?} is not the name of a parameter")));
            }
            let text = |number: i64| number.to_string().into_bytes();
            let value =
                value.extract::<i64>().map(text).or_else(|_| value.extract::<Key>().map(|key| key.0))?;
            pairs.push((name, value));
        }
        let id = {
            let mut state = self.state.lock();
            state.next_id += 1;
            state.next_id - 1
        };
        pairs.push(("id".into(), id.to_string().into_bytes()));
        if let Some(value) = value {
            pairs.push(("length".into(), value.len().to_string().into_bytes()));
        }
        let pairs: Vec<(&str, &[u8])> =
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let mut out = Vec::with_capacity(128 + value.map_or(0, <[u8]>::len));
        write_header(&mut out, command, &pairs);
        out.extend_from_slice(value.unwrap_or_default());
        out.push(b'\n');
        Ok((id, PyBytes::new(py, &out)))
    }

    fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<Vec<Answer>> {
        let state = &mut *self.state.lock();
        let received = &mut state.received;
        let fresh = received.is_empty();
        if !fresh {
            received.extend_from_slice(data);
        }
        // Most replies come whole: they are read where they are.
        let buffer = if fresh { data } else { received.as_slice() };
        let (mut at, mut answers) = (0, Vec::new());
        while state.broken.is_none() {
            match response::read(&buffer[at..], self.reply_max) {
                Ok(Some((response, length))) => {
                    answers.push(Answer::of(py, response)?);
                    at += length;
                }
                Ok(None) => break,
                Err(broken) => state.broken = Some(broken),
            }
        }
        if let Some(broken) = &state.broken {
            return Err(error::broken(py, broken));
        }
        if fresh {
            received.extend_from_slice(&data[at..]);
        } else if at > 0 {
            received.drain(..at);
            received.shrink_to(RECEIVED_KEPT);
        }
        Ok(answers)
    }
}
