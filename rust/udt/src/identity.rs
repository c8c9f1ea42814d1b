//! Who an endpoint is: its keys, and those of its cluster.

use crate::handshake::{PresharedKey, PrivateKey, PublicKey, mac1_key, tag};
use crate::sodium;

/// Who an endpoint is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This node's key, and before it those that it had lately: peers may not know the new one yet. The first
    /// is used to connect.
    pub keys: Vec<PrivateKey>,
    /// Keys of the cluster by number: all are accepted, and the first is used unless a peer does not have it.
    pub psks: Vec<(u8, PresharedKey)>,
}

/// One of this node's keys, with what follows from it.
pub(crate) struct Me {
    pub key: PrivateKey,
    pub public: PublicKey,
    mac1_key: [u8; 32],
}

impl Me {
    pub fn new(key: PrivateKey) -> Self {
        let public = key.public();
        Me { mac1_key: mac1_key(&public), key, public }
    }

    /// Whether whoever wrote `before` and the tag behind it knows this key.
    pub fn is_meant(&self, before: &[u8], mac1: &[u8]) -> bool {
        sodium::same(&tag(&self.mac1_key, &[before]), mac1)
    }
}
