//! The reactor that owns the peers: gives them their turn, and brings clients what they waited for.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use turbopump_core::cluster::{CALLS, Notice, Now, Outcome};
use turbopump_core::waits::Waiter;

use super::{PEERS, PEERS_TIMER, Reactor};
use crate::connection::Stage;
use crate::events::Event;
use crate::peers::Peers;
use crate::sched::run_in_batches;
use crate::shared::Order;

/// Sends to the peers before the next wait: an answer lets a client go on, which may need another one.
const TURNS: usize = 4;

impl Reactor {
    /// Waits until something happens, or something is due. While a command waits for a peer nearby, it stays
    /// awake: to fall asleep and to be woken may take longer than the peer takes to answer.
    pub(super) fn wait(&mut self, events: &mut mio::Events) -> io::Result<()> {
        let sleep = self.sleep();
        let is_awaited = self.peers.as_ref().is_some_and(|peers| peers.is_awaited());
        let options = self.shared.config.cluster.as_ref().filter(|_| is_awaited && !sleep.is_zero());
        let Some(awake) = options.map(|options| options.awake) else {
            return self.poll.poll(events, Some(sleep));
        };
        let mut began = Instant::now();
        while self.is_near && began.elapsed() < awake {
            self.poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(());
            }
            // Whoever is to answer may be on this very CPU.
            std::thread::yield_now();
        }
        began = Instant::now();
        let result = self.poll.poll(events, Some(sleep));
        self.is_near = began.elapsed() < awake;
        result
    }

    /// Makes this reactor the owner of the peers.
    ///
    /// # Errors
    /// The system refuses to poll their socket.
    pub fn own_peers(&mut self, mut peers: Peers) -> io::Result<()> {
        peers.register(self.poll.registry(), PEERS, PEERS_TIMER)?;
        (self.peers, self.peers_busy) = (Some(Box::new(peers)), true);
        Ok(())
    }

    pub(super) fn handle_peers_event(&mut self, event: &mio::event::Event) {
        let Some(peers) = &mut self.peers else { return };
        match event.token() {
            PEERS => peers.handle_socket(event),
            _ => peers.handle_timer(),
        }
    }

    /// Lets the peers do what is due.
    pub(super) fn turn_peers(&mut self) -> io::Result<()> {
        let Some(mut peers) = self.peers.take() else { return Ok(()) };
        self.give_way();
        let result = self.turn_of(&mut peers);
        self.peers = Some(peers);
        self.peers_busy = result?;
        Ok(())
    }

    /// A node that began blank and is being filled lets others on its box go first.
    fn give_way(&mut self) {
        let behind = self.replica.store().is_behind();
        if behind != self.gives_way {
            self.gives_way = behind;
            run_in_batches(behind);
        }
    }

    fn turn_of(&mut self, peers: &mut Peers) -> io::Result<bool> {
        peers.note_asked(self.heard_ms);
        let mut more = peers.receive(self.now())?;
        self.answer_all(peers);
        for _ in 0..TURNS {
            let busy = peers.send(self.now())?;
            // Who is answered may have sent the next command already.
            if !self.answer_all(peers) {
                more |= busy;
                break;
            }
            more = true;
        }
        Ok(more)
    }

    /// Brings commands what they waited for; tells whether there were any.
    fn answer_all(&mut self, peers: &mut Peers) -> bool {
        let mut any = false;
        while let Some((waiter, outcome)) = peers.poll_done() {
            any = true;
            self.answer(waiter, outcome);
        }
        while let Some(notice) = peers.cluster().poll_notice() {
            self.log_notice(peers, notice);
        }
        while let Some((count, remark)) = peers.poll_remark(self.now()) {
            let fields = vec![(remark.what, count.to_string()), ("why", remark.why.to_owned())];
            let _ = self.shared.events.push(Event::Logged { level: "warning", event: remark.event, fields });
        }
        any
    }

    pub(super) fn now(&self) -> Now {
        Now { ms: self.now_ms, unix_ms: self.unix_ms }
    }

    /// Brings a command what it waited for.
    fn answer(&mut self, waiter: Waiter, outcome: Outcome) {
        if waiter.reactor == CALLS {
            self.hand_reply(waiter.client, outcome);
        } else if waiter.reactor == self.index {
            self.hand_outcome(waiter.client, outcome);
        } else if let Some(inbox) = self.shared.inboxes.get(waiter.reactor) {
            inbox.send(Order::Outcome(waiter.client, outcome));
        }
    }

    pub(super) fn hand_outcome(&mut self, token: u64, outcome: Outcome) {
        let connection = self.connections.get_mut(token);
        if let Some(connection) = connection.filter(|connection| connection.session.is_sending()) {
            connection.session.hear(outcome);
            // There may be room for more of its request.
            return self.turn(token);
        }
        self.advance(token, Stage::Remote, |session, world| session.handle_outcome(outcome, world));
    }

    pub(super) fn wake_guest(&mut self, token: u64) {
        let now = self.now();
        if let Some(peers) = &mut self.peers {
            peers.cluster().handle_appeared(now, token, false);
            self.peers_busy = true;
        }
    }

    pub(super) fn execute(&mut self, call: u64, request: &[u8]) {
        let now = self.now();
        if let Some(peers) = &mut self.peers {
            peers.cluster().execute(now, call, request);
            self.peers_busy = true;
        }
    }

    /// Part of the reply to a call of this process.
    fn hand_reply(&mut self, call: u64, outcome: Outcome) {
        let Outcome::Piece(_, bytes, last) = outcome else { return };
        let mut reply = self.replies.remove(&call).unwrap_or_default();
        reply.extend_from_slice(&bytes);
        if last {
            // Cannot be refused: the queue keeps room for it.
            let _ = self.shared.events.push(Event::Replied { call, reply });
        } else {
            self.replies.insert(call, reply);
        }
    }

    pub(super) fn sync_peers(&mut self) {
        let now = self.now();
        if let Some(peers) = &mut self.peers {
            peers.cluster().sync(now);
            self.peers_busy = true;
        }
    }

    fn log_notice(&self, peers: &Peers, notice: Notice) {
        let name = |member| peers.name(member).to_owned();
        let (level, event, fields) = match notice {
            Notice::Up(member) => ("info", "peer_up", vec![("peer", name(member))]),
            Notice::Down(member) => ("warning", "peer_down", vec![("peer", name(member))]),
            Notice::Refused(member, why) => {
                ("error", "peer_refused", vec![("peer", name(member)), ("why", why)])
            }
        };
        // As with `log`: a full queue loses it.
        let _ = self.shared.events.push(Event::Logged { level, event, fields });
        self.shared.peer_changes.fetch_add(1, Relaxed);
    }

    /// Tells the peers that this node leaves.
    pub(super) fn leave_peers(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.close();
        }
    }
}
