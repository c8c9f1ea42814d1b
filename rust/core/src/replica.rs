//! The coordinator: takes a command from a client and applies it where it belongs, which on a single node
//! is here. Not the wire (`pipe`, `resp`) and not the rule of who wins (`View::join`).

use std::sync::Arc;

use crate::blob::{BLOB_BYTES_MIN, Blob, BlobRef, Value};
use crate::config::Limits;
use crate::counters::Counters;
use crate::entry::{KEY_BYTES_MAX, View};
use crate::error::Refusal;
use crate::feed::{Feed, Kind};
use crate::keyspace::Writes;
use crate::once::{NAME_BYTES_MAX, Once};
use crate::outbox::Outbox;
use crate::siblings::Siblings;
use crate::store::{Cell, Merged, Store};
use crate::usage::Usage;
use crate::version::Version;
use crate::waits::Waits;

/// When a write happens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if the key has no value.
    Absent,
    /// Only if the key has a value.
    Present,
    /// Only if the key's value is of this version.
    Version(Version),
}

impl Condition {
    fn check(self, current: Option<&View<'_>>) -> Result<(), Refusal> {
        match (self, current) {
            (Condition::Always, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => Ok(()),
            (Condition::Absent, Some(view)) => Err(Refusal::Exists(view.version)),
            (Condition::Version(wanted), Some(view)) if view.version == wanted => Ok(()),
            (Condition::Version(_), Some(view)) => Err(Refusal::VersionMismatch(view.version)),
            (Condition::Present | Condition::Version(_), None) => Err(Refusal::Missing),
        }
    }
}

/// How long a written value lives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Lifetime {
    /// As the keyspace says.
    #[default]
    Keyspace,
    /// For ever.
    Forever,
    /// As long as the value it replaces.
    Kept,
    /// Until this Unix millisecond.
    Until(u64),
}

/// A value to be written, in whatever form it arrived.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Bytes that somebody else has.
    Lent(&'a [u8]),
    /// Bytes made for the purpose.
    Owned(Vec<u8>),
    /// A large value.
    Shared(Arc<Blob>),
}

impl Body<'_> {
    /// How many bytes the value has.
    pub fn len(&self) -> usize {
        match self {
            Body::Lent(bytes) => bytes.len(),
            Body::Owned(bytes) => bytes.len(),
            Body::Shared(blob) => blob.len(),
        }
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value to be kept: a copy of what is lent.
    pub fn into_owned(self) -> Body<'static> {
        match self {
            Body::Lent(bytes) => Body::Owned(bytes.to_vec()),
            Body::Owned(bytes) => Body::Owned(bytes),
            Body::Shared(blob) => Body::Shared(blob),
        }
    }

    /// The value's first piece, which of a small one is all.
    pub fn piece(&self) -> &[u8] {
        match self {
            Body::Lent(bytes) => bytes,
            Body::Owned(bytes) => bytes,
            Body::Shared(blob) => blob.piece(0),
        }
    }

    /// Runs `with` on the value in the one form its size has: inline below `BLOB_BYTES_MIN`, else a blob.
    fn with<R>(
        &self,
        usage: &Arc<Usage>,
        with: impl FnOnce(Value<'_>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let bytes = match self {
            Body::Shared(blob) if blob.len() >= BLOB_BYTES_MIN => {
                return with(Value::Blob(BlobRef::from(blob)));
            }
            Body::Shared(blob) => blob.piece(0), // all of it: a chunk is larger
            Body::Lent(bytes) => bytes,
            Body::Owned(bytes) => bytes,
        };
        if bytes.len() < BLOB_BYTES_MIN {
            return with(Value::Inline(bytes));
        }
        with(Value::Blob(BlobRef::from(&Arc::new(Blob::new(bytes, usage)?))))
    }
}

impl From<Value<'_>> for Body<'static> {
    /// The value to be kept: a copy of a small one, a reference to a large one.
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Inline(bytes) => Body::Owned(bytes.to_vec()),
            Value::Blob(blob) => Body::Shared(blob.share()),
        }
    }
}

