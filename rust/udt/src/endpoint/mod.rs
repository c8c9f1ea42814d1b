//! One socket's worth of connections: tells datagrams apart, makes and answers handshakes, keeps the timers.

mod admission;

use core::net::SocketAddr;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use crate::ack::Ecn;
use crate::candidate::Candidates;
use crate::config::Config;
use crate::connection::{Attempt, Connection, Session, Transmit};
use crate::error::{ConnectError, Malformed};
use crate::guard::Guard;
use crate::handshake::{Initiation, PresharedKey, PublicKey};
use crate::identity::{Identity, Me};
use crate::message::Event;
use crate::packet::{COOKIE, Cookie, DATA, Header, INIT, RESP, RESP_MAC1, Resp, Settings};
use crate::rng::Rng;
use crate::seal::{Keys, Suite};
use crate::stats::EndpointStats;
use crate::time::Time;

/// Names a connection of an endpoint. Never used again for another.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

/// All connections of one socket.
///
/// It does no I/O and reads no clock. Inputs are `handle_*` and the methods of [`Connection`]; outputs are
/// `poll_*`. After any input: `poll_transmit` until `None`, `poll_event` until `None`, then wait for a
/// datagram or for the time that `poll_timeout` gives, whichever is first, and `handle_timeout` in any case.
pub struct Endpoint {
    config: Arc<Config>,
    identity: Vec<Me>,
    psks: Vec<(u8, PresharedKey)>,
    rng: Rng,
    guard: Guard,
    /// Nanoseconds since 1970 at the clock's start.
    epoch: u64,
    last_stamp: u64,
    /// Peers that may connect, and the newest stamp of each that was proved to be its own.
    admitted: HashMap<PublicKey, u64>,
    candidates: Candidates,
    connections: HashMap<ConnectionId, Box<Connection>>,
    next_id: u64,
    by_peer: HashMap<PublicKey, ConnectionId>,
    by_index: HashMap<u32, ConnectionId>,
    timers: BTreeSet<(Time, ConnectionId)>,
    ready: VecDeque<ConnectionId>,
    eventful: VecDeque<ConnectionId>,
    answers: VecDeque<(SocketAddr, Vec<u8>)>,
    stats: EndpointStats,
}

impl Endpoint {
    /// An endpoint without connections. `seed` is 32 bytes from the system's source of randomness,
    /// `unix_nanos` the time of day: where it is earlier than at this node's last start, peers take its
    /// handshakes for old ones until they are proved.
    pub fn new(now: Time, config: Config, identity: Identity, seed: [u8; 32], unix_nanos: u64) -> Self {
        let mut rng = Rng::new(seed);
        let guard = Guard::new(now, &mut rng, &config);
        Endpoint {
            config: Arc::new(config),
            identity: identity.keys.into_iter().map(Me::new).collect(),
            psks: identity.psks,
            rng,
            guard,
            epoch: unix_nanos.saturating_sub(now.as_nanos()),
            last_stamp: 0,
            admitted: HashMap::new(),
            candidates: Candidates::default(),
            connections: HashMap::new(),
            next_id: 0,
            by_peer: HashMap::new(),
            by_index: HashMap::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            eventful: VecDeque::new(),
            answers: VecDeque::new(),
            stats: EndpointStats::default(),
        }
    }

    /// Lets a peer connect.
    pub fn admit(&mut self, peer: PublicKey) {
        self.admitted.entry(peer).or_insert(0);
    }

    /// No longer lets a peer connect. A connection that it has goes on: close it.
    pub fn forbid(&mut self, peer: &PublicKey) {
        self.admitted.remove(peer);
        self.candidates.remove(peer);
    }

    /// Replaces the cluster's keys. The connections go on, and renew their keys with the new ones.
    ///
    /// A key is replaced in a running cluster in two rounds, each node in its turn: first all are given the
    /// new one before the old, then the new one alone. Nodes that are a step apart understand each other.
    /// After the second round and `Config::rekey_after`, nothing depends on the old one.
    ///
    /// # Errors
    /// `NoPsk` if `psks` is empty: nothing has changed then.
    pub fn set_psks(&mut self, psks: Vec<(u8, PresharedKey)>) -> Result<(), ConnectError> {
        if psks.is_empty() {
            return Err(ConnectError::NoPsk);
        }
        self.psks = psks;
        Ok(())
    }

