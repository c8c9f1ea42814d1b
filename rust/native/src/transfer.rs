//! Files over the datagram engine, as Python calls it.

use std::net::SocketAddr;
use std::path::PathBuf;

use pyo3::exceptions::{PyConnectionError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use turbopump_engine::transfer::{Keys, Progress, TransferError, send, serve};
use turbopump_udt::config::Algorithm;
use turbopump_udt::{Config, PresharedKey, PrivateKey, PublicKey, Suite};

use crate::error;
use crate::options::Dict;

/// What both functions take.
struct Transfer {
    keys: Keys,
    address: SocketAddr,
    path: PathBuf,
    config: Config,
}

impl Transfer {
    fn parse(dict: &Bound<'_, PyDict>) -> PyResult<Self> {
        let dict = Dict::of("", dict)?;
        let address = dict.take::<Bound<'_, PyString>>("address")?;
        let address = address.to_str()?;
        let congestion = dict.take::<Bound<'_, PyString>>("congestion")?;
        let congestion = Algorithm::named(congestion.to_str()?)
            .ok_or_else(|| error::option("congestion", "is cubic, bbr or udt"))?;
        let wrong = |_| PyValueError::new_err(format!("address: {address} is no IP address with a port"));
        let transfer = Transfer {
            keys: Keys {
                private: PrivateKey::new(dict.take("private")?),
                peer: PublicKey(dict.take("peer")?),
                shared: PresharedKey::new(dict.take("shared")?),
            },
            address: address.parse().map_err(wrong)?,
            path: dict.take("path")?,
            config: Config { congestion, ..Config::default() },
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
    dict.set_item("state", stats.state)?;
    dict.set_item("suite", stats.suite.map(Suite::name))?;
    dict.set_item("congestion", stats.algorithm)?;
    dict.set_item("congestion_state", stats.congestion)?;
    let times =
        [("rtt_ms", stats.rtt), ("rtt_variance_ms", stats.rtt_variance), ("rtt_min_ms", stats.rtt_min)];
    for (name, time) in times {
        dict.set_item(name, time.as_secs_f64() * 1e3)?;
    }
    let counts = [
        ("window", stats.window),
        ("in_flight", stats.in_flight),
        ("pacing_rate", stats.pacing_rate),
        ("arrival_rate", stats.arrival_rate),
        ("capacity", stats.capacity),
        ("mtu", stats.mtu.into()),
        ("packets_sent", stats.packets_sent),
        ("bytes_sent", stats.bytes_sent),
        ("packets_received", stats.packets_received),
        ("bytes_received", stats.bytes_received),
        ("packets_lost", stats.packets_lost),
        ("bytes_lost", stats.bytes_lost),
        ("spurious_losses", stats.spurious_losses),
        ("timeouts", stats.timeouts),
        ("packets_rejected", stats.packets_rejected),
        ("handshakes", stats.handshakes),
    ];
    for (name, count) in counts {
        dict.set_item(name, count)?;
    }
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
    let Transfer { keys, address, path, config } = Transfer::parse(options)?;
    let mut raised = None;
    let result = py.detach(|| {
        let mut goes_on = |progress: &Progress| goes_on(watch, progress, &mut raised);
        send(&keys, address, &path, config, &mut goes_on)
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
    let Transfer { keys, address, path, config } = Transfer::parse(options)?;
    let (mut raised, mut unheard) = (None, None);
    let result = py.detach(|| {
        let mut tell = |address: SocketAddr| {
            unheard = Python::attach(|py| bound.call1(py, (address.to_string(),))).err();
        };
        let mut goes_on = |progress: &Progress| goes_on(watch, progress, &mut raised);
        serve(&keys, address, &path, config, &mut tell, &mut goes_on)
    });
    match raised.or(unheard) {
        Some(raised) => Err(raised),
        None => result.map_err(|error| failed(&error)),
    }
}