/// What a command does to a key, decided while the key is locked.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// Nothing.
    Leave,
    /// Writes a value.
    Put(Body<'a>, Lifetime),
    /// Gives the value another lifetime.
    Touch(Lifetime),
    /// Deletes the key.
    Delete,
}

/// One coordinator over the shared store. Each reactor has its own; all other threads have one together.
#[derive(Clone, Debug)]
pub struct Replica {
    store: Arc<Store>,
    waits: Arc<Waits>,
    limits: Arc<Limits>,
    stranger_limits: Arc<Limits>,
    counters: Arc<Counters>,
    outbox: Option<Arc<Outbox>>,
    feed: Arc<Feed>,
    siblings: Arc<Siblings>,
    once: Arc<Once>,
}

impl Replica {
    /// A coordinator for one thread, with counters of its own.
    pub fn new(store: Arc<Store>, waits: Arc<Waits>, limits: Arc<Limits>) -> Self {
        let stranger_limits = Arc::new(limits.for_strangers());
        Replica {
            store,
            waits,
            limits,
            stranger_limits,
            counters: Arc::default(),
            outbox: None,
            feed: Arc::default(),
            siblings: Arc::default(),
            once: Arc::default(),
        }
    }

    /// A coordinator for any number of threads.
    pub fn for_threads(store: Arc<Store>, waits: Arc<Waits>, limits: Arc<Limits>) -> Self {
        Replica { counters: Arc::new(Counters::for_threads()), ..Replica::new(store, waits, limits) }
    }

    /// The same coordinator, in a cluster.
    pub fn with_outbox(self, outbox: Arc<Outbox>) -> Self {
        Replica { outbox: Some(outbox), ..self }
    }

    /// The same coordinator, with this feed of changes.
    pub fn with_feed(self, feed: Arc<Feed>) -> Self {
        Replica { feed, ..self }
    }

    /// The same coordinator, with these siblings.
    pub fn with_siblings(self, siblings: Arc<Siblings>) -> Self {
        Replica { siblings, ..self }
    }

    /// The same coordinator, with these writes that are known by name.
    pub fn with_once(self, once: Arc<Once>) -> Self {
        Replica { once, ..self }
    }

    /// Writes that are known by name.
    pub fn known_once(&self) -> &Arc<Once> {
        &self.once
    }

    /// Values that lost to others.
    pub fn siblings(&self) -> &Arc<Siblings> {
        &self.siblings
    }

