//! The loop that serves clients: one thread, one poll, no lock of Python's. What to do with the bytes is the
//! session's to say; the reactor reads, sends, waits and gives everybody a turn.

mod accept;
mod cluster;
mod drain;
mod wait;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Interest, Poll, Token, unix::SourceFd};
use turbopump_core::cluster::is_guest;
use turbopump_core::error::Refusal;
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::session::{Flow, Session, World};
use turbopump_core::waits::Waiter;

use crate::connection::{Connection, Connections, Received, Sent, Stage};
use crate::events::Event;
use crate::listener::{Listener, Spare};
use crate::peers::Peers;
use crate::shared::{Order, Shared};
use crate::timers::Timers;

/// The token of the waker; listeners count down from it.
pub const WAKER: Token = Token(usize::MAX);
/// The tokens of the socket for the peers: above all connections, below all listeners.
const PEERS: Token = Token(1 << 63);
const PEERS_TIMER: Token = Token((1 << 63) + 1);

/// Events taken from one poll.
const POLL_EVENTS: usize = 256;
/// Reads, or steps of a job, before the next client's turn.
const TURN_STEPS: usize = 4;
/// After an error that ends a connection, this much of what the client still sends is read, which is more
/// than sockets hold: a close before that would take the error from it ...
const LINGER_BYTES: usize = 1 << 20;
/// ... for this long after it took the last reply: a round trip, even a slow one ...
const LINGER_MS: u64 = 1000;
/// ... and for this long before, while it takes nothing: it may be busy with what comes before the error.
const LINGER_UNREAD_MS: u64 = 10_000;
/// How often some expired entries are dropped, while there are entries that expire.
const COLLECT_MS: u64 = 50;
/// How many entries are looked at each time.
const COLLECT_STEP: usize = 1000;
/// The longest sleep: another thread may have written entries that expire.
const SLEEP_MS: u64 = 1000;

/// What becomes of a connection after its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum After {
    Keep,
    Again,
    Gone,
}

/// A reactor.
#[derive(Debug)]
pub struct Reactor {
    index: usize,
    shared: Arc<Shared>,
    replica: Replica,
    /// Of a cluster, on the reactor that owns them.
    peers: Option<Box<Peers>>,
    /// The peers have more to do.
    peers_busy: bool,
    /// When a command last waited for a peer, something came so soon that it pays to stay awake for it.
    is_near: bool,
    /// It lets others on its box go first.
    gives_way: bool,
    /// What has come of the replies to calls of this process.
    replies: HashMap<u64, Vec<u8>>,
    poll: Poll,
    connections: Connections,
    listeners: Vec<Listener>,
    /// Listeners that may have somebody waiting.
    knocking: bool,
    spare: Spare,
    ready: Vec<u64>,
    timers: Timers,
    /// Who waits for the answer to which cold command.
    asked: HashMap<u64, u64>,
    /// Who watches what changes.
    watchers: BTreeSet<u64>,
    buffer: Vec<u8>,
    out: Output,
    random: u64,
    started: Instant,
    now_ms: u64,
    unix_ms: u64,
    /// When a client last sent something.
    heard_ms: u64,
    collect_at_ms: u64,
    collect_cursor: u64,
    drain_deadline_ms: Option<u64>,
    drained: bool,
    stopped: bool,
}

