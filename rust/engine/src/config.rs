//! What an engine is started with. `turbopump/config.py` owns names, defaults and reasons.

use std::net::SocketAddr;
use std::time::Duration;

use turbopump_core::cluster::ClusterConfig;
use turbopump_core::config::Limits;
use turbopump_core::keyspace::Keyspace;
use turbopump_udt::{PresharedKey, PrivateKey, PublicKey};

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

/// A node's place in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// All members, this node too, in the order of their names.
    pub members: Vec<MemberOptions>,
    /// Where the socket for the others is bound.
    pub bind: SocketAddr,
    /// This node's key.
    pub key: PrivateKey,
    /// What all members share: newer first, each with its number.
    pub shared: Vec<(u8, PresharedKey)>,
    /// The secret of the digests, the same on all nodes.
    pub digest_secret: [u8; 16],
    /// Whether clients over TCP are told where a key is kept, rather than served from there.
    pub redirect: bool,
    /// How long a reactor stays awake while a command waits for a peer nearby.
    pub awake: Duration,
    /// What the cluster keeps to.
    pub cluster: ClusterConfig,
    /// What the transport keeps to.
    pub transport: turbopump_udt::Config,
}

/// A member of a cluster.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// Its name.
    pub name: String,
    /// Where its socket is.
    pub address: Option<SocketAddr>,
    /// Where Redis's clients find it, `host:port`, if it listens for them.
    pub door: Option<String>,
    /// Its public key.
    pub key: PublicKey,
    /// Its share of the slots.
    pub weight: u32,
    /// What it is lost together with.
    pub zone: String,
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
    /// The cluster; `None` for a single node.
    pub cluster: Option<ClusterOptions>,
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
            cluster: None,
            release_memory: || {},
        }
    }
}