    /// What changed lately.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The way to the other replicas; `None` on a single node.
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_deref()
    }

    /// Whether others may have a key that this node, which came back blank, does not have, not even a delete
    /// of it.
    pub fn lacks(&self, key: &[u8]) -> bool {
        self.store.is_behind() && self.store.read(key, |view| view.is_none())
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Who waits for keys.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Who waits for keys, to be shared with another coordinator.
    pub fn shared_waits(&self) -> Arc<Waits> {
        Arc::clone(&self.waits)
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The limits for a client that has yet to give the password.
    pub fn stranger_limits(&self) -> &Limits {
        &self.stranger_limits
    }

    /// What this coordinator counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Refuses a key that is too long.
    ///
    /// # Errors
    /// `Refusal::BadKey`.
    pub fn check_key(&self, key: &[u8]) -> Result<(), Refusal> {
        let limit = self.limits.key_max.min(KEY_BYTES_MAX);
        if key.len() > limit {
            return Err(Refusal::BadKey { length: key.len(), limit });
        }
        Ok(())
    }

    /// Whether the first value under `key` stays until it is deleted.
    pub fn is_immutable(&self, key: &[u8]) -> bool {
        let keyspaces = self.store.keyspaces();
        keyspaces.get(keyspaces.index_of(key)).writes == Writes::Immutable
    }

    /// Refuses another value than the one that `key`, which is immutable, has now.
    ///
    /// # Errors
    /// `Refusal::Immutable`.
    pub fn check_immutable(&self, key: &[u8], body: &Body<'_>, now_ms: u64) -> Result<(), Refusal> {
        self.store.read(key, |view| match view.filter(|view| view.live(now_ms).is_some()) {
            None => Ok(()),
            Some(view) => body.with(self.store.usage(), |value| match view.value == Some(value) {
                true => Ok(()),
                false => Err(Refusal::Immutable(view.version)),
            }),
        })
    }

    /// Reads the value of `key`, if there is one, and counts a hit or a miss.
    pub fn get<R>(&self, key: &[u8], now_ms: u64, read: impl FnOnce(Option<&View<'_>>) -> R) -> R {
        self.store.read(key, |view| {
            let view = view.filter(|view| view.live(now_ms).is_some());
            if view.is_some() {
                self.counters.hits.bump()
            } else {
                self.counters.misses.bump()
            }
            read(view.as_ref())
        })
    }

    /// Writes a value and returns its version.
    ///
    /// # Errors
    /// The condition does not hold, the key is immutable and has another value, the key or the value is
    /// too long, or there is no space. Nothing changed then.
    pub fn put(
        &self,
        key: &[u8],
        body: Body<'_>,
        lifetime: Lifetime,
        condition: Condition,
        now_ms: u64,
    ) -> Result<Version, Refusal> {
        let body = self.prepared(body)?;
        let done = self.change(key, now_ms, |current| {
            condition.check(current)?;
            Ok((Change::Put(body, lifetime), ()))
        })?;
        // Invariant: a `Put` that was not refused has a version.
        Ok(done.0.unwrap_or_default())
    }

    /// The value in the form it will be kept in: so a large one is copied before its key is locked.
    ///
    /// # Errors
    /// It is too long, or there is no space.
    pub fn prepared<'b>(&self, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        if body.len() > self.limits.value_max {
            return Err(Refusal::ValueTooLong { limit: self.limits.value_max });
        }
        match &body {
            Body::Lent(bytes) if bytes.len() >= BLOB_BYTES_MIN => self.large(bytes),
            Body::Owned(bytes) if bytes.len() >= BLOB_BYTES_MIN => self.large(bytes),
            _ => Ok(body),
        }
    }

    fn large(&self, bytes: &[u8]) -> Result<Body<'static>, Refusal> {
        Ok(Body::Shared(Arc::new(Blob::new(bytes, self.store.usage())?)))
    }

    /// Deletes a key; returns the version of the delete, or `None` if there was no value.
    ///
    /// # Errors
    /// The condition does not hold. Nothing changed then.
    pub fn delete(&self, key: &[u8], condition: Condition, now_ms: u64) -> Result<Option<Version>, Refusal> {
        let done = self.change(key, now_ms, |current| {
            if current.is_none() && condition == Condition::Always {
                return Ok((Change::Leave, ()));
            }
            condition.check(current)?;
            Ok((if current.is_some() { Change::Delete } else { Change::Leave }, ()))
        })?;
        Ok(done.0)
    }

    /// Does what `write` does to `key`, unless a write of this name was done to it before: then what that one
    /// came to is known to the other replicas as well when this is confirmed.
    ///
    /// # Errors
    /// As `write`, or the name is too long. What is refused is tried again the next time.
    pub fn once(
        &self,
        key: &[u8],
        name: &[u8],
        now_ms: u64,
        write: impl FnOnce() -> Result<Option<Version>, Refusal>,
    ) -> Result<Option<Version>, Refusal> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Refusal::bad_param("once", name, "1 to 64 bytes, another one for each write"));
        }
        let mut known = self.once.lock(now_ms);
        let before = known.find(key, name);
        let version = match before {
            Some(version) => Some(version).filter(|version| *version != Version::ZERO),
            None => write()?,
        };
        let kept = version.unwrap_or_default();
        self.once.keep_in(&mut known, key, name, kept, now_ms);
        drop(known);
        if let Some(outbox) = &self.outbox {
            outbox.did_once(key, name, kept, before.is_some());
        }
        Ok(version)
    }

    /// Deletes about `limit` keys from `cursor` on; returns the cursor to go on with, 0 at the end, and how
    /// many were deleted.
    ///
    /// # Errors
    /// As `delete`; what was deleted before stays so.
    pub fn clear_some(&self, cursor: u64, limit: usize, now_ms: u64) -> Result<(u64, usize), Refusal> {
        let (mut keys, mut deleted) = (Vec::with_capacity(limit), 0);
        let next = self.store.scan(cursor, limit, |key, _| keys.push(key.to_vec()));
        for key in keys {
            let mut cell = self.store.cell(&key);
            // What has expired goes too, though nobody would miss it.
            if cell.view().is_some_and(|view| view.value.is_some()) {
                self.remove(&mut cell, now_ms)?;
                deleted += 1;
            }
        }
        Ok((next, deleted))
    }

    /// Deletes all keys; returns how many there were.
    ///
    /// # Errors
    /// As `clear_some`.
    pub fn clear(&self, now_ms: u64) -> Result<usize, Refusal> {
        let (mut cursor, mut total) = (0, 0);
        loop {
            let (next, deleted) = self.clear_some(cursor, 1000, now_ms)?;
            (cursor, total) = (next, total + deleted);
            if cursor == 0 {
                return Ok(total);
            }
        }
    }

    /// Locks `key`, lets `decide` see its value, does what it decides, and returns the version that was
    /// written, if any, with what `decide` returned beside.
    ///
    /// # Errors
    /// What `decide` refuses, and as `put`.
    pub fn change<'b, R>(
        &self,
        key: &[u8],
        now_ms: u64,
        decide: impl FnOnce(Option<&View<'_>>) -> Result<(Change<'b>, R), Refusal>,
    ) -> Result<(Option<Version>, R), Refusal> {
        self.check_key(key)?;
        let mut cell = self.store.cell(key);
        let current = cell.view().filter(|view| view.live(now_ms).is_some());
        let (change, result) = decide(current.as_ref())?;
        let immutable = cell.keyspace().writes == Writes::Immutable;
        let over = |lifetime| matches!(lifetime, Lifetime::Until(unix_ms) if unix_ms <= now_ms);
        let version = match (change, current) {
            (Change::Leave, _) | (Change::Touch(_), None) => None,
            (Change::Delete, _) => Some(self.remove(&mut cell, now_ms)?),
            (Change::Touch(_), Some(view)) if immutable => return Err(Refusal::Immutable(view.version)),
            (Change::Put(_, lifetime), Some(view)) if immutable && over(lifetime) => {
                return Err(Refusal::Immutable(view.version));
            }
            // What would be over at once is a delete.
            (Change::Put(_, lifetime) | Change::Touch(lifetime), found) if over(lifetime) => {
                if found.is_some() { Some(self.remove(&mut cell, now_ms)?) } else { None }
            }
            (Change::Touch(lifetime), Some(view)) => {
                let body = view.value.map_or(Body::Lent(b""), Body::from);
                Some(self.write(&mut cell, &body, lifetime, now_ms)?)
            }
            (Change::Put(body, lifetime), _) => Some(self.write(&mut cell, &body, lifetime, now_ms)?),
        };
        let wrote = version.is_some() && cell.view().is_some_and(|view| view.value.is_some());
        drop(cell);
        if wrote {
            self.waits.appeared(key);
        }
        Ok((version, result))
    }

    fn remove(&self, cell: &mut Cell<'_>, now_ms: u64) -> Result<Version, Refusal> {
        let version = next_version(cell, now_ms)?;
        self.apply(cell, &View::tombstone(version))?;
        self.counters.deletes.bump();
        Ok(version)
    }

    fn write(
        &self,
        cell: &mut Cell<'_>,
        body: &Body<'_>,
        lifetime: Lifetime,
        now_ms: u64,
    ) -> Result<Version, Refusal> {
        if body.len() > self.limits.value_max {
            return Err(Refusal::ValueTooLong { limit: self.limits.value_max });
        }
        let keyspace = cell.keyspace();
        let expires_ms = match lifetime {
            Lifetime::Forever => 0,
            Lifetime::Until(unix_ms) => unix_ms,
            Lifetime::Keyspace => keyspace.ttl_ms.map_or(0, |ttl_ms| now_ms + ttl_ms),
            Lifetime::Kept => {
                cell.view().filter(|view| view.live(now_ms).is_some()).map_or(0, |view| view.expires_ms)
            }
        };
        let immutable = keyspace.writes == Writes::Immutable;
        body.with(self.store.usage(), |value| {
            let mut floor = Version::ZERO;
            if immutable {
                match cell.view() {
                    Some(view) if view.live(now_ms) == Some(value) => {
                        let version = view.version;
                        // Who wrote it may have been told that the others do not have it.
                        if let Some(outbox) = &self.outbox {
                            outbox.wrote(cell.key(), None);
                        }
                        return Ok(version);
                    }
                    Some(view) if view.live(now_ms).is_some() => {
                        return Err(Refusal::Immutable(view.version));
                    }
                    Some(view) => floor = view.version,
                    None => floor = cell.watermark(),
                }
            }
            let version = next_version(cell, now_ms)?;
            self.apply(cell, &View { version, expires_ms, floor, value: Some(value) })?;
            self.counters.writes.bump();
            Ok(version)
        })
    }

    /// Merges a write of this node's own, which beats whatever there is: it was made to.
    fn apply(&self, cell: &mut Cell<'_>, view: &View<'_>) -> Result<(), Refusal> {
        let base = cell.view().map_or(Version::ZERO, |view| view.version);
        match cell.merge(view)? {
            Merged::Applied => {
                if let Some(outbox) = &self.outbox {
                    outbox.wrote(cell.key(), Some(base));
                }
                let kind = if view.value.is_some() { Kind::Written } else { Kind::Deleted };
                self.feed.note(kind, cell.key(), view.version, view.value.map_or(0, |value| value.len()));
                Ok(())
            }
            Merged::Kept | Merged::Stale => Err(Refusal::Internal(format!(
                "nothing was written: version {} is not the last",
                view.version
            ))),
        }
    }

    /// Drops some of what has passed, as `Store::collect`, and tells those who watch.
    pub fn collect(&self, cursor: u64, limit: usize, now_ms: u64) -> (u64, usize) {
        self.store.collect_each(cursor, limit, now_ms, |key, version, size| {
            self.feed.note(Kind::Expired, key, version, size);
        })
    }

    /// Gives the value of `key` a version above `watermark`, if it has one at or below it. Returns the
    /// version that it had.
    pub fn restamp(&self, key: &[u8], watermark: Version, now_ms: u64) -> Option<Version> {
        let mut cell = self.store.cell(key);
        let old = cell.view().filter(|view| view.version <= watermark && view.value.is_some())?;
        let (base, expires_ms, floor) = (old.version, old.expires_ms, old.floor);
        let body = old.value.map(Body::from);
        let version = cell.next_version(now_ms).filter(|version| *version > watermark)?;
        let value = match body.as_ref()? {
            Body::Shared(blob) => Value::Blob(BlobRef::from(blob)),
            body => Value::Inline(body.piece()),
        };
        let view = View { version, expires_ms, floor, value: Some(value) };
        // It fitted before, so it fits now.
        cell.merge(&view).ok()?;
        Some(base)
    }
}

fn next_version(cell: &Cell<'_>, now_ms: u64) -> Result<Version, Refusal> {
    let text = "the key has the last version there can be: no write can come after it, nothing was written";
    cell.next_version(now_ms).ok_or_else(|| Refusal::Internal(text.into()))
}
