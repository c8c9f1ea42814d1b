//! The engine as a Python class.

use std::os::fd::{AsRawFd, BorrowedFd};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use turbopump_core::error::Refusal;
use turbopump_core::feed::{self, Filter, Kinds};
use turbopump_core::replica::{Body, Condition, Lifetime, Replica};
use turbopump_core::version::Version;
use turbopump_engine::engine::{self as native, unix_ms};
use turbopump_engine::peers::PeerInfo;

use crate::merkle::MerkleTree;
use crate::{error, events, options, values};

/// A value in time.
#[pyclass(frozen, get_all, module = "turbopump._native")]
pub struct Entry {
    value: Py<PyBytes>,
    version: String,
    expires_ms: Option<u64>,
}

#[pymethods]
impl Entry {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str) {
        ("value", "version", "expires_ms")
    }
}

/// A place among the changes of an engine.
#[pyclass(frozen, module = "turbopump._native")]
pub struct Watch {
    watch: Mutex<Option<feed::Watch>>,
}

#[pymethods]
impl Watch {
    fn read(&self, py: Python<'_>, limit: usize) -> PyResult<(Vec<Py<events::Changed>>, bool)> {
        let read = py.detach(|| self.watch.lock().as_mut().map_or(Ok((vec![], false)), |it| it.read(limit)));
        let (found, more) = read.map_err(|refusal| error::refused(py, &refusal))?;
        Ok((found.iter().map(|change| events::Changed::of(py, change)).collect::<PyResult<_>>()?, more))
    }

    #[getter]
    fn revision(&self) -> u64 {
        self.watch.lock().as_ref().map_or(0, feed::Watch::revision)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.watch.lock().take());
    }
}

/// A store and the threads that serve it.
#[pyclass(frozen, module = "turbopump._native")]
pub struct Engine {
    engine: native::Engine,
}

type Listed<'py> = (u64, Vec<(Bound<'py, PyBytes>, usize)>);

fn version(py: Python<'_>, text: Option<&str>) -> PyResult<Option<Version>> {
    let bad = |text: &str| bad_param(py, "if_version", text, "a version as a write answered it");
    text.map(|text| text.parse().map_err(|_| bad(text))).transpose()
}

fn condition(py: Python<'_>, word: Option<&str>, if_version: Option<Version>) -> PyResult<Condition> {
    let bad = |word: &str, fix: &str| Err(bad_param(py, "condition", word, fix));
    match (word, if_version) {
        (None, None) => Ok(Condition::Always),
        (Some("absent"), None) => Ok(Condition::Absent),
        (Some("present"), None) => Ok(Condition::Present),
        (None, Some(version)) => Ok(Condition::Version(version)),
        (Some(word), Some(_)) => bad(word, "give it or if_version, not both"),
        (Some(word), None) => bad(word, "absent or present"),
    }
}

fn bad_param(py: Python<'_>, name: &str, value: &str, fix: &str) -> PyErr {
    error::refused(py, &Refusal::bad_param(name, value.as_bytes(), fix))
}

fn filter(py: Python<'_>, prefix: &[u8], kinds: Option<&str>) -> PyResult<Filter> {
    let fix = "some of written, arrived, healed, deleted, expired and lost, with commas between";
    let kinds = match kinds {
        None => Kinds::ALL,
        Some(words) => Kinds::named(words.as_bytes()).ok_or_else(|| bad_param(py, "kinds", words, fix))?,
    };
    Ok(Filter { prefix: prefix.to_vec(), kinds })
}

impl Engine {
    fn replica(&self, py: Python<'_>) -> PyResult<&Replica> {
        self.engine.replica().map_err(|problem| error::engine(py, problem))
    }

    /// Runs `call` without the GIL, on a key that has been checked.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        key: &[u8],
        call: impl FnOnce(&Replica) -> Result<R, Refusal> + Send,
    ) -> PyResult<R> {
        let replica = self.replica(py)?;
        let result = py.detach(|| {
            if key.is_empty() {
                return Err(Refusal::BadKey { length: 0, limit: replica.limits().key_max });
            }
            replica.check_key(key)?;
            call(replica)
        });
        result.map_err(|refusal| error::refused(py, &refusal))
    }
}

