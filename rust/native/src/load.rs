//! The load generator, as Python calls it.

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use turbopump_load::{Latency, LoadError, Options, Protocol, Report, run};

use crate::options::Dict;

/// Runs a load; a signal that Python handles by raising, such as Ctrl-C, ends it.
pub fn load<'py>(py: Python<'py>, options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let options = parse(options)?;
    let mut interrupt = None;
    let result = py.detach(|| {
        run(&options, &mut |progress| {
            if let Err(error) = Python::attach(|py| py.check_signals()) {
                interrupt.get_or_insert(error);
                progress.stop();
            }
        })
    });
    match (interrupt, result) {
        (Some(interrupt), _) => Err(interrupt),
        (None, Ok(report)) => dict(py, &report),
        (None, Err(error @ LoadError::Option { .. })) => Err(PyValueError::new_err(error.to_string())),
        (None, Err(error)) => Err(PyOSError::new_err(error.to_string())),
    }
}

fn parse(dict: &Bound<'_, PyDict>) -> PyResult<Options> {
    let (dict, default) = (Dict::of("", dict)?, Options::default());
    let protocol = match dict.take_or::<Option<Bound<'_, PyString>>>("protocol", None)? {
        None => default.protocol,
        Some(name) => {
            name.to_str()?.parse::<Protocol>().map_err(|e| PyValueError::new_err(format!("protocol: {e}")))?
        }
    };
    let options = Options {
        address: dict.take_or("address", default.address)?,
        protocol,
        connections: dict.take_or("connections", default.connections)?,
        depth: dict.take_or("depth", default.depth)?,
        keys: dict.take_or("keys", default.keys)?,
        key_size: dict.take_or("key_size", default.key_size)?,
        value_size: dict.take_or("value_size", default.value_size)?,
        reads: dict.take_or("reads", default.reads)?,
        seconds: dict.take_or("seconds", default.seconds)?,
        warmup_seconds: dict.take_or("warmup_seconds", default.warmup_seconds)?,
        rate: dict.take_or("rate", default.rate)?,
        prefill: dict.take_or("prefill", default.prefill)?,
        one_shot: dict.take_or("one_shot", default.one_shot)?,
        pids: dict.take_or("pids", default.pids)?,
        cpu: dict.take_or("cpu", default.cpu)?,
    };
    dict.finish()?;
    Ok(options)
}

fn dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("requests", report.requests)?;
    dict.set_item("seconds", report.seconds)?;
    dict.set_item("rate", report.rate)?;
    dict.set_item("misses", report.misses)?;
    dict.set_item("bad", report.bad)?;
    dict.set_item("errors", report.errors)?;
    dict.set_item("first_error", &report.first_error)?;
    dict.set_item("unanswered", report.unanswered)?;
    dict.set_item("latency_us", latency(py, &report.latency)?)?;
    let points: Vec<(f64, f64)> =
        report.points.iter().map(|point| (point.percent, point.ns as f64 / 1e3)).collect();
    dict.set_item("percentiles", points)?;
    dict.set_item("client_cpu", report.client_cpu)?;
    dict.set_item("server_cpu", report.server_cpu)?;
    dict.set_item("server_us_per_request", report.server_us_per_request)?;
    dict.set_item("other_cpu", report.other_cpu)?;
    Ok(dict)
}

fn latency<'py>(py: Python<'py>, latency: &Latency) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("mean", latency.mean / 1e3)?;
    let rest = [
        ("min", latency.min),
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
        ("p99.99", latency.p9999),
        ("max", latency.max),
    ];
    rest.into_iter().try_for_each(|(name, ns)| dict.set_item(name, ns as f64 / 1e3))?;
    Ok(dict)
}
