//! One peer: messages in, packets out, and back.

mod path;
mod receive;
mod session;
mod timers;
mod transmit;

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::session::{Attempt, Session, Sessions};
pub use self::transmit::Transmit;

use self::path::Path;
use self::timers::Budget;
use crate::ack::Received;
use crate::config::Config;
use crate::congestion::Controller;
use crate::error::{CloseReason, SendError};
use crate::frame::EcnCounts;
use crate::handshake::PublicKey;
use crate::loss::SentPackets;
use crate::message::{Event, MessageId, Options};
use crate::mtu::{MTU_MIN, Mtu};
use crate::pacing::Pacer;
use crate::packet::Settings;
use crate::recv::Inbox;
use crate::replay::ReplayWindow;
use crate::rng::Rng;
use crate::rtt::Rtt;
use crate::send::{DatagramQueue, Outbox};
use crate::stats::ConnectionStats;
use crate::time::Time;

/// INITs of a peer that are ignored while our own goes first. After so many ours seem not to arrive.
const IGNORED_MAX: u8 = 3;

/// A link to one peer: reliable messages, best-effort datagrams.
///
/// It belongs to an [`Endpoint`](crate::Endpoint), which brings it packets and time, and sends what it wants
/// sent. Its owner opens messages, writes, cancels, and says what it has consumed; what happened comes as
/// [`Event`]s. After any of this, the driver drains `Endpoint::poll_transmit` and `Endpoint::poll_event`.
pub struct Connection {
    config: Arc<Config>,
    peer: PublicKey,
    rng: Rng,
    /// Names the connection on both sides, so that renewed keys are told from a new connection.
    pub(crate) token: u64,
    /// A cookie from the peer, to show with the next INIT.
    pub(crate) cookie: Option<[u8; 16]>,
    pub(crate) attempt: Option<Attempt>,
    /// The newest stamp that the peer has shown for this connection.
    pub(crate) stamp: u64,
    /// No packet of the peer was opened yet.
    unheard: bool,
    /// INITs of the peer that were ignored, because ours goes first.
    ignored: u8,
    pub(crate) sessions: Sessions,
    /// Indices that the endpoint can give to others.
    pub(crate) retired: Vec<u32>,
    state: State,
    path: Path,
    replay: ReplayWindow,
    received: Received,
    sent: SentPackets,
    rtt: Rtt,
    controller: Box<dyn Controller>,
    pacer: Pacer,
    mtu: Mtu,
    outbox: Outbox,
    inbox: Inbox,
    datagrams: DatagramQueue,
    datagram_max: u16,
    /// Answers to path challenges, each to where it came from.
    path_responses: VecDeque<(SocketAddr, u64)>,
    /// Packets to send whatever the window says.
    probes_due: u8,
    /// A sign of life is wanted.
    ping_due: bool,
    timeouts: u32,
    budget: Budget,
    begun: Time,
    last_heard: Time,
    last_ping: Time,
    unanswered: u32,
    next_tick: Option<Time>,
    /// The pacer said: not before.
    paced_until: Option<Time>,
    app_limited: bool,
    ecn: bool,
    ecn_counts: EcnCounts,
    arrival_rate: u64,
    capacity: u64,
    events: VecDeque<Event>,
    /// The moment of the last call, for those that bring no time.
    now: Time,
    stats: ConnectionStats,
    /// Set by the endpoint: whether it waits to be asked for packets, whether for events, and its timer.
    pub(crate) is_ready: bool,
    pub(crate) is_eventful: bool,
    pub(crate) scheduled: Option<Time>,
}

/// Where a connection is in its life.
#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    /// The handshake is under way.
    Connecting,
    Connected,
    /// A CLOSE must go out.
    Closing {
        code: u64,
        reason: Bytes,
    },
    Closed,
}

impl Connection {
    pub(crate) fn new(
        now: Time,
        config: &Arc<Config>,
        peer: PublicKey,
        remote: SocketAddr,
        token: u64,
        rng: Rng,
    ) -> Self {
        Connection {
            peer,
            rng,
            token,
            cookie: None,
            attempt: None,
            stamp: 0,
            unheard: true,
            ignored: 0,
            sessions: Sessions::default(),
            retired: Vec::new(),
            state: State::Connecting,
            path: Path::new(remote),
            replay: ReplayWindow::default(),
            received: Received::default(),
            sent: SentPackets::new(),
            rtt: Rtt::new(config.initial_rtt),
            controller: config.congestion.start(config, MTU_MIN),
            pacer: Pacer::new(),
            mtu: Mtu::new(now, config, MTU_MIN),
            outbox: Outbox::new(config),
            inbox: Inbox::new(config),
            datagrams: DatagramQueue::new(config.datagram_buffer),
            datagram_max: MTU_MIN,
            path_responses: VecDeque::new(),
            probes_due: 0,
            ping_due: false,
            timeouts: 0,
            budget: Budget::new(now),
            begun: now,
            last_heard: now,
            last_ping: now,
            unanswered: 0,
            next_tick: None,
            paced_until: None,
            app_limited: true,
            ecn: config.ecn,
            ecn_counts: EcnCounts::default(),
            arrival_rate: 0,
            capacity: 0,
            events: VecDeque::new(),
            now,
            stats: ConnectionStats::default(),
            is_ready: false,
            is_eventful: false,
            scheduled: None,
            config: Arc::clone(config),
        }
    }