#[pymethods]
impl Engine {
    #[new]
    fn new(options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let config = options::engine(options)?;
        let engine = native::Engine::new(config).map_err(|problem| error::engine(options.py(), problem))?;
        Ok(Engine { engine })
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.engine.start()).map_err(|problem| error::engine(py, problem))
    }

    #[pyo3(signature = (fd, *, tcp))]
    fn listen(&self, py: Python<'_>, fd: i32, tcp: bool) -> PyResult<()> {
        if fd < 0 {
            return Err(error::option("fd", "is not a descriptor"));
        }
        // SAFETY: the descriptor is only duplicated, during this call; the caller holds it open.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        self.engine.listen(socket, tcp).map_err(|problem| error::engine(py, problem))
    }

    fn fileno(&self) -> i32 {
        self.engine.signal().as_raw_fd()
    }

    fn poll_events(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let events = py.detach(|| self.engine.poll_events());
        events.into_iter().map(|event| events::object(py, event)).collect()
    }

    fn reply(&self, py: Python<'_>, ask: u64, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        let reply = values::reply(answer)?;
        py.detach(|| self.engine.answer(ask, reply));
        Ok(())
    }

    fn drain(&self, py: Python<'_>, deadline_ms: u64) {
        py.detach(|| self.engine.drain(deadline_ms));
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.engine.stop());
    }

    fn get<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let value = self.with(py, key, |replica| {
            Ok(replica.get(key, unix_ms(), |view| view.and_then(|view| view.value).map(Body::from)))
        })?;
        value.map(|value| values::bytes(py, &value)).transpose()
    }

    fn read(&self, py: Python<'_>, key: &[u8]) -> PyResult<Option<Entry>> {
        let found = self.with(py, key, |replica| {
            Ok(replica.get(key, unix_ms(), |view| {
                view.and_then(|view| Some((Body::from(view.value?), view.version, view.expires_ms)))
            }))
        })?;
        let entry = |(value, version, expires_ms): (Body<'static>, Version, u64)| {
            Ok(Entry {
                value: values::bytes(py, &value)?.unbind(),
                version: version.to_string(),
                expires_ms: (expires_ms != 0).then_some(expires_ms),
            })
        };
        found.map(entry).transpose()
    }

    #[pyo3(signature = (key, value, ttl_ms = None, condition = None, if_version = None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &[u8],
        value: &[u8],
        ttl_ms: Option<&Bound<'_, PyAny>>,
        condition: Option<&str>,
        if_version: Option<&str>,
    ) -> PyResult<String> {
        let condition = self::condition(py, condition, version(py, if_version)?)?;
        let lifetime = |ttl_ms: &Bound<'_, PyAny>| match ttl_ms.extract::<i64>() {
            Ok(ttl_ms @ 1..) => Ok(ttl_ms.unsigned_abs()),
            _ => Err(bad_param(py, "ttl_ms", &ttl_ms.to_string(), "1 or more milliseconds")),
        };
        let ttl_ms = ttl_ms.map(lifetime).transpose()?;
        let written = self.with(py, key, |replica| {
            let now_ms = unix_ms();
            let lifetime =
                ttl_ms.map_or(Lifetime::Keyspace, |ttl_ms| Lifetime::Until(now_ms.saturating_add(ttl_ms)));
            replica.put(key, Body::Lent(value), lifetime, condition, now_ms)
        })?;
        Ok(written.to_string())
    }

    #[pyo3(signature = (key, if_version = None))]
    fn delete(&self, py: Python<'_>, key: &[u8], if_version: Option<&str>) -> PyResult<Option<String>> {
        let condition = version(py, if_version)?.map_or(Condition::Always, Condition::Version);
        let deleted = self.with(py, key, |replica| replica.delete(key, condition, unix_ms()))?;
        Ok(deleted.map(|version| version.to_string()))
    }

    fn exists(&self, py: Python<'_>, key: &[u8]) -> PyResult<bool> {
        self.with(py, key, |replica| Ok(replica.get(key, unix_ms(), |view| view.is_some())))
    }

    fn wait<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        match self.with(py, key, |_| self.engine.wait(key))? {
            Ok(version) => Ok(version.to_string().into_pyobject(py)?.into_any()),
            Err(wait) => Ok(wait.into_pyobject(py)?.into_any()),
        }
    }

    fn forget(&self, py: Python<'_>, key: &[u8], wait: u64) {
        py.detach(|| self.engine.forget(key, wait));
    }

    #[pyo3(signature = (prefix = &[][..], kinds = None, since = None))]
    fn watch(
        &self,
        py: Python<'_>,
        prefix: &[u8],
        kinds: Option<&str>,
        since: Option<u64>,
    ) -> PyResult<Watch> {
        let filter = filter(py, prefix, kinds)?;
        let watch = py.detach(|| self.engine.watch(filter, since));
        let watch = watch.map_err(|refusal| error::refused(py, &refusal))?;
        Ok(Watch { watch: Mutex::new(Some(watch)) })
    }

    fn set_rules(&self, py: Python<'_>, rules: Vec<(Vec<u8>, String)>) -> PyResult<()> {
        let rules = rules.iter().map(|(prefix, kinds)| filter(py, prefix, Some(kinds)));
        let rules = rules.collect::<PyResult<_>>()?;
        py.detach(|| self.engine.set_rules(rules));
        Ok(())
    }

    #[pyo3(signature = (cursor, limit, prefix = &[][..]))]
    fn scan<'py>(&self, py: Python<'py>, cursor: u64, limit: usize, prefix: &[u8]) -> PyResult<Listed<'py>> {
        let replica = self.replica(py)?;
        let (next, found) = py.detach(|| {
            let (mut found, now_ms) = (Vec::new(), unix_ms());
            let next = replica.store().scan(cursor, limit, |key, view| {
                let value = view.live(now_ms).filter(|_| key.starts_with(prefix));
                found.extend(value.map(|value| (key.to_vec(), value.len())));
            });
            (next, found)
        });
        Ok((next, found.into_iter().map(|(key, size)| (PyBytes::new(py, &key), size)).collect()))
    }

    fn clear(&self, py: Python<'_>) -> PyResult<usize> {
        let replica = self.replica(py)?;
        let cleared = py.detach(|| replica.clear(unix_ms()));
        cleared.map_err(|refusal| error::refused(py, &refusal))
    }

    fn merkle(&self, py: Python<'_>) -> PyResult<MerkleTree> {
        let store = self.replica(py)?.store();
        let (secret, tree) = py.detach(|| (store.digest_key().clone(), store.merkle()));
        Ok(MerkleTree::of(secret, tree))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        self.engine.stats().into_iter().try_for_each(|(name, value)| stats.set_item(name, value))?;
        let store = self.replica(py)?.store();
        let mut keyspaces = Vec::new();
        for (keyspace, account) in store.keyspaces().iter().zip(store.usage().keyspaces()) {
            let dict = PyDict::new(py);
            dict.set_item("prefix", String::from_utf8_lossy(&keyspace.prefix))?;
            dict.set_item("keys", account.keys())?;
            dict.set_item("memory", account.bytes())?;
            dict.set_item("max_memory", account.limit())?;
            keyspaces.push(dict);
        }
        stats.set_item("keyspaces", keyspaces)?;
        let peers = py.detach(|| self.engine.peers());
        stats.set_item("peers", peers.iter().map(|info| peer(py, info)).collect::<PyResult<Vec<_>>>()?)?;
        Ok(stats)
    }

    fn sync(&self) {
        self.engine.sync();
    }

    fn is_here(&self, key: &[u8], write: bool) -> bool {
        self.engine.is_here(key, write)
    }

    fn has_all(&self) -> bool {
        self.engine.has_all()
    }

    fn execute(&self, request: Vec<u8>) -> PyResult<u64> {
        let alone = || pyo3::exceptions::PyRuntimeError::new_err("a single node asks nobody");
        self.engine.execute(request).ok_or_else(alone)
    }

    fn clients<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let clients = py.detach(|| self.engine.clients());
        let dict = |client: turbopump_engine::shared::ClientInfo| {
            let dict = PyDict::new(py);
            dict.set_item("id", client.id)?;
            dict.set_item("fd", client.fd)?;
            dict.set_item("name", client.name)?;
            dict.set_item("library", client.library.0)?;
            dict.set_item("library_version", client.library.1)?;
            dict.set_item("protocol", client.protocol)?;
            dict.set_item("address", client.address)?;
            dict.set_item("tcp", client.tcp)?;
            dict.set_item("age_ms", client.age_ms)?;
            dict.set_item("idle_ms", client.idle_ms)?;
            dict.set_item("unsent", client.unsent)?;
            Ok(dict)
        };
        clients.into_iter().map(dict).collect()
    }

    fn kill(&self, py: Python<'_>, id: u64) -> bool {
        py.detach(|| self.engine.kill(id))
    }
}

