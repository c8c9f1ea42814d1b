//! Options of the engine, from the dict that `turbopump.config.engine_options` makes.

use std::net::SocketAddr;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use turbopump_core::cluster::ClusterConfig;
use turbopump_core::config::Limits;
use turbopump_core::feed::FeedLimits;
use turbopump_core::keyspace::{Acks, Keyspace, Writes};
use turbopump_core::merkle::DigestKey;
use turbopump_core::once::OnceLimits;
use turbopump_core::siblings::SiblingLimits;
use turbopump_core::version::Version;
use turbopump_engine::config::{ClusterOptions, EngineConfig, Guests, MemberOptions};
use turbopump_udt::config::Algorithm;
use turbopump_udt::{PresharedKey, PrivateKey, PublicKey};

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
    let events_max = limits.take("max_events")?;
    let config = EngineConfig {
        name: options.take("name")?,
        reactors: options.take("reactors")?,
        memory_max: options.take("max_memory")?,
        password: options.take("password")?,
        guests: Guests { uids: guests.take("uids")?, gids: guests.take("gids")? },
        connections_max: limits.take("max_connections")?,
        events_max,
        read_buffer: limits.take("read_buffer")?,
        limits: Limits {
            key_max: limits.take("max_key")?,
            value_max: limits.take("max_value")?,
            line_max: limits.take("max_line")?,
            request_max: limits.take("max_request")?,
            args_max: limits.take("max_args")?,
            output_max: limits.take("max_output")?,
            relayed_max: limits.take("max_relayed")?,
            stall_ms_max: limits.take("max_stall_ms")?,
            keys_max: limits.take("max_keys")?,
            waits_max: limits.take("max_waits")?,
            wait_ms_max: limits.take("max_wait_ms")?,
            feed: FeedLimits {
                changes_max: limits.take("max_changes")?,
                bytes_max: limits.take("max_change_bytes")?,
                watches_max: limits.take("max_watches")?,
                queue_max: events_max,
            },
            siblings: SiblingLimits {
                count_max: limits.take("max_siblings")?,
                bytes_max: limits.take("max_sibling_bytes")?,
                age_ms_max: limits.take("max_sibling_age_ms")?,
            },
            once: OnceLimits {
                bytes_max: limits.take("max_once_bytes")?,
                age_ms_max: limits.take("max_once_age_ms")?,
            },
        },
        keyspaces: keyspaces.iter().map(keyspace).collect::<PyResult<_>>()?,
        cluster: match options.take::<Option<Bound<'_, PyDict>>>("cluster")? {
            Some(dict) => Some(cluster(&dict)?),
            None => None,
        },
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
        copies: options.take("copies")?,
        write_acks: acks("write_acks", &options)?,
        read_acks: acks("read_acks", &options)?,
        datagram: options.take("datagram")?,
        group: 0,
    };
    options.finish()?;
    Ok(keyspace)
}

fn acks(name: &str, options: &Dict<'_>) -> PyResult<Acks> {
    let word = options.take::<String>(name)?;
    let named = format!("keyspaces.{name}");
    Acks::named(word.as_bytes()).ok_or_else(|| error::option(&named, "is one, quorum or all"))
}

fn cluster(dict: &Bound<'_, PyDict>) -> PyResult<ClusterOptions> {
    let options = Dict::of("cluster.", dict)?;
    let shared: Vec<(u8, [u8; 32])> = options.take("psks")?;
    let members = options.take::<Vec<Bound<'_, PyDict>>>("members")?;
    let peer_timeout = Duration::from_millis(options.take("peer_timeout_ms")?);
    let congestion: String = options.take("congestion")?;
    let made = ClusterOptions {
        members: members.iter().map(member).collect::<PyResult<_>>()?,
        bind: address("cluster.bind", options.take("bind")?)?,
        key: PrivateKey::new(options.take("transport_key")?),
        shared: shared.into_iter().map(|(number, key)| (number, PresharedKey::new(key))).collect(),
        digest_secret: digest_secret(&options.take("digest_key")?),
        redirect: options.take("redirect")?,
        awake: Duration::from_micros(options.take("awake_us")?),
        cluster: ClusterConfig {
            cluster: options.take("layout_digest")?,
            ack_timeout_ms: options.take("ack_timeout_ms")?,
            hints_max: options.take("hints_max")?,
            sync_ms: options.take("sync_ms")?,
            batch_max: options.take("message_max")?,
            ..ClusterConfig::default()
        },
        transport: turbopump_udt::Config {
            silence_max: peer_timeout,
            keep_alive: peer_timeout / 4,
            congestion: Algorithm::named(&congestion)
                .ok_or_else(|| error::option("cluster.congestion", "is cubic, bbr or udt"))?,
            ..turbopump_udt::Config::default()
        },
    };
    // Members are in the order of their names on both sides; which one this node is follows from its name.
    let _me: u16 = options.take("me")?;
    options.finish()?;
    Ok(made)
}

/// Digests have a secret of their own: who learns it learns nothing of what packets are sealed with.
fn digest_secret(shared: &[u8; 32]) -> [u8; 16] {
    let (key, rest) = shared.split_at(16);
    let key = DigestKey::new(&key.try_into().unwrap_or_default());
    key.digest(rest, Version::default(), true).to_le_bytes()
}

fn member(dict: &Bound<'_, PyDict>) -> PyResult<MemberOptions> {
    let options = Dict::of("cluster.members.", dict)?;
    let _identity: [u8; 32] = options.take("identity")?;
    let at: Option<String> = options.take("address")?;
    let member = MemberOptions {
        name: options.take("name")?,
        address: at.map(|at| address("cluster.members.address", at)).transpose()?,
        door: options.take_or("door", None)?,
        key: PublicKey(options.take("public_key")?),
        weight: options.take("weight")?,
        zone: options.take("zone")?,
    };
    options.finish()?;
    Ok(member)
}

fn address(name: &str, text: String) -> PyResult<SocketAddr> {
    text.parse().map_err(|_| error::option(name, "is IP:PORT"))
}
