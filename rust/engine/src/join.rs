//! Makes a node a member of a cluster: its coordinators and its peers. Not what the cluster does then.

use std::sync::Arc;

use turbopump_core::cluster::{Cluster, ClusterConfig};
use turbopump_core::keyspace::Keyspaces;
use turbopump_core::layout::Member;
use turbopump_core::outbox::{Outbox, Wake};
use turbopump_core::replica::Replica;
use turbopump_core::routes::Routes;
use turbopump_udt::Identity;

use crate::config::{ClusterOptions, EngineConfig, MemberOptions};
use crate::engine::{EngineError, node_id, random};
use crate::peers::{Address, Peers};
use crate::shared::Inbox;

/// What a cluster is joined with.
pub struct Join<'t> {
    /// The node's configuration.
    pub config: &'t EngineConfig,
    /// The part of it that is the cluster's.
    pub options: &'t ClusterOptions,
    /// The ways to the reactors.
    pub inboxes: &'t Arc<Vec<Inbox>>,
}

impl Join<'_> {
    /// Gives the coordinators, those of the reactors and `outside`, which is for other threads, their way to
    /// the peers, and makes the peers.
    ///
    /// # Errors
    /// The members make no layout, or the socket cannot be bound.
    pub fn join(&self, replicas: &mut [Replica], outside: &mut Replica) -> Result<Peers, EngineError> {
        let options = self.options;
        let members = options.members.iter().map(member).collect();
        let keyspaces = Keyspaces::new(self.config.keyspaces.clone());
        let doors = options.members.iter().map(|member| member.door.clone()).collect();
        let routes = Routes::new(members, &self.config.name, keyspaces, node_id)?.with_doors(doors);
        let routes = Arc::new(routes);
        let mut outboxes = Vec::new();
        for (index, replica) in replicas.iter_mut().chain([outside]).enumerate() {
            let outbox = Arc::new(Outbox::new(Arc::clone(&routes), index, self.wake(index)));
            *replica = replica.clone().with_outbox(Arc::clone(&outbox));
            outboxes.push(outbox);
        }
        let config = ClusterConfig { boot: random()?, ..options.cluster.clone() };
        let cluster = Cluster::new(config, replicas[0].clone(), outboxes, routes);
        let identity = Identity { keys: vec![options.key.clone()], psks: options.shared.clone() };
        let address = |of: &MemberOptions| Address { key: of.key, address: of.address };
        let addresses = options.members.iter().map(address).collect();
        Peers::bind(options.bind, options.transport.clone(), identity, addresses, cluster)
            .map_err(|error| EngineError::Bind(options.bind, error))
    }

    /// The reactor that owns the peers looks for its own orders by itself.
    fn wake(&self, index: usize) -> Wake {
        let inboxes = Arc::clone(self.inboxes);
        if index == 0 { Arc::new(|| {}) } else { Arc::new(move || inboxes[0].wake()) }
    }
}

fn member(of: &MemberOptions) -> Member {
    Member { name: of.name.clone(), zone: of.zone.clone(), weight: of.weight }
}
