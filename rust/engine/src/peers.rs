//! The connections to a node's peers: carries messages between the cluster and the transport. Not what they
//! mean, and not how bytes travel.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use mio::{Registry, Token};
use turbopump_core::cluster::{Cluster, Now, Outcome, PeerState, Transmit, Urgency};
use turbopump_core::routes::MemberIndex;
use turbopump_core::waits::Waiter;
use turbopump_udt::error::{CloseReason, SendError};
use turbopump_udt::{
    Class, Config, Connection, ConnectionId, ConnectionStats, Endpoint, EndpointStats, Event, Identity,
    MessageId, Options, PublicKey, Time,
};

use crate::udp::{self, Udp};

/// Messages handed to a connection in pieces at a time: each may take a window.
const STREAMS_MAX: usize = 64;
/// How long a peer that was refused is left alone, and the longest that this node waits when a peer refused
/// it. Files and versions differ until somebody ends it, and who begins anew with the right one dials at
/// once: so long are two apart where the one that began anew cannot dial.
const REFUSED_MS: u64 = 10_000;
/// While clients are at work, what nobody waits for gets one part of a node's time, and these many are
/// others'. Healing then goes at some 250,000 small entries a second, and else at several times that.
const REST: u32 = 4;
/// Who has asked for something asks again within this time.
const ASKED_MS: u64 = 100;
/// How long this node waits when it was refused once; each further time in a row it is twice as long. What
/// passes by itself is soon over, and anything else costs a handshake each time.
const REFUSED_FIRST_MS: u64 = 500;
/// The code with which a peer is sent away.
const REFUSED: u64 = 1;

/// A member, as the transport knows it.
#[derive(Clone, Debug)]
pub struct Address {
    /// Its key.
    pub key: PublicKey,
    /// Where it is; unknown if it can only come to us.
    pub address: Option<SocketAddr>,
}

/// The way to one peer.
#[derive(Debug)]
struct Link {
    at: Address,
    connection: Option<ConnectionId>,
    /// A message that the connection did not take.
    unsent: Option<Transmit>,
    streams: Vec<(MessageId, VecDeque<Bytes>)>,
    /// The next attempt is not before.
    later_ms: u64,
    /// How often the peer has refused this node since it was last up.
    refusals: u32,
    /// The peer is refused, and sent away as soon as it was told what this node is: so it knows why, too.
    is_refused: bool,
}

/// Figures of a peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its name.
    pub name: String,
    /// `self`, `alive`, `connecting` or `down`.
    pub state: &'static str,
    /// What the cluster counted.
    pub cluster: turbopump_core::cluster::PeerStats,
    /// What the transport measured.
    pub link: ConnectionStats,
    /// Milliseconds since both were last known to hold the same.
    pub equal_ago_ms: Option<u64>,
    /// Whether deletes are kept because this peer may not know of them.
    pub holds_deletes: bool,
}

/// What is to be said of datagrams, if there are so many: a line for each cause, and not for each of them.
#[derive(Debug)]
pub struct Remark {
    /// What it is about.
    pub event: &'static str,
    /// What is counted.
    pub what: &'static str,
    count: fn(&EndpointStats) -> u64,
    least: u64,
    /// What it means, and what to do.
    pub why: &'static str,
}

const fn stranger(count: fn(&EndpointStats) -> u64, least: u64, why: &'static str) -> Remark {
    Remark { event: "strangers", what: "datagrams", count, least, why }
}

/// Those of who is no peer were dropped. Secrets differ for a moment while one is replaced, hence the least.
const REMARKS: [Remark; 6] = [
    stranger(|stats| stats.malformed, 1, "they are no packets of this protocol, or of another version of it"),
    stranger(
        |stats| stats.other_versions,
        1,
        "their sender speaks another version: update the older of the two",
    ),
    stranger(
        |stats| stats.forged_handshakes,
        1,
        "their sender does not have this node's public key: give both the same cluster.json",
    ),
    stranger(
        |stats| stats.unknown_peers,
        1,
        "their sender is no member: its public key is not in this node's cluster.json",
    ),
    stranger(
        |stats| stats.other_secrets + stats.unheard_answers,
        3,
        "their sender has another secret, or does not hear this node: give both the same cluster.secret",
    ),
    Remark {
        event: "clock_set_back",
        what: "connections",
        count: |stats| stats.set_back_clocks,
        least: 1,
        why: "a member came back with an earlier time of day than before, and was let in: set its clock",
    },
];

