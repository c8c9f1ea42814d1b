//! Keyspaces: key prefixes with rules of their own. Not the configuration file: the values it comes down to.

/// How the writes of a keyspace relate to each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Writes {
    /// The later version wins.
    #[default]
    Versioned,
    /// The first value stays until it is deleted.
    Immutable,
}

/// How many replicas must know before a client is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acks {
    /// The one that coordinates.
    #[default]
    One,
    /// More than half.
    Quorum,
    /// All of them.
    All,
}

impl Acks {
    /// The level with this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"one" => Some(Acks::One),
            b"quorum" => Some(Acks::Quorum),
            b"all" => Some(Acks::All),
            _ => None,
        }
    }
}

/// The rules for the keys that begin with a prefix.
#[derive(Clone, Debug, Default)]
pub struct Keyspace {
    /// The prefix; empty for the default keyspace.
    pub prefix: Vec<u8>,
    /// What a second write of a key does.
    pub writes: Writes,
    /// The lifetime of a write that states none, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Bytes its entries may take; 0 is no limit of its own.
    pub memory_max: u64,
    /// Replicas of each key; 0 is one on every member.
    pub copies: usize,
    /// Who must have a write before it is answered.
    pub write_acks: Acks,
    /// Who is asked before a read is answered.
    pub read_acks: Acks,
    /// Small writes go to the other replicas as datagrams, once: what is lost is left to healing.
    pub datagram: bool,
    /// Which of the placements of all keyspaces it has: keys of one are compared with each other. Set by
    /// `Keyspaces`.
    pub group: u8,
}

/// All keyspaces: the longest prefix that fits a key decides.
#[derive(Clone, Debug)]
pub struct Keyspaces {
    all: Vec<Keyspace>,
    groups: usize,
}

impl Keyspaces {
    /// The given keyspaces and, unless one of them has an empty prefix, the default one.
    pub fn new(mut all: Vec<Keyspace>) -> Self {
        if !all.iter().any(|keyspace| keyspace.prefix.is_empty()) {
            all.push(Keyspace::default());
        }
        all.sort_by_key(|keyspace| std::cmp::Reverse(keyspace.prefix.len()));
        let mut placements: Vec<usize> = all.iter().map(|keyspace| keyspace.copies).collect();
        placements.sort_unstable();
        placements.dedup();
        for keyspace in &mut all {
            // There are no more than numbers of copies.
            keyspace.group = placements.binary_search(&keyspace.copies).unwrap_or(0) as u8;
        }
        Keyspaces { all, groups: placements.len() }
    }

    /// How many different placements there are.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The index of the keyspace of `key`.
    pub fn index_of(&self, key: &[u8]) -> usize {
        let last = self.all.len() - 1; // the empty prefix
        self.all[..last].iter().position(|keyspace| key.starts_with(&keyspace.prefix)).unwrap_or(last)
    }

    /// The keyspace at `index`.
    pub fn get(&self, index: usize) -> &Keyspace {
        &self.all[index]
    }

    /// All keyspaces, the longest prefixes first.
    pub fn iter(&self) -> impl Iterator<Item = &Keyspace> {
        self.all.iter()
    }
}

impl Default for Keyspaces {
    fn default() -> Self {
        Keyspaces::new(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let named = |prefix: &str| Keyspace { prefix: prefix.into(), ..Keyspace::default() };
        let keyspaces = Keyspaces::new(vec![named("a"), named("abc"), named("ab")]);
        let of = |key: &str| keyspaces.get(keyspaces.index_of(key.as_bytes())).prefix.clone();

        assert_eq!(of("abcd"), b"abc");
        assert_eq!(of("abd"), b"ab");
        assert_eq!(of("x"), b"");
        assert_eq!(of(""), b"");
    }
}
