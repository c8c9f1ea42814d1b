//! What was asked and answered, and what may be read because of it. Not who asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::Answer;
use crate::net::MS;

/// Clocks know milliseconds: what is closer than this may have come in either order.
const SLACK: u64 = 2 * MS;

/// Part of a write or delete of a key.
#[derive(Clone, Debug)]
struct Write {
    id: u64,
    invoked: u64,
    /// When it was answered; nobody knows whether and when it happens, or happened, without one.
    completed: Option<u64>,
    /// Replicas that have it, as the answer says.
    replicas: usize,
    /// Bytes of the value; `None` is a delete.
    len: Option<usize>,
}

impl Write {
    fn is_before(&self, other: &Write) -> bool {
        self.completed.is_some_and(|completed| completed + SLACK < other.invoked)
    }
}

/// What is known of all keys.
#[derive(Debug, Default)]
pub struct Model {
    writes: BTreeMap<String, Vec<Write>>,
    increments: BTreeMap<String, i64>,
    appends: BTreeMap<String, BTreeSet<u64>>,
}

/// The value that a write writes: it says which one, and has so many bytes or some more.
pub fn value(id: u64, len: usize) -> Vec<u8> {
    let mut value = format!("{id:010} ").into_bytes();
    value.extend((value.len()..len).map(|at| (id as u32).wrapping_mul(at as u32 | 1) as u8));
    value
}

/// What an append appends.
pub fn token(id: u64) -> Vec<u8> {
    format!("{id};").into_bytes()
}

impl Model {
    /// All keys that were written.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.writes.keys().chain(self.increments.keys()).chain(self.appends.keys())
    }

    pub fn invoke_write(&mut self, key: &str, id: u64, invoked: u64, len: Option<usize>) {
        let write = Write { id, invoked, completed: None, replicas: 0, len };
        self.writes.entry(key.into()).or_default().push(write);
    }

    pub fn invoke_increment(&mut self, key: &str) {
        *self.increments.entry(key.into()).or_default() += 1;
    }

    pub fn invoke_append(&mut self, key: &str, id: u64) {
        self.appends.entry(key.into()).or_default().insert(id);
    }

    /// A write was answered: so many replicas have it.
    pub fn complete(&mut self, key: &str, id: u64, now: u64, replicas: usize) {
        let writes = self.writes.entry(key.into()).or_default();
        for write in writes.iter_mut().filter(|write| write.id == id) {
            (write.completed, write.replicas) = (Some(now), replicas);
        }
    }

    /// A replica has lost everything: what it alone has confirmed may be gone.
    pub fn lose_one(&mut self) {
        let alone = |write: &&mut Write| write.replicas == 1;
        self.writes.values_mut().flatten().filter(alone).for_each(|write| write.replicas = 0);
    }

    /// A delete found nothing, so there is none of it.
    pub fn forget(&mut self, key: &str, id: u64) {
        self.writes.entry(key.into()).or_default().retain(|write| write.id != id);
    }

    /// Looks at what was read of a key by a read that was asked at `invoked`. With `least`, what was written
    /// on that many replicas before must have been seen.
    pub fn check(&self, key: &str, found: Option<&[u8]>, invoked: u64, least: Option<usize>) {
        let kind = key.rsplit('/').next().unwrap().chars().find(|c| "rca".contains(*c));
        match (kind, found) {
            (Some('c'), Some(found)) => self.check_counter(key, found),
            (Some('a'), Some(found)) => self.check_appends(key, found),
            (Some('r'), found) => self.check_register(key, found, invoked, least),
            _ => {}
        }
    }

    fn check_counter(&self, key: &str, found: &[u8]) {
        let number: i64 = std::str::from_utf8(found).unwrap().parse().unwrap();
        let most = self.increments.get(key).copied().unwrap_or_default();
        assert!((1..=most).contains(&number), "{key} is {number} after {most} increments");
    }

    fn check_appends(&self, key: &str, found: &[u8]) {
        let known = self.appends.get(key).cloned().unwrap_or_default();
        let mut seen = BTreeSet::new();
        for part in std::str::from_utf8(found).unwrap().split_terminator(';') {
            let id = part.parse().unwrap();
            assert!(known.contains(&id), "{key}: {id} was never appended");
            assert!(seen.insert(id), "{key}: {id} was appended twice");
        }
    }

    fn check_register(&self, key: &str, found: Option<&[u8]>, invoked: u64, least: Option<usize>) {
        let none = Vec::new();
        let writes = self.writes.get(key).unwrap_or(&none);
        let seen = found.map(|found| {
            let id: u64 = std::str::from_utf8(&found[..10]).unwrap().parse().unwrap();
            let write = writes.iter().find(|write| write.id == id && write.len.is_some());
            let write = write.unwrap_or_else(|| panic!("{key}: {id} was never written to it"));
            assert!(value(id, write.len.unwrap()) == found, "{key}: other bytes than {id} wrote");
            write
        });
        let Some(least) = least else { return };
        let known = |write: &&Write| {
            write.replicas >= least && write.completed.is_some_and(|at| at + SLACK < invoked)
        };
        for acknowledged in writes.iter().filter(known) {
            let may_be = match seen {
                Some(seen) => !seen.is_before(acknowledged),
                None => {
                    let deleted = writes.iter().any(|w| w.len.is_none() && !w.is_before(acknowledged));
                    acknowledged.len.is_none() || deleted
                }
            };
            assert!(may_be, "{key}: {seen:?} was read at {invoked}, after {acknowledged:?}");
        }
    }

    /// Which values were found in an answer to a read of so many keys.
    pub fn found(answer: &Answer) -> Vec<Option<&[u8]>> {
        match answer {
            Answer::Value(value) => vec![value.as_deref()],
            Answer::Values(all) => all.iter().flat_map(Model::found).collect(),
            other => panic!("a read was answered {other:?}"),
        }
    }
}