/// How often each is said.
const REMARKS_MS: u64 = 60_000;

/// A node's peers.
#[derive(Debug)]
pub struct Peers {
    /// By remark: what was counted when it was last said, and when it may be again.
    said: [(u64, u64); REMARKS.len()],
    udp: Udp,
    cluster: Cluster,
    links: Vec<Link>,
    members: HashMap<ConnectionId, MemberIndex>,
    by_key: HashMap<PublicKey, MemberIndex>,
    /// When somebody, a client or a peer, last asked for something that it waits for.
    asked_ms: u64,
    /// What nobody waits for rests until then.
    rests: Option<Time>,
}

impl Peers {
    /// The peers of `cluster`, whose members `addresses` has in their order, over a socket of its own.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn bind(
        bind: SocketAddr,
        config: Config,
        identity: Identity,
        addresses: Vec<Address>,
        cluster: Cluster,
    ) -> io::Result<Self> {
        let mut udp = Udp::bind(bind, config, identity)?;
        let me = cluster.routes().me();
        let mut by_key = HashMap::new();
        for (index, at) in addresses.iter().enumerate().filter(|(index, _)| *index != usize::from(me)) {
            by_key.insert(at.key, index as MemberIndex);
            udp.endpoint().0.admit(at.key);
        }
        let links = addresses.into_iter().map(Link::new).collect();
        let (said, members, rests) = (Default::default(), HashMap::new(), None);
        Ok(Peers { said, udp, cluster, links, members, by_key, asked_ms: 0, rests })
    }

    /// As `Udp::register`.
    ///
    /// # Errors
    /// As there.
    pub fn register(&mut self, registry: &Registry, socket: Token, timer: Token) -> io::Result<()> {
        self.udp.register(registry, socket, timer)
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.udp.local_address()
    }

    /// Polling told of the socket.
    pub fn handle_socket(&mut self, event: &mio::event::Event) {
        self.udp.handle_socket(event);
    }

    /// Polling told of the timer.
    pub fn handle_timer(&mut self) {
        self.udp.handle_timer();
    }

    /// The cluster, to be told something. Call `turn` afterwards.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Brings in what came. Returns whether there is more. `poll_done` then has answers, which clients get
    /// before the peers get theirs: an acknowledgement may wait for what the next command has to say.
    ///
    /// # Errors
    /// The socket is broken, which leaves nothing to be done.
    pub fn receive(&mut self, now: Now) -> io::Result<bool> {
        let more = self.udp.read()?;
        self.handle_events(now);
        Ok(more)
    }

    /// Has the cluster do what is due, and sends. Returns whether there is more to be done before the next
    /// wait.
    ///
    /// # Errors
    /// As `receive`.
    pub fn send(&mut self, now: Now) -> io::Result<bool> {
        self.connect(now);
        self.cluster.handle_orders(now);
        self.cluster.handle_timeout(now);
        let mut more = self.cluster.work(now);
        let began = udp::now();
        self.rests.take_if(|until| *until <= began);
        let healing = self.rests.is_none() && self.cluster.heal(now);
        self.hand_on();
        more |= self.udp.flush()?;
        more |= self.send_away();
        if healing && now.ms < self.asked_ms.max(self.cluster.fresh_ms()) + ASKED_MS {
            let ended = udp::now();
            self.rests = Some(ended + ended.since(began) * REST);
        } else {
            more |= healing;
        }
        if !more {
            self.udp.arm(self.rests)?;
        }
        // Time that has passed in the transport may have told something.
        self.handle_events(now);
        Ok(more || self.links.iter().any(|link| link.is_refused))
    }

    /// Whether a command waits for a peer.
    pub fn is_awaited(&self) -> bool {
        self.cluster.is_awaited()
    }

    /// A client asked for something at this time, on `Now::ms`.
    pub fn note_asked(&mut self, at_ms: u64) {
        self.asked_ms = self.asked_ms.max(at_ms);
    }

    /// The next answer to a command that waits.
    pub fn poll_done(&mut self) -> Option<(Waiter, Outcome)> {
        self.cluster.poll_done()
    }

    /// When to call `turn` at the latest, in milliseconds of `Now::ms`.
    pub fn poll_timeout(&self) -> Option<u64> {
        let waits =
            |link: &&Link| link.connection.is_none() && link.at.address.is_some() && link.later_ms > 0;
        let connect = self.links.iter().filter(waits).map(|link| link.later_ms).min();
        [self.cluster.poll_timeout(), connect].into_iter().flatten().min()
    }

    /// What is to be said of datagrams, and of how many.
    pub fn poll_remark(&mut self, now: Now) -> Option<(u64, Remark)> {
        let stats = self.udp.endpoint().0.stats();
        for (remark, (told, later_ms)) in REMARKS.into_iter().zip(&mut self.said) {
            let count = (remark.count)(&stats);
            let more = count - *told;
            if more >= remark.least && now.ms >= *later_ms {
                (*told, *later_ms) = (count, now.ms + REMARKS_MS);
                return Some((more, remark));
            }
        }
        None
    }

    /// Figures of all members, in their order.
    pub fn describe(&mut self, now: Now) -> Vec<PeerInfo> {
        let me = self.cluster.routes().me();
        let held_by = self.cluster.watermark_held_by();
        let (endpoint, _) = self.udp.endpoint();
        let describe = |(index, link): (usize, &Link)| {
            let cluster = self.cluster.peer_stats(index as MemberIndex);
            let connection = link.connection.and_then(|id| endpoint.connection(id));
            let state = match cluster.state {
                _ if index == usize::from(me) => "self",
                PeerState::Up => "alive",
                PeerState::Greeting => "connecting",
                PeerState::Down if connection.is_some() => "connecting",
                PeerState::Down => "down",
            };
            let name = self.cluster.routes().name(index as MemberIndex).to_owned();
            PeerInfo {
                name,
                state,
                cluster,
                link: connection.map(Connection::stats).unwrap_or_default(),
                equal_ago_ms: cluster.exchange.equal_ms.map(|at_ms| now.ms.saturating_sub(at_ms)),
                holds_deletes: held_by.contains(&(index as MemberIndex)),
            }
        };
        self.links.iter().enumerate().map(describe).collect()
    }

    /// A member's name.
    pub fn name(&self, member: MemberIndex) -> &str {
        self.cluster.routes().name(member)
    }

    /// Tells all peers that this node leaves.
    pub fn close(&mut self) {
        let (endpoint, now) = self.udp.endpoint();
        for link in &mut self.links {
            if let Some(connection) = link.connection.take().and_then(|id| endpoint.connection_mut(now, id)) {
                connection.close(0, b"the node stops");
            }
        }
        // What cannot be sent any more the peers find out by themselves.
        let _ = self.udp.turn();
    }

    fn connect(&mut self, now: Now) {
        let me = usize::from(self.cluster.routes().me());
        let (endpoint, time) = self.udp.endpoint();
        for (index, link) in self.links.iter_mut().enumerate() {
            let Some(address) = link.at.address.filter(|_| index != me && link.connection.is_none()) else {
                continue;
            };
            if now.ms < link.later_ms {
                continue;
            }
            let id = match endpoint.connect(time, link.at.key, address) {
                Ok(id) => Some(id),
                // It came to us in this very moment.
                Err(_) => endpoint.find(&link.at.key),
            };
            link.connection = id;
            if let Some(id) = id {
                self.members.insert(id, index as MemberIndex);
            }
        }
    }

    fn handle_events(&mut self, now: Now) {
        let (endpoint, time) = self.udp.endpoint();
        while let Some((id, event)) = endpoint.poll_event() {
            let known = self.members.get(&id).copied();
            let member = known.or_else(|| {
                let key = endpoint.connection(id)?.peer();
                let member = self.by_key.get(&key).copied()?;
                self.members.insert(id, member);
                Some(member)
            });
            let Some(member) = member else { continue };
            let link = &mut self.links[usize::from(member)];
            if let Event::Closed(reason) = event {
                self.members.remove(&id);
                if link.connection == Some(id) {
                    let was_up = self.cluster.peer_stats(member).state == PeerState::Up;
                    link.wait_if_refused(now, &reason, was_up);
                    link.forget();
                    self.cluster.handle_closed(now, member);
                }
                continue;
            }
            if let Event::Connected = event {
                if link.connection.is_some_and(|old| old != id) {
                    // The peer has started anew before the old connection was given up.
                    link.forget();
                    self.cluster.handle_closed(now, member);
                }
                link.connection = Some(id);
                self.cluster.handle_connected(now, member);
                continue;
            }
            if link.connection != Some(id) || link.is_refused {
                continue;
            }
            if let Event::Message { class: Class::Request, .. } = event {
                self.asked_ms = now.ms;
            }
            if !hand_over(&mut self.cluster, endpoint, (time, now), (id, member), event) {
                (link.later_ms, link.is_refused) = (now.ms + REFUSED_MS, true);
            }
        }
    }

    /// Ends the connections of those that are refused. Returns whether there were any.
    fn send_away(&mut self) -> bool {
        let (endpoint, now) = self.udp.endpoint();
        let mut any = false;
        for link in self.links.iter_mut().filter(|link| link.is_refused) {
            any = true;
            if let Some(connection) = link.connection.and_then(|id| endpoint.connection_mut(now, id)) {
                connection.close(REFUSED, b"refused");
            }
        }
        any
    }

    /// Hands the cluster's messages to the transport.
    fn hand_on(&mut self) {
        let (endpoint, now) = self.udp.endpoint();
        for (index, link) in self.links.iter_mut().enumerate() {
            let Some(id) = link.connection else { continue };
            if endpoint.connection(id).is_none_or(|connection| !connection.is_connected()) {
                continue;
            }
            let mut connection = None;
            if !link.streams.is_empty() {
                connection = endpoint.connection_mut(now, id);
                if let Some(connection) = &mut connection {
                    link.write_streams(connection);
                }
            }
            while link.streams.len() < STREAMS_MAX {
                let next = link.unsent.take().or_else(|| self.cluster.poll_transmit(index as MemberIndex));
                let Some(transmit) = next else { break };
                if connection.is_none() {
                    connection = endpoint.connection_mut(now, id);
                }
                let Some(connection) = &mut connection else { break };
                link.unsent = link.send(connection, transmit);
                if link.unsent.is_some() {
                    break; // an event tells when more is taken
                }
            }
        }
    }
}