impl Reactor {
    /// The reactor number `index`.
    pub fn new(index: usize, shared: Arc<Shared>, poll: Poll, replica: Replica, random: u64) -> Self {
        Reactor {
            index,
            replica,
            peers: None,
            peers_busy: false,
            is_near: false,
            gives_way: false,
            replies: HashMap::new(),
            poll,
            connections: Connections::default(),
            listeners: Vec::new(),
            knocking: false,
            spare: Spare::new(),
            ready: Vec::new(),
            timers: Timers::default(),
            asked: HashMap::new(),
            watchers: BTreeSet::new(),
            buffer: vec![0; shared.config.read_buffer],
            out: Output::default(),
            random: random | 1,
            started: Instant::now(),
            now_ms: 0,
            unix_ms: 0,
            heard_ms: 0,
            collect_at_ms: 0,
            collect_cursor: 0,
            drain_deadline_ms: None,
            drained: false,
            stopped: false,
            shared,
        }
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors: polling failed, which leaves nothing to be done.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = mio::Events::with_capacity(POLL_EVENTS);
        while !self.stopped {
            match self.wait(&mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.read_clocks();
            for event in &events {
                self.handle_event(event);
            }
            if self.knocking {
                self.accept();
            }
            self.take_turns();
            self.handle_timers();
            self.turn_peers()?;
            self.collect();
            self.check_drained();
        }
        self.leave_peers();
        Ok(())
    }

    fn read_clocks(&mut self) {
        self.now_ms = self.started.elapsed().as_millis() as u64;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.unix_ms = unix.as_millis() as u64;
        // Somewhere else in its sequence for every poll: sessions go on from here.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15) | 1;
    }

    fn sleep(&self) -> Duration {
        if !self.ready.is_empty() || self.knocking || self.peers_busy {
            return Duration::ZERO;
        }
        let collects = self.index == 0 && self.replica.store().has_passing();
        let collect = collects.then_some(self.collect_at_ms);
        let peers = self.peers.as_ref().and_then(|peers| peers.poll_timeout());
        let deadlines = [self.timers.next(), self.drain_deadline_ms, collect, peers].into_iter().flatten();
        let left = deadlines.min().map_or(SLEEP_MS, |at_ms| at_ms.saturating_sub(self.now_ms));
        Duration::from_millis(left.min(SLEEP_MS))
    }

    fn handle_event(&mut self, event: &mio::event::Event) {
        if event.token() == WAKER {
            return self.handle_orders();
        }
        if matches!(event.token(), PEERS | PEERS_TIMER) {
            return self.handle_peers_event(event);
        }
        if usize::MAX - event.token().0 <= self.listeners.len() {
            self.knocking = true;
            return;
        }
        let token = event.token().0 as u64;
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.readable |= event.is_readable();
        connection.hangup |= event.is_read_closed();
        let paused =
            matches!(connection.stage, Stage::Asked | Stage::Waiting | Stage::Remote | Stage::Watching);
        if paused && event.is_write_closed() {
            // It is not merely half-closed: there is nobody left to answer.
            connection.stage = Stage::Closing;
        }
        self.turn(token);
    }

    fn handle_orders(&mut self) {
        let orders = std::mem::take(&mut *self.shared.inboxes[self.index].orders.lock());
        for order in orders {
            match order {
                Order::Listen { socket, tcp } => self.listen(Listener { socket, tcp }),
                // Without one, the client has left before the answer came.
                Order::Answer(ask, reply) => {
                    if let Some(token) = self.asked.remove(&ask) {
                        self.advance(token, Stage::Asked, |session, world| {
                            session.handle_answer(&reply, world)
                        });
                    }
                }
                Order::Outcome(token, outcome) => self.hand_outcome(token, outcome),
                Order::DescribePeers(reply) => {
                    let now = self.now();
                    let all = self.peers.as_mut().map(|peers| peers.describe(now)).unwrap_or_default();
                    let _ = reply.try_send(all);
                }
                Order::Sync => self.sync_peers(),
                Order::Execute(call, request) => self.execute(call, &request),
                Order::Describe(reply) => {
                    let all =
                        self.connections.iter().map(|connection| connection.describe(self.now_ms)).collect();
                    // Nobody waits for it any more: then it is of no use.
                    let _ = reply.try_send(all);
                }
                Order::Kill(id, reply) => {
                    let _ = reply.try_send(self.kill(id));
                }
                Order::Drain(deadline_ms) => self.begin_drain(deadline_ms),
                Order::Stop => self.stopped = true,
            }
        }
        for token in self.replica.waits().take_ready(self.index) {
            if is_guest(token) {
                self.wake_guest(token);
                continue;
            }
            self.advance(token, Stage::Waiting, |session, world| session.handle_wait(false, world));
        }
        self.stir();
    }

    fn log(&self, level: &'static str, event: &'static str, fields: Vec<(&'static str, String)>) {
        // A log line that finds the queue full is lost; what it tells of is counted elsewhere.
        let _ = self.shared.events.push(Event::Logged { level, event, fields });
    }

    /// Gives a connection its turn, and does what comes of it.
    fn turn(&mut self, token: u64) {
        let Some(mut connection) = self.connections.take(token) else { return };
        let mut after = self.serve(token, &mut connection);
        if after == After::Keep && !connection.polled && !self.poll_for(token, &mut connection, false) {
            after = After::Gone;
        }
        if after == After::Keep && self.drain_deadline_ms.is_some() && connection.is_idle() {
            self.shared.answered.fetch_add(1, Relaxed);
            after = After::Gone;
        }
        match after {
            After::Gone => self.close(token, connection),
            After::Again if !connection.queued => {
                connection.queued = true;
                self.ready.push(token);
                self.connections.put(token, connection);
            }
            After::Keep | After::Again => self.connections.put(token, connection),
        }
    }

    fn close(&mut self, token: u64, connection: Box<Connection>) {
        self.forget_deadline(token, &connection);
        self.forget_watcher(token);
        connection.session.forsake(&self.replica);
        if let Some(key) = &connection.key {
            self.replica.waits().cancel(key, Waiter { reactor: self.index, client: token });
        }
        if connection.polled {
            let fd = connection.socket.as_raw_fd();
            // Closing the socket takes it out of the poll anyway, unless somebody else holds it too.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        drop(connection);
        self.connections.release(token);
        self.shared.connections.fetch_sub(1, Relaxed);
    }

    /// Has polling tell when the connection can be read, and when it can be written if `write`.
    fn poll_for(&self, token: u64, connection: &mut Connection, write: bool) -> bool {
        if connection.polled && connection.polled_write == write {
            return true;
        }
        let fd = connection.socket.as_raw_fd();
        let interest = if write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let (registry, token) = (self.poll.registry(), Token(token as usize));
        let done = if connection.polled {
            registry.reregister(&mut SourceFd(&fd), token, interest)
        } else {
            registry.register(&mut SourceFd(&fd), token, interest)
        };
        (connection.polled, connection.polled_write) = (true, write);
        done.is_ok()
    }

    fn serve(&mut self, token: u64, connection: &mut Connection) -> After {
        for _ in 0..TURN_STEPS {
            let unsent = connection.unsent.len();
            let blocked = match connection.send_unsent() {
                Sent::All if connection.polled_write => {
                    connection.unsent = Output::default(); // its buffer was large
                    !self.poll_for(token, connection, false)
                }
                Sent::All => false,
                Sent::Blocked if self.poll_for(token, connection, true) => true,
                Sent::More => return After::Again,
                Sent::Gone | Sent::Blocked => return After::Gone,
            };
            // A client that takes no replies now may still send: it is read on, within limits.
            let full = blocked && connection.unsent.len() > self.replica.limits().output_max;
            let flow = match connection.stage {
                Stage::Remote => {
                    connection.session.handle_sent(connection.unsent.len(), &self.replica);
                    return After::Keep;
                }
                Stage::Asked | Stage::Waiting => return After::Keep,
                Stage::Watching if full || !connection.behind => return After::Keep,
                Stage::Watching => {
                    std::mem::swap(&mut connection.unsent, &mut self.out);
                    connection.session.handle_changes(false, &mut self.world())
                }
                Stage::Closing if blocked => return After::Keep,
                Stage::Closing => return After::Gone,
                Stage::Lingering(left) => {
                    if connection.unsent.len() < unsent {
                        let after_ms = if blocked { LINGER_UNREAD_MS } else { LINGER_MS };
                        self.set_deadline(token, connection, after_ms);
                    }
                    return self.linger(connection, left, blocked);
                }
                Stage::Yielding if !full => {
                    std::mem::swap(&mut connection.unsent, &mut self.out);
                    connection.session.resume(&mut self.world())
                }
                Stage::Reading | Stage::Yielding => match self.receive(connection) {
                    Received::Nothing => return After::Keep,
                    Received::Gone => return After::Gone,
                    Received::Bytes(count, last) => {
                        connection.heard_ms = self.now_ms;
                        self.heard_ms = self.now_ms;
                        std::mem::swap(&mut connection.unsent, &mut self.out);
                        let mut world = World {
                            replica: &self.replica,
                            now_ms: self.unix_ms,
                            random: self.random,
                            out: &mut self.out,
                        };
                        connection.session.handle_input(&self.buffer[..count], last, &mut world)
                    }
                },
            };
            self.follow(token, connection, flow);
            if !blocked && connection.send(&mut self.out) == Sent::Gone {
                self.out.clear();
                return After::Gone;
            }
            // What is left is the connection's own from here on.
            if !self.out.is_empty() {
                std::mem::swap(&mut connection.unsent, &mut self.out);
            }
        }
        After::Again
    }

    /// Reads, unless there is nothing or the connection has enough to be processed.
    fn receive(&mut self, connection: &mut Connection) -> Received {
        if connection.readable && connection.session.has_room(&self.replica) {
            return connection.receive(&mut self.buffer);
        }
        Received::Nothing
    }

    fn world(&mut self) -> World<'_> {
        World { replica: &self.replica, now_ms: self.unix_ms, random: self.random, out: &mut self.out }
    }

    /// Does what the session asks for. Its replies are in `out` or `unsent`, and are sent by the caller.
    fn follow(&mut self, token: u64, connection: &mut Connection, mut flow: Flow) {
        loop {
            flow = match flow {
                Flow::Read => return connection.stage = Stage::Reading,
                Flow::Yield => return connection.stage = Stage::Yielding,
                Flow::Remote => return connection.stage = Stage::Remote,
                Flow::Close => return connection.stage = Stage::Closing,
                Flow::Linger => {
                    connection.stage = Stage::Lingering(LINGER_BYTES);
                    connection.readable = true;
                    let unread = !connection.unsent.is_empty();
                    let after_ms = if unread { LINGER_UNREAD_MS } else { LINGER_MS };
                    return self.set_deadline(token, connection, after_ms);
                }
                Flow::Ask(ask) => {
                    let number = self.shared.next_ask.fetch_add(1, Relaxed);
                    let number = number * self.shared.inboxes.len() as u64 + self.index as u64;
                    let asked = Event::Asked { ask: number, command: ask.command, args: ask.args };
                    if self.shared.events.push(asked).is_ok() {
                        self.asked.insert(number, token);
                        return connection.stage = Stage::Asked;
                    }
                    let refusal = Refusal::Busy("too many commands wait for a decision: try again".into());
                    connection.session.handle_refusal(refusal, &mut self.world())
                }
                Flow::Watch(behind) => match self.begin_watch(token, connection, behind) {
                    Some(flow) => flow,
                    None => return,
                },
                Flow::Wait(key, timeout_ms) => match self.begin_wait(token, connection, key, timeout_ms) {
                    Some(flow) => flow,
                    None => return,
                },
            };
        }
    }

    /// Gives a connection that is at `stage` what it waits for, and then its turn.
    fn advance(&mut self, token: u64, stage: Stage, step: impl FnOnce(&mut Session, &mut World<'_>) -> Flow) {
        let Some(mut connection) = self.connections.take(token) else { return };
        if connection.stage == stage {
            self.forget_deadline(token, &connection);
            if let Some(key) = connection.key.take() {
                self.replica.waits().cancel(&key, Waiter { reactor: self.index, client: token });
            }
            // What is written now comes behind what the client has not taken yet.
            std::mem::swap(&mut connection.unsent, &mut self.out);
            let flow = step(&mut connection.session, &mut self.world());
            self.follow(token, &mut connection, flow);
            if connection.doomed {
                connection.stage = Stage::Closing;
            }
            std::mem::swap(&mut connection.unsent, &mut self.out);
        }
        self.connections.put(token, connection);
        self.turn(token);
    }

    /// Reads and forgets, so that the client, which may send all of it before it reads, comes to the error.
    fn linger(&mut self, connection: &mut Connection, left: usize, blocked: bool) -> After {
        if connection.deadline_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            return After::Gone;
        }
        if !blocked {
            // The client sees the end of the replies; a close now could take the error from it unread.
            let _ = rustix::net::shutdown(&connection.socket, rustix::net::Shutdown::Write);
        }
        let reads = connection.readable && left > 0;
        let left = match if reads { connection.receive(&mut self.buffer) } else { Received::Nothing } {
            Received::Gone => return After::Gone,
            Received::Nothing => left,
            Received::Bytes(_, true) => 0,
            Received::Bytes(count, false) => left.saturating_sub(count),
        };
        connection.stage = Stage::Lingering(left);
        match (blocked, left) {
            (false, 0) => After::Gone,
            (_, 1..) if connection.readable => After::Again,
            _ => After::Keep,
        }
    }

    fn take_turns(&mut self) {
        for token in std::mem::take(&mut self.ready) {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.queued = false;
                self.turn(token);
            }
        }
    }

    fn collect(&mut self) {
        let store = self.replica.store();
        if self.index == 0 && store.has_passing() && self.now_ms >= self.collect_at_ms {
            let (next, dropped) = self.replica.collect(self.collect_cursor, COLLECT_STEP, self.unix_ms);
            self.collect_cursor = next;
            // Where much was due there is more: it goes on after everybody's next turn.
            self.collect_at_ms = self.now_ms + if dropped > COLLECT_STEP / 4 { 0 } else { COLLECT_MS };
        }
    }

    fn kill(&mut self, id: u64) -> bool {
        let found = self.connections.tokens().into_iter().find(|token| {
            self.connections.get_mut(*token).is_some_and(|connection| connection.session.client().id == id)
        });
        let connection = found.and_then(|token| Some((token, self.connections.take(token)?)));
        let killed = connection.is_some();
        match connection {
            // Perhaps it is the one that asks: then it is told first.
            Some((token, mut connection)) if connection.stage == Stage::Asked => {
                connection.doomed = true;
                self.connections.put(token, connection);
            }
            Some((token, connection)) => self.close(token, connection),
            None => {}
        }
        killed
    }
}