fn peer<'py>(py: Python<'py>, info: &PeerInfo) -> PyResult<Bound<'py, PyDict>> {
    let (dict, link, cluster) = (PyDict::new(py), &info.link, &info.cluster);
    dict.set_item("name", &info.name)?;
    dict.set_item("state", info.state)?;
    let counts = [
        ("rtt_us", link.rtt.as_micros() as u64),
        ("rate", link.pacing_rate),
        ("cwnd", link.window),
        ("bytes_sent", link.bytes_sent),
        ("bytes_received", link.bytes_received),
        ("entries_sent", cluster.entries_sent),
        ("entries_received", cluster.entries_received),
        ("hints", cluster.hints),
        ("hints_lost", cluster.hints_lost),
        ("unconfirmed", cluster.unconfirmed),
        ("requests", cluster.requests),
        ("rounds", cluster.exchange.rounds),
        ("rounds_equal", cluster.exchange.equal),
        ("digest_bytes", cluster.exchange.bytes),
        ("keys_found", cluster.exchange.sent + cluster.exchange.wanted),
    ];
    counts.into_iter().try_for_each(|(name, count)| dict.set_item(name, count))?;
    dict.set_item("loss", link.packets_lost as f64 / link.packets_sent.max(1) as f64)?;
    dict.set_item("congestion", link.algorithm)?;
    dict.set_item("congestion_state", link.congestion)?;
    dict.set_item("last_equal_ms", info.equal_ago_ms)?;
    dict.set_item("gc_held", info.holds_deletes)?;
    Ok(dict)
}