impl Link {
    fn new(at: Address) -> Self {
        Link {
            at,
            connection: None,
            unsent: None,
            streams: Vec::new(),
            later_ms: 0,
            refusals: 0,
            is_refused: false,
        }
    }

    /// The connection has ended: who was sent away does not come back at once, and each time later.
    fn wait_if_refused(&mut self, now: Now, reason: &CloseReason, was_up: bool) {
        if was_up {
            self.refusals = 0;
        }
        if matches!(reason, CloseReason::Peer { code: REFUSED, .. }) {
            let wait_ms = (REFUSED_FIRST_MS << self.refusals.min(10)).min(REFUSED_MS);
            self.refusals = self.refusals.saturating_add(1);
            self.later_ms = self.later_ms.max(now.ms + wait_ms);
        }
    }

    fn forget(&mut self) {
        (self.connection, self.unsent, self.is_refused) = (None, None, false);
        self.streams.clear();
    }

    /// Sends a message; gives it back if the connection takes no more.
    fn send(&mut self, connection: &mut Connection, mut transmit: Transmit) -> Option<Transmit> {
        let class = match transmit.urgency {
            Urgency::Control => Class::Control,
            Urgency::Request => Class::Request,
            Urgency::Reply => Class::Reply,
            Urgency::Bulk => Class::Bulk,
        };
        let len: usize = transmit.pieces.iter().map(Bytes::len).sum();
        if transmit.datagram && len <= connection.datagram_max() {
            // It was to be sent once, and never again.
            let _ = connection.send_datagram(whole(transmit.pieces));
            return None;
        }
        // Ordered by healing alone: its messages follow from each other.
        let group = (transmit.urgency == Urgency::Control).then_some(0);
        let options = Options { class, ordered_group: group, ttl: None };
        if len <= WHOLE {
            let data = whole(transmit.pieces);
            return match connection.send(options, data.clone()) {
                Err(SendError::Full) => Some(Transmit { pieces: VecDeque::from([data]), ..transmit }),
                _ => None,
            };
        }
        match connection.open(options) {
            Ok(message) => {
                self.streams.push((message, std::mem::take(&mut transmit.pieces)));
                self.write_streams(connection);
                None
            }
            Err(SendError::Full) => Some(transmit),
            Err(_) => None,
        }
    }

