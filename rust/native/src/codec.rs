//! The client's half of the pipe protocol, as Python sees it.

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use turbopump_core::pipe::commands;
use turbopump_core::pipe::request::write_header;
use turbopump_core::pipe::response::{self, Response};

use crate::error;
use crate::values::Key;

/// Bodies this long are believed unless the caller says otherwise.
const REPLY_MAX: usize = 2 << 30;

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
    fn of(py: Python<'_>, response: Response) -> PyResult<Self> {
        let params = PyDict::new(py);
        let mut code = None;
        for (name, value) in response.params {
            if name == "code" && !response.ok { code = Some(value) } else { params.set_item(name, value)? }
        }
        let code = if response.ok { None } else { Some(code.unwrap_or_else(|| "internal".into())) };
        let body = PyBytes::new(py, &response.body).unbind();
        Ok(Answer { id: response.id, code, params: params.unbind(), body })
    }
}

#[derive(Default)]
struct State {
    next_id: u64,
    received: Vec<u8>,
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
        ClientCodec { reply_max: max_reply, state: Mutex::new(State { next_id: 1, received: Vec::new() }) }
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
        let mut state = self.state.lock();
        state.received.extend_from_slice(data);
        let (mut at, mut answers) = (0, Vec::new());
        while let Some((response, length)) = response::read(&state.received[at..], self.reply_max)
            .map_err(|broken| error::broken(py, &broken))?
        {
            answers.push(Answer::of(py, response)?);
            at += length;
        }
        state.received.drain(..at);
        Ok(answers)
    }
}
