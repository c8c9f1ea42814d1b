//! Options of the engine, from the dict that `turbopump.config.engine_options` makes.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use turbopump_core::config::Limits;
use turbopump_core::keyspace::{Keyspace, Writes};
use turbopump_engine::config::{EngineConfig, Guests};

use crate::error;

/// A dict of options, each to be taken once: what is left is unknown.
pub struct Dict<'py> {
    path: &'static str,
    left: Bound<'py, PyDict>,
}

impl<'py> Dict<'py> {
    /// The options in `dict`, which messages name after `path`.
    pub fn of(path: &'static str, dict: &Bound<'py, PyDict>) -> PyResult<Self> {
        Ok(Dict { path, left: dict.copy()? })
    }

    /// Takes an option that must be there.
    pub fn take<T>(&self, name: &str) -> PyResult<T>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        let missing = || error::option(&format!("{}{name}", self.path), "is missing");
        self.find(name)?.ok_or_else(missing)
    }

    /// Takes an option that has a default.
    pub fn take_or<T>(&self, name: &str, default: T) -> PyResult<T>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        Ok(self.find(name)?.unwrap_or(default))
    }

    fn find<T>(&self, name: &str) -> PyResult<Option<T>>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        let named = format!("{}{name}", self.path);
        let Some(value) = self.left.get_item(name)? else { return Ok(None) };
        self.left.del_item(name)?;
        let extracted: Result<T, PyErr> = value.extract::<T>().map_err(Into::into);
        extracted.map(Some).map_err(|problem| error::option(&named, &problem.value(value.py()).to_string()))
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> PyResult<()> {
        match self.left.keys().get_item(0) {
            Ok(name) => Err(error::option(&format!("{}{name}", self.path), "there is no such option")),
            Err(_) => Ok(()),
        }
    }
}

/// Reads all options of an engine.
pub fn engine(dict: &Bound<'_, PyDict>) -> PyResult<EngineConfig> {
    let options = Dict::of("", dict)?;
    let limits = Dict::of("limits.", &options.take::<Bound<'_, PyDict>>("limits")?)?;
    let guests = Dict::of("guests.", &options.take::<Bound<'_, PyDict>>("guests")?)?;
    let keyspaces = options.take::<Vec<Bound<'_, PyDict>>>("keyspaces")?;
    let config = EngineConfig {
        name: options.take("name")?,
        reactors: options.take("reactors")?,
        memory_max: options.take("max_memory")?,
        password: options.take("password")?,
        guests: Guests { uids: guests.take("uids")?, gids: guests.take("gids")? },
        connections_max: limits.take("max_connections")?,
        events_max: limits.take("max_events")?,
        read_buffer: limits.take("read_buffer")?,
        limits: Limits {
            key_max: limits.take("max_key")?,
            value_max: limits.take("max_value")?,
            line_max: limits.take("max_line")?,
            request_max: limits.take("max_request")?,
            args_max: limits.take("max_args")?,
            output_max: limits.take("max_output")?,
            keys_max: limits.take("max_keys")?,
            waits_max: limits.take("max_waits")?,
            wait_ms_max: limits.take("max_wait_ms")?,
        },
        keyspaces: keyspaces.iter().map(keyspace).collect::<PyResult<_>>()?,
        release_memory: crate::release_memory,
    };
    [limits, guests, options].into_iter().try_for_each(Dict::finish)?;
    Ok(config)
}

fn keyspace(dict: &Bound<'_, PyDict>) -> PyResult<Keyspace> {
    let options = Dict::of("keyspaces.", dict)?;
    let keyspace = Keyspace {
        prefix: options.take::<String>("prefix")?.into_bytes(),
        writes: match options.take::<Bound<'_, PyString>>("writes")?.to_str()? {
            "versioned" => Writes::Versioned,
            "immutable" => Writes::Immutable,
            _ => return Err(error::option("keyspaces.writes", "is versioned or immutable")),
        },
        ttl_ms: options.take("ttl_ms")?,
        memory_max: options.take("max_memory")?,
    };
    options.finish()?;
    Ok(keyspace)
}