    /// Goes on with messages that are sent in pieces.
    fn write_streams(&mut self, connection: &mut Connection) {
        self.streams.retain_mut(|(message, pieces)| {
            while let Some(piece) = pieces.front_mut() {
                match connection.write(*message, piece) {
                    Ok(_) if piece.is_empty() => drop(pieces.pop_front()),
                    Ok(_) | Err(SendError::Full) => return true,
                    Err(_) => return false,
                }
            }
            // A message that is given up already has no end.
            let _ = connection.finish(*message);
            false
        });
    }
}

/// Messages up to this many bytes are delivered whole.
const WHOLE: usize = 16 * 1024;

fn whole(mut pieces: VecDeque<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.pop_front().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

/// Hands a message, or a piece of one, to the cluster. Returns whether the peer may stay.
fn hand_over(
    cluster: &mut Cluster,
    endpoint: &mut Endpoint,
    (time, now): (Time, Now),
    (id, member): (ConnectionId, MemberIndex),
    event: Event,
) -> bool {
    let mut consumed = |message, len: usize| {
        let connection = endpoint.connection_mut(time, id);
        connection.into_iter().for_each(|connection| connection.consumed(message, len as u64));
    };
    let result = match event {
        Event::Message { id: message, data, .. } => {
            consumed(message, data.len());
            cluster.handle_message(now, member, data)
        }
        Event::MessageData { id: message, data } => {
            consumed(message, data.len());
            cluster.handle_piece(now, member, message.0, data)
        }
        Event::MessageEnd { id: message } => cluster.handle_end(now, member, message.0),
        Event::MessageDropped { id: message } => {
            cluster.handle_dropped(now, member, message.0);
            Ok(())
        }
        Event::Datagram(data) => cluster.handle_message(now, member, data),
        _ => Ok(()),
    };
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_waits_twice_as_long_each_time() {
        let at = Address { key: PublicKey([1; 32]), address: None };
        let (mut link, mut now) = (Link::new(at), Now::default());
        let refused = CloseReason::Peer { code: REFUSED, reason: String::new() };
        let mut wait = |reason: &CloseReason, was_up| {
            link.wait_if_refused(now, reason, was_up);
            let wait_ms = link.later_ms.saturating_sub(now.ms);
            now.ms += wait_ms;
            wait_ms
        };
        let waits: Vec<u64> = (0..8).map(|_| wait(&refused, false)).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, REFUSED_MS, REFUSED_MS, REFUSED_MS]);
        assert_eq!(wait(&CloseReason::Local, true), 0, "it had been up, and nobody refuses it");
        assert_eq!(wait(&refused, false), REFUSED_FIRST_MS);
    }
}
