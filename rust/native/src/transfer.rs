//! Files over the datagram engine, as Python calls it.

use std::net::SocketAddr;
use std::path::PathBuf;

use pyo3::exceptions::{PyConnectionError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use turbopump_engine::transfer::{Keys, Progress, TransferError, send, serve};
use turbopump_udt::{Config, PresharedKey, PrivateKey, PublicKey};

use crate::options::Dict;

/// What both functions take.
struct Transfer {
    keys: Keys,
    address: SocketAddr,
    path: PathBuf,
}

impl Transfer {
    fn parse(dict: &Bound<'_, PyDict>) -> PyResult<Self> {
        let dict = Dict::of("", dict)?;
        let address = dict.take::<Bound<'_, PyString>>("address")?;
        let address = address.to_str()?;
        let wrong = |_| PyValueError::new_err(format!("address: {address} is no IP address with a port"));
        let transfer = Transfer {
            keys: Keys {
                private: PrivateKey::new(dict.take("private")?),
                peer: PublicKey(dict.take("peer")?),
                shared: PresharedKey::new(dict.take("shared")?),
            },
            address: address.parse().map_err(wrong)?,
            path: dict.take("path")?,
        };
        dict.finish()?;
        Ok(transfer)
    }
}

fn failed(error: &TransferError) -> PyErr {
    let text = error.to_string();
    match error {
        TransferError::System(..) => PyOSError::new_err(text),
        TransferError::Refused(_) | TransferError::Name(_) => PyValueError::new_err(text),
        _ => PyConnectionError::new_err(text),
    }
}

fn dict<'py>(py: Python<'py>, progress: &Progress) -> PyResult<Bound<'py, PyDict>> {
    let (dict, stats) = (PyDict::new(py), &progress.stats);
    dict.set_item("name", &progress.name)?;
    dict.set_item("bytes", progress.bytes)?;
    dict.set_item("done", progress.done)?;
    dict.set_item("seconds", progress.elapsed.as_secs_f64())?;
    dict.set_item("congestion", stats.congestion)?;
    dict.set_item("rtt_ms", stats.rtt.as_secs_f64() * 1e3)?;
    dict.set_item("rtt_min_ms", stats.rtt_min.as_secs_f64() * 1e3)?;
    dict.set_item("window", stats.window)?;
    dict.set_item("mtu", stats.mtu)?;
    dict.set_item("packets_sent", stats.packets_sent)?;
    dict.set_item("packets_received", stats.packets_received)?;
    dict.set_item("packets_lost", stats.packets_lost)?;
    Ok(dict)
}

/// Asks Python whether to go on; an exception, such as that of Ctrl-C, is kept and ends it.
fn goes_on(watch: &Py<PyAny>, progress: &Progress, raised: &mut Option<PyErr>) -> bool {
    let answer = Python::attach(|py| {
        py.check_signals()?;
        watch.call1(py, (dict(py, progress)?,))?.extract::<bool>(py)
    });
    answer.unwrap_or_else(|error| {
        raised.get_or_insert(error);
        false
    })
}

/// Sends a file.
pub fn transfer_send<'py>(
    py: Python<'py>,
    options: &Bound<'py, PyDict>,
    watch: &Py<PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let Transfer { keys, address, path } = Transfer::parse(options)?;
    let mut raised = None;
    let result = py.detach(|| {
        let mut goes_on = |progress: &Progress| goes_on(watch, progress, &mut raised);
        send(&keys, address, &path, Config::default(), &mut goes_on)
    });
    match (raised, result) {
        (Some(raised), _) => Err(raised),
        (None, Ok(progress)) => dict(py, &progress),
        (None, Err(error)) => Err(failed(&error)),
    }
}

/// Receives files until it is told to end.
pub fn transfer_serve(
    py: Python<'_>,
    options: &Bound<'_, PyDict>,
    bound: &Py<PyAny>,
    watch: &Py<PyAny>,
) -> PyResult<()> {
    let Transfer { keys, address, path } = Transfer::parse(options)?;
    let (mut raised, mut unheard) = (None, None);
    let result = py.detach(|| {
        let mut tell = |address: SocketAddr| {
            unheard = Python::attach(|py| bound.call1(py, (address.to_string(),))).err();
        };
        let mut goes_on = |progress: &Progress| goes_on(watch, progress, &mut raised);
        serve(&keys, address, &path, Config::default(), &mut tell, &mut goes_on)
    });
    match raised.or(unheard) {
        Some(raised) => Err(raised),
        None => result.map_err(|error| failed(&error)),
    }
}