    /// Begins a connection, and admits the peer. `Event::Connected` or `Event::Closed` follows.
    pub fn connect(
        &mut self,
        now: Time,
        peer: PublicKey,
        remote: SocketAddr,
    ) -> Result<ConnectionId, ConnectError> {
        if self.identity.iter().any(|me| me.public == peer) {
            return Err(ConnectError::Myself);
        }
        if self.by_peer.contains_key(&peer) {
            return Err(ConnectError::Exists);
        }
        if self.psks.is_empty() {
            return Err(ConnectError::NoPsk);
        }
        if self.connections.len() >= self.config.peers_max {
            return Err(ConnectError::TooMany(self.config.peers_max));
        }
        self.admit(peer);
        let token = self.rng.number();
        let id = self.insert(now, peer, remote, token);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.attempt = Some(Attempt::new(now, &self.config));
        }
        self.touch(id);
        Ok(id)
    }

    /// A connection, to look at.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id).map(|connection| &**connection)
    }

    /// A connection, to use. Afterwards drain `poll_transmit` and `poll_event`.
    pub fn connection_mut(&mut self, now: Time, id: ConnectionId) -> Option<&mut Connection> {
        self.touch(id);
        let connection = self.connections.get_mut(&id)?;
        connection.set_now(now);
        Some(connection)
    }

    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.connections.iter().map(|(id, connection)| (*id, &**connection))
    }

    /// The connection to a peer, if there is one.
    pub fn find(&self, peer: &PublicKey) -> Option<ConnectionId> {
        self.by_peer.get(peer).copied()
    }

    /// The endpoint's figures.
    pub fn stats(&self) -> EndpointStats {
        self.stats
    }

    /// Takes a datagram, and opens it in place. What is not authentic changes nothing but a counter.
    pub fn handle_datagram(&mut self, now: Time, from: SocketAddr, ecn: Ecn, datagram: &mut [u8]) {
        let result = match datagram.first() {
            Some(&DATA) => self.handle_data(now, from, ecn, datagram),
            Some(&INIT) => self.handle_init(now, from, datagram),
            Some(&RESP) => self.handle_resp(now, datagram),
            Some(&COOKIE) => self.handle_cookie(now, datagram),
            Some(kind) => Err(Malformed::Type(*kind)),
            None => Err(Malformed::Short),
        };
        self.stats.malformed += u64::from(result.is_err());
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.candidates.handle_timeout(now);
        while let Some((_, id)) = self.timers.first().copied().filter(|(time, _)| *time <= now) {
            self.timers.pop_first();
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.scheduled = None;
                connection.handle_timeout(now);
                self.touch(id);
                self.reschedule_due(now, id);
            }
        }
    }

    /// When `handle_timeout` is due next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(time, _)| *time);
        [timer, self.candidates.next_timeout()].into_iter().flatten().min()
    }

    /// Fills `out` with datagrams to send. `None` when there is nothing to send before the next input.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        out.clear();
        if let Some((to, datagram)) = self.answers.pop_front() {
            out.extend_from_slice(&datagram);
            return Some(Transmit { to, ecn: Ecn::NotEct, segment_size: out.len(), len: out.len() });
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.is_ready = false;
            if connection.attempt.as_ref().is_some_and(|attempt| attempt.retry_at <= now)
                && let Some(transmit) = self.write_init(now, id, out)
            {
                self.touch(id);
                return Some(transmit);
            }
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let transmit = connection.poll_transmit(now, out);
            self.retire_indices(id);
            if transmit.is_some() {
                self.touch(id);
                return transmit;
            }
            self.reschedule(id);
        }
        None
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<(ConnectionId, Event)> {
        while let Some(id) = self.eventful.front().copied() {
            if let Some(connection) = self.connections.get_mut(&id) {
                if let Some(event) = connection.poll_event() {
                    return Some((id, event));
                }
                connection.is_eventful = false;
            }
            self.eventful.pop_front();
            if self.connections.get(&id).is_some_and(|connection| connection.is_over()) {
                self.remove(id);
            }
        }
        None
    }

    fn handle_data(
        &mut self,
        now: Time,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), Malformed> {
        let header = Header::parse(datagram)?;
        let id = self.by_index.get(&header.receiver).copied();
        let Some(id) = id.or_else(|| self.prove(now, &header, datagram)) else {
            self.stats.unknown_session += 1;
            return Ok(());
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            let was_unheard = connection.is_unheard();
            connection.handle_packet(now, from, ecn, &header, datagram);
            if was_unheard && !connection.is_unheard() {
                // Of handshakes that crossed, the peer has chosen this one.
                self.candidates.remove(&connection.peer());
            }
            self.touch(id);
        }
        Ok(())
    }

    fn handle_resp(&mut self, now: Time, datagram: &[u8]) -> Result<(), Malformed> {
        let resp = Resp::parse(datagram)?;
        let me = self.identity.first();
        let is_ours = me.is_some_and(|me| me.is_meant(&datagram[..RESP_MAC1], resp.mac1));
        let id = self.by_index.get(&resp.receiver).copied();
        let suites = self.suites();
        let connection = id.and_then(|id| self.connections.get_mut(&id));
        let (Some(id), Some(connection)) = (id, connection) else {
            self.stats.unknown_session += 1;
            return Ok(());
        };
        if !is_ours {
            self.stats.forged_handshakes += 1;
            return Ok(());
        }
        let attempt = connection.attempt.as_mut().filter(|attempt| attempt.index == resp.receiver);
        let Some(initiation) = attempt.and_then(|attempt| attempt.initiation.as_mut()) else {
            self.stats.refused_handshakes += 1;
            return Ok(());
        };
        let Some((settings, secrets)) = initiation.read_resp(&resp)? else {
            self.stats.other_secrets += 1;
            return Ok(());
        };
        let suite = Suite::from_bit(settings.suites, suites).ok_or(Malformed::Value("the cipher suite"))?;
        let keys = Keys::new(suite, &secrets.sending, &secrets.receiving);
        let (local, remote) = (resp.receiver, resp.sender);
        let session = Session { local, remote, keys, created: now, sealed: 0, initiator: true };
        let (peer, begins) = (connection.peer(), !connection.is_connected());
        connection.on_answered(now, session, &settings);
        if begins && self.goes_first(&peer) {
            // Ours went first, and is the one: the peer goes by what it hears.
            self.candidates.remove(&peer);
        }
        if let Some(last) = self.admitted.get_mut(&peer) {
            // An INIT that the peer sent before its answer is stale, however late it comes. What it shows
            // first is right even if its clock was set back.
            *last = if begins { settings.stamp } else { (*last).max(settings.stamp) };
        }
        self.retire_indices(id);
        self.touch(id);
        Ok(())
    }

    fn handle_cookie(&mut self, now: Time, datagram: &[u8]) -> Result<(), Malformed> {
        let cookie = Cookie::parse(datagram)?;
        let id = self.by_index.get(&cookie.receiver).copied();
        let Some((id, connection)) = id.and_then(|id| Some((id, self.connections.get_mut(&id)?))) else {
            self.stats.unknown_session += 1;
            return Ok(());
        };
        let peer = connection.peer();
        let attempt = connection.attempt.as_mut().filter(|attempt| attempt.index == cookie.receiver);
        let opened = attempt
            .as_ref()
            .and_then(|attempt| attempt.initiation.as_ref()?.read_cookie(&peer, &cookie).ok());
        if let (Some(attempt), Some(opened)) = (attempt, opened) {
            // A cookie answers one INIT; the next one shows it at once.
            attempt.retry_at = now;
            attempt.initiation = None;
            // With the same key of the cluster: this one was not refused.
            attempt.written = attempt.written.saturating_sub(1);
            connection.cookie = Some(opened);
            self.touch(id);
        }
        Ok(())
    }

    /// Writes an INIT for a connection whose attempt is due.
    fn write_init(&mut self, now: Time, id: ConnectionId, out: &mut Vec<u8>) -> Option<Transmit> {
        let settings = self.settings(now, self.connections.get(&id)?.token);
        let index = self.free_index();
        self.by_index.insert(index, id);
        let connection = self.connections.get_mut(&id)?;
        let (peer, to) = (connection.peer(), connection.remote());
        let attempt = connection.attempt.as_mut()?;
        // A peer that was not given the first key yet, or no longer has it, answers to another.
        let (psk_id, psk) = self.psks.get(attempt.written % self.psks.len().max(1))?;
        attempt.written += 1;
        let before = std::mem::replace(&mut attempt.index, index);
        let jitter = attempt.pause / 16 * (self.rng.number() % 5) as u32;
        attempt.sent_at = now;
        attempt.retry_at = now + attempt.pause + jitter;
        attempt.pause = (attempt.pause * 2).min(self.config.handshake_retry_max);
        let cookie = connection.cookie.take();
        let me = self.identity.first()?;
        let written = Initiation::write(
            &mut self.rng,
            &me.key,
            &peer,
            (*psk_id, psk),
            index,
            &settings,
            cookie.as_ref(),
            out,
        );
        if let Some(attempt) = &mut connection.attempt {
            attempt.initiation = written.ok();
        }
        if before != 0 {
            self.by_index.remove(&before);
        }
        Some(Transmit { to, ecn: Ecn::NotEct, segment_size: out.len(), len: out.len() })
    }

    fn suites(&self) -> u16 {
        Suite::available(self.config.aes)
    }

    /// What this side tells in a handshake. Each stamp is later than the one before.
    fn settings(&mut self, now: Time, token: u64) -> Settings {
        self.last_stamp = (self.epoch + now.as_nanos()).max(self.last_stamp + 1);
        Settings {
            stamp: self.last_stamp,
            token,
            suites: self.suites(),
            datagram_max: self.config.datagram_max.max(crate::mtu::MTU_MIN),
            window: self.config.window,
            message_window: self.config.message_window,
            messages: self.config.messages,
            message_max: self.config.message_max,
        }
    }

    fn insert(&mut self, now: Time, peer: PublicKey, remote: SocketAddr, token: u64) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let connection = Connection::new(now, &self.config, peer, remote, token, self.rng.fork());
        self.connections.insert(id, Box::new(connection));
        self.by_peer.insert(peer, id);
        id
    }

    /// An index that no session has. Never 0.
    fn free_index(&mut self) -> u32 {
        loop {
            let index = self.rng.number() as u32;
            if index != 0 && !self.by_index.contains_key(&index) && !self.candidates.has(index) {
                return index;
            }
        }
    }

    fn retire_indices(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            for index in connection.retired.drain(..) {
                self.by_index.remove(&index);
            }
        }
    }

    /// A connection has changed: it may want to send, to tell, or to be woken at another time.
    fn touch(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
        if !connection.is_eventful {
            connection.is_eventful = true;
            self.eventful.push_back(id);
        }
    }

    fn reschedule(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let next = connection.next_timeout();
        if connection.scheduled != next {
            if let Some(time) = std::mem::replace(&mut connection.scheduled, next) {
                self.timers.remove(&(time, id));
            }
            self.timers.extend(next.map(|time| (time, id)));
        }
        if connection.is_silent() {
            self.retire_all(id);
        }
    }

    /// After a timeout: what is still due must be sent, and waits for `poll_transmit`.
    fn reschedule_due(&mut self, now: Time, id: ConnectionId) {
        let due = self.connections.get(&id).and_then(|connection| connection.next_timeout());
        if due.is_some_and(|time| time > now) {
            self.reschedule(id);
        }
    }

    /// A connection that sends no more needs no index.
    fn retire_all(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let attempt = connection.attempt.as_ref().map(|attempt| attempt.index);
        let indices: Vec<u32> = connection.sessions.indices().chain(attempt).collect();
        let peer = connection.peer();
        indices.iter().for_each(|index| {
            self.by_index.remove(index);
        });
        if self.by_peer.get(&peer) == Some(&id) {
            self.by_peer.remove(&peer);
        }
    }

    fn remove(&mut self, id: ConnectionId) {
        self.retire_indices(id);
        self.retire_all(id);
        if let Some(time) = self.connections.remove(&id).and_then(|connection| connection.scheduled) {
            self.timers.remove(&(time, id));
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}