    /// The peer's key: who it is.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The peer's address: where it is.
    pub fn remote(&self) -> SocketAddr {
        self.path.remote
    }

    /// Whether messages flow.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed | State::Closing { .. })
    }

    /// The bytes of the longest best-effort datagram that fits into a packet now.
    pub fn datagram_max(&self) -> usize {
        // Header, the longest tag, a type and a length of at most 4 bytes, and room for a short ACK.
        usize::from(self.mtu.current()) - 12 - 32 - 5 - 11
    }

    /// Sends a whole message. What `Full` refuses is not taken at all.
    pub fn send(&mut self, options: Options, data: Bytes) -> Result<MessageId, SendError> {
        self.check_open()?;
        // Bulk never gets more of the buffer; a longer message is written in pieces.
        let most = self.config.send_buffer / 8 * 7;
        if data.len() as u64 > most {
            return Err(SendError::TooLong(most));
        }
        let mut data = data;
        let id = self.outbox.open_for(self.now, options, data.len() as u64)?;
        self.outbox.write(id, &mut data)?;
        self.outbox.finish(id)?;
        Ok(id)
    }

    /// Begins a message whose bytes follow with `write`, and its end with `finish`.
    pub fn open(&mut self, options: Options) -> Result<MessageId, SendError> {
        self.check_open()?;
        self.outbox.open_for(self.now, options, 0)
    }

    /// Takes bytes from the front of `data`, without a copy, and returns how many. Where that is not all,
    /// wait for `Event::Sendable`.
    pub fn write(&mut self, id: MessageId, data: &mut Bytes) -> Result<usize, SendError> {
        self.check_open()?;
        self.outbox.write(id, data)
    }

    /// The message has all its bytes.
    pub fn finish(&mut self, id: MessageId) -> Result<(), SendError> {
        self.check_open()?;
        self.outbox.finish(id)
    }

    /// Gives up a message that is being sent. The peer may have it nevertheless.
    pub fn cancel(&mut self, id: MessageId) -> Result<(), SendError> {
        self.check_open()?;
        if self.outbox.cancel(id, &mut self.events) { Ok(()) } else { Err(SendError::NoSuchMessage) }
    }

    /// The bytes of a message that was received are dealt with: the peer may send as many more.
    pub fn consumed(&mut self, id: MessageId, bytes: u64) {
        self.inbox.consumed(id, bytes);
    }

    /// The rest of a message that is being received is not wanted. No event tells of it any more.
    pub fn refuse(&mut self, id: MessageId) {
        self.inbox.refuse(id, &mut self.events);
    }

    /// Sends a datagram once, best effort. Where too many wait, the oldest is dropped.
    pub fn send_datagram(&mut self, data: Bytes) -> Result<(), SendError> {
        self.check_open()?;
        let most = self.datagram_max();
        if data.len() > most {
            return Err(SendError::TooLong(most as u64));
        }
        self.stats.datagrams_dropped += self.datagrams.push(data) as u64;
        Ok(())
    }

    /// Ends the connection: tells the peer, and forgets what is not yet acknowledged.
    pub fn close(&mut self, code: u64, reason: &[u8]) {
        if self.is_closed() {
            return;
        }
        let reason = Bytes::copy_from_slice(&reason[..reason.len().min(crate::frame::REASON_MAX)]);
        let connected = self.state == State::Connected;
        self.state = if connected { State::Closing { code, reason } } else { State::Closed };
        self.events.push_back(Event::Closed(CloseReason::Local));
    }

    /// The connection's figures.
    pub fn stats(&self) -> ConnectionStats {
        let mtu = self.mtu.current();
        ConnectionStats {
            state: match self.state {
                State::Connecting => "connecting",
                State::Connected => "connected",
                State::Closing { .. } | State::Closed => "closed",
            },
            algorithm: self.config.congestion.name(),
            congestion: self.controller.state(),
            suite: self.sessions.current.as_ref().map(|session| session.keys.suite),
            rtt: self.rtt.smoothed(),
            rtt_variance: self.rtt.variance(),
            rtt_min: self.rtt.min(),
            window: self.controller.window(),
            in_flight: self.sent.in_flight(),
            pacing_rate: self.controller.pacing_rate(self.rtt.smoothed()).unwrap_or(0),
            arrival_rate: self.arrival_rate.saturating_mul(mtu.into()),
            capacity: self.capacity.saturating_mul(mtu.into()),
            mtu,
            bytes_lost: self.sent.lost_bytes(),
            send_buffered: self.outbox.buffered(),
            receive_buffered: self.inbox.unconsumed(),
            ..self.stats.clone()
        }
    }

    fn check_open(&self) -> Result<(), SendError> {
        if self.is_closed() { Err(SendError::Closed) } else { Ok(()) }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether nothing is left to do but to forget the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Closed && self.events.is_empty()
    }

    /// Whether nothing more will be sent.
    pub(crate) fn is_silent(&self) -> bool {
        self.state == State::Closed
    }

    pub(crate) fn end(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.state = State::Closed;
            self.events.push_back(Event::Closed(reason));
        }
    }

    /// The peer broke the protocol: it is told so, and no more.
    fn violated(&mut self, violation: crate::error::Violation) {
        if !self.is_closed() {
            let reason = Bytes::from(violation.to_string());
            self.state = State::Closing { code: 1, reason };
            self.events.push_back(Event::Closed(CloseReason::Protocol(violation)));
        }
    }

    /// This side began the handshake, and it is answered.
    pub(crate) fn on_answered(&mut self, now: Time, session: Session, settings: &Settings) {
        self.now = now;
        if let Some(attempt) = self.attempt.take().filter(|_| self.state == State::Connecting) {
            // Each INIT has an index of its own, so the answer tells to which it belongs.
            self.rtt.update(now.since(attempt.sent_at), Duration::ZERO);
        }
        let until = now + self.config.old_keys;
        self.retired.extend(self.sessions.promote(session, until));
        self.stats.handshakes += 1;
        self.ignored = 0;
        self.stamp = self.stamp.max(settings.stamp);
        // The peer sends nothing with the new keys before it has seen them in use.
        self.ping_due = true;
        self.on_heard(now);
        self.start(now, settings);
    }

    /// The peer began a handshake to renew the keys, and this side answered. Its first packet under the new
    /// ones proves that it has them.
    pub(crate) fn on_asked(&mut self, now: Time, session: Session, stamp: u64) {
        self.now = now;
        self.stamp = stamp;
        self.retired.extend(self.sessions.next.replace(session).map(|before| before.local));
    }

    /// The peer began the handshake, this side answered, and the packet that is taken next proves that the
    /// peer has the keys.
    pub(crate) fn on_proved(&mut self, now: Time, session: Session, settings: &Settings) {
        self.on_asked(now, session, settings.stamp);
        self.outbox.set_limits(settings);
        self.datagram_max = settings.datagram_max;
    }

    /// Messages flow from here on, unless they do already.
    pub(crate) fn start(&mut self, now: Time, settings: &Settings) {
        if self.state == State::Connecting {
            self.outbox.set_limits(settings);
            self.datagram_max = settings.datagram_max;
            self.connected(now);
        }
    }

    fn connected(&mut self, now: Time) {
        self.state = State::Connected;
        self.mtu = Mtu::new(now, &self.config, self.datagram_max);
        self.events.push_back(Event::Connected);
    }

    /// Whether the connection goes on, and nothing but an answer to its handshake has come from the peer: so
    /// nothing that the peer may have forgotten.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard && !self.is_closed()
    }

    /// Whether an INIT of the peer has to wait for ours: for the one under way, or for the one that made this
    /// connection, as long as the peer may not know that. The owner asks where ours goes first; after some
    /// times ours seems not to arrive, or the peer to have begun anew.
    pub(crate) fn goes_first(&mut self, token: u64) -> bool {
        let begun = self.attempt.as_ref().is_some_and(|attempt| attempt.initiation.is_some());
        let made = self.state == State::Connected && self.unheard && self.token != token;
        let first = (begun || made) && self.ignored < IGNORED_MAX;
        self.ignored += u8::from(first);
        first
    }

    /// The peer began a connection at the same time, and its goes first.
    pub(crate) fn adopt(&mut self, token: u64, from: SocketAddr) {
        self.token = token;
        if self.state == State::Connecting {
            self.path = Path::new(from);
        }
    }

    pub(crate) fn set_now(&mut self, now: Time) {
        self.now = now;
    }

    fn on_heard(&mut self, now: Time) {
        self.last_heard = now;
        self.unanswered = 0;
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("remote", &self.path.remote)
            .field("state", &self.state)
            .field("timers", &self.timers())
            .finish_non_exhaustive()
    }
}
