//! What an engine is started with. `turbopump/config.py` owns names, defaults and reasons.

use turbopump_core::config::Limits;
use turbopump_core::keyspace::Keyspace;

/// Who may connect to the unix socket; a list that is `None` admits everybody the socket's mode does.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    /// User ids that may.
    pub uids: Option<Vec<u32>>,
    /// Group ids that may.
    pub gids: Option<Vec<u32>>,
}

impl Guests {
    /// Whether the list admits a process with these ids.
    pub fn admit(&self, uid: u32, gid: u32) -> bool {
        match (&self.uids, &self.gids) {
            (None, None) => true,
            (uids, gids) => {
                uids.as_ref().is_some_and(|uids| uids.contains(&uid))
                    || gids.as_ref().is_some_and(|gids| gids.contains(&gid))
            }
        }
    }

    /// Whether there is a list at all.
    pub fn is_open(&self) -> bool {
        self.uids.is_none() && self.gids.is_none()
    }
}

/// An engine's configuration.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The node's name.
    pub name: String,
    /// Threads that serve clients.
    pub reactors: usize,
    /// Bytes the store may take; 0 is no limit.
    pub memory_max: u64,
    /// What clients over TCP must give.
    pub password: Option<String>,
    /// Who may connect over the unix socket.
    pub guests: Guests,
    /// What a replica keeps to.
    pub limits: Limits,
    /// Client connections.
    pub connections_max: usize,
    /// Events waiting for the side that decides.
    pub events_max: usize,
    /// Bytes read from a connection at once.
    pub read_buffer: usize,
    /// Rules by key prefix.
    pub keyspaces: Vec<Keyspace>,
    /// Has the allocator give unused memory back to the system; may take a while.
    pub release_memory: fn(),
}

impl Default for EngineConfig {
    /// As `turbopump/config.py` has them; `tests/test_config.py` compares.
    fn default() -> Self {
        EngineConfig {
            name: "node".into(),
            reactors: 1,
            memory_max: 0,
            password: None,
            guests: Guests::default(),
            limits: Limits::default(),
            connections_max: 16_384,
            events_max: 10_000,
            read_buffer: 64 * 1024,
            keyspaces: Vec::new(),
            release_memory: || {},
        }
    }
}
