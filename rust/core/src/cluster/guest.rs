//! Requests that other nodes, or this process, have run here: each is a session of its own, without a socket.

use std::collections::VecDeque;

use bytes::Bytes;

use super::operation::Due;
use super::put::pieces;
use super::{Cluster, MemberIndex, Outcome, Urgency};
use crate::client::Client;
use crate::error::Refusal;
use crate::message::Message;
use crate::outbox::Wire;
use crate::output::Output;
use crate::session::{Flow, Session, World};
use crate::waits::Waiter;

/// Tokens of guests have this bit, which those of connections have not.
const GUEST: u64 = 1 << 63;
/// The reactor of waiters that are calls of this process.
pub const CALLS: usize = usize::MAX;
/// Steps of guests before others have their turn.
const STEPS: usize = 16;

/// Whether a waiter's token is a guest's.
pub fn is_guest(token: u64) -> bool {
    token & GUEST != 0
}

/// Who gets the reply.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// A member, which knows the request by this number, and how many bytes of the reply it takes at once.
    Member(MemberIndex, u64, u64),
    /// This process, which knows it by this number.
    Call(u64),
}

/// A request from outside the reactors.
#[derive(Debug)]
pub struct Guest {
    caller: Caller,
    session: Session,
    out: Output,
    /// What was in `out` before: a client would have taken it.
    taken: Output,
    /// All of the request is there.
    ended: bool,
    /// Nothing follows what is in `out`.
    over: bool,
    /// It waits for this key, until then.
    key: Option<Vec<u8>>,
    due_ms: u64,
}

impl Guest {
    /// Whether it is a request of this member.
    pub fn is_of(&self, peer: MemberIndex) -> bool {
        matches!(self.caller, Caller::Member(of, ..) if of == peer)
    }

    /// Whether it waits for a key, for as long as its client likes.
    pub fn is_waiting(&self) -> bool {
        self.key.is_some()
    }

    /// Whether it is the request that the member knows by this number.
    pub fn is(&self, peer: MemberIndex, id: u64) -> bool {
        matches!(self.caller, Caller::Member(of, number, _) if (of, number) == (peer, id))
    }
}

impl Cluster {
    pub(super) fn is_mine(&self, waiter: Waiter) -> bool {
        is_guest(waiter.client)
    }

    /// A request begins. Without room for it, it is refused at once.
    pub(super) fn begin_guest(&mut self, peer: MemberIndex, id: u64, wire: Wire, window: u64) -> Option<u64> {
        self.begin(Caller::Member(peer, id, window), wire)
    }

    /// Runs a request of this process, in the pipe protocol with lengths, as if a client had sent it. The
    /// reply comes as pieces for the waiter `CALLS` with this number.
    pub fn execute(&mut self, now: super::Now, call: u64, request: &[u8]) {
        self.now = now;
        if let Some(token) = self.begin(Caller::Call(call), Wire::PipeFramed) {
            self.feed_guest(token, request);
            self.end_request(token);
        }
    }

    fn begin(&mut self, caller: Caller, wire: Wire) -> Option<u64> {
        let token = GUEST | self.next_guest;
        let mut client = Client::new(token, None);
        client.token = token;
        client.guest = matches!(caller, Caller::Member(..));
        client.resp3 = wire == Wire::Resp3;
        client.framed = wire == Wire::PipeFramed;
        let resp = matches!(wire, Wire::Resp2 | Wire::Resp3);
        let mut out = Output::default();
        if self.guests.len() + self.replies.len() >= self.config.guests_max {
            let text = "the node that keeps this key has too many requests of others: try again".into();
            refuse(&Refusal::Busy(text), &client, resp, &mut out);
            self.send_reply(caller, &mut out);
            return None;
        }
        self.next_guest += 1;
        let session = Session::guest(client, resp);
        let guest = Guest {
            caller,
            session,
            out,
            taken: Output::default(),
            ended: false,
            over: false,
            key: None,
            due_ms: 0,
        };
        self.guests.insert(token, guest);
        Some(token)
    }

    /// More of a request.
    pub(super) fn feed_guest(&mut self, token: u64, bytes: &[u8]) {
        self.run_guest(token, |session, world| session.handle_input(bytes, false, world));
    }

    /// The request is all there.
    pub(super) fn end_request(&mut self, token: u64) {
        let Some(guest) = self.guests.get_mut(&token) else { return };
        guest.ended = true;
        if !guest.session.is_idle() {
            self.run_guest(token, |session, world| session.handle_input(b"", true, world));
        }
        self.finish_guest(token);
    }

    /// Guests that have what they waited for go on. Before messages are sent: what they reply is among them.
    pub(super) fn advance_guests(&mut self) {
        if !self.done.iter().any(|(waiter, _)| self.is_mine(*waiter)) {
            return;
        }
        for (waiter, outcome) in std::mem::take(&mut self.done) {
            if self.is_mine(waiter) {
                self.advance_guest(waiter.client, outcome);
            } else {
                self.done.push_back((waiter, outcome));
            }
        }
    }

    /// Guests whose work was put off go on.
    pub(super) fn resume_guests(&mut self) {
        let ready: Vec<u64> = self.ready.drain(..self.ready.len().min(STEPS)).collect();
        for token in ready {
            self.run_guest(token, Session::resume);
            self.finish_guest(token);
        }
    }

    /// What a guest waited for has happened, or not.
    pub(super) fn advance_guest(&mut self, token: u64, outcome: Outcome) {
        self.run_guest(token, |session, world| session.handle_outcome(outcome, world));
        self.finish_guest(token);
    }

    /// A key that a guest waits for has appeared, or its time is `over`.
    pub fn handle_appeared(&mut self, now: super::Now, token: u64, over: bool) {
        self.now = now;
        self.forget_wait(token);
        self.run_guest(token, |session, world| session.handle_wait(over, world));
        self.finish_guest(token);
    }

    fn run_guest(&mut self, token: u64, step: impl FnOnce(&mut Session, &mut World<'_>) -> Flow) {
        let Some(guest) = self.guests.get_mut(&token) else { return };
        // Nothing is sent before it is all there, and a session goes no further than so much.
        if guest.out.len() > self.replica.limits().output_max {
            guest.taken.append(&mut guest.out);
        }
        let mut world = World {
            replica: &self.replica,
            now_ms: self.now.unix_ms,
            // Only what takes no key takes chances, and that is not forwarded.
            random: 1,
            out: &mut guest.out,
        };
        let waiter = Waiter { reactor: 0, client: token };
        let mut flow = step(&mut guest.session, &mut world);
        loop {
            flow = match flow {
                // What it replies is taken.
                Flow::Remote => return guest.session.handle_sent(0, &self.replica),
                Flow::Read => return,
                Flow::Close | Flow::Linger | Flow::Watch(_) => return guest.over = true,
                Flow::Yield => return self.ready.push(token),
                Flow::Ask(_) => {
                    let refusal = Refusal::Denied("this is asked of the node itself".into());
                    guest.session.handle_refusal(refusal, &mut world)
                }
                Flow::Wait(key, timeout_ms) => {
                    guest.due_ms = timeout_ms.map_or(guest.due_ms, |timeout_ms| self.now.ms + timeout_ms);
                    if !self.replica.waits().wait(&key, waiter) {
                        let text = "as many clients wait as limits.max_waits allows: try again";
                        guest.session.handle_refusal(Refusal::Busy(text.into()), &mut world)
                    } else {
                        match guest.session.handle_wait(false, &mut world) {
                            Flow::Wait(..) => {
                                self.deadlines.insert((guest.due_ms, Due::Guest(token)));
                                return guest.key = Some(key);
                            }
                            flow => {
                                self.replica.waits().cancel(&key, waiter);
                                flow
                            }
                        }
                    }
                }
            };
        }
    }

    /// Answers a request that is done.
    pub(super) fn finish_guest(&mut self, token: u64) {
        if !self.guests.get(&token).is_some_and(|guest| guest.over || guest.ended && guest.session.is_idle())
        {
            return;
        }
        if let Some(mut guest) = self.guests.remove(&token) {
            guest.taken.append(&mut guest.out);
            self.send_reply(guest.caller, &mut guest.taken);
        }
    }

    fn send_reply(&mut self, caller: Caller, out: &mut Output) {
        let (peer, id, window) = match caller {
            Caller::Member(peer, id, window) => (peer, id, window),
            Caller::Call(call) => {
                let waiter = Waiter { reactor: CALLS, client: call };
                let mut all = out.take_pieces(pieces);
                let last = all.pop_back().unwrap_or_default();
                self.done.extend(all.into_iter().map(|piece| (waiter, Outcome::Piece(0, piece, false))));
                return self.done.push_back((waiter, Outcome::Piece(0, last, true)));
            }
        };
        if peer == self.routes.me() {
            let all = out.take_pieces(pieces);
            all.into_iter().for_each(|piece| self.handle_reply(peer, id, piece, false));
            return self.handle_reply(peer, id, Bytes::new(), true);
        }
        if out.len() as u64 > window {
            return self.reply_in_parts(peer, id, window, out.take_pieces(pieces));
        }
        let mut all = VecDeque::from([Message::Reply { id }.to_bytes()]);
        all.extend(out.take_pieces(pieces));
        let len: usize = all.iter().map(Bytes::len).sum();
        let urgency = if len > self.config.batch_max { Urgency::Bulk } else { Urgency::Reply };
        self.peers[usize::from(peer)].transmit(urgency, false, all);
    }

    /// Nobody waits for a request any more.
    pub(super) fn drop_guest(&mut self, token: u64) {
        self.forget_wait(token);
        let Some(guest) = self.guests.remove(&token) else { return };
        guest.session.forsake(&self.replica);
    }

    /// A guest waits for its key no more.
    fn forget_wait(&mut self, token: u64) {
        let Some(guest) = self.guests.get_mut(&token) else { return };
        if let Some(key) = guest.key.take() {
            self.replica.waits().cancel(&key, Waiter { reactor: 0, client: token });
            self.deadlines.remove(&(guest.due_ms, Due::Guest(token)));
        }
    }

    pub(super) fn drop_guests_of(&mut self, peer: MemberIndex) {
        let of = self.guests.iter().filter(|(_, guest)| guest.is_of(peer));
        let tokens: Vec<u64> = of.map(|(token, _)| *token).collect();
        tokens.into_iter().for_each(|token| self.drop_guest(token));
        self.drop_parts_of(peer);
    }
}

fn refuse(refusal: &Refusal, client: &Client, resp: bool, out: &mut Output) {
    if resp {
        crate::resp::reply::Writer { out, resp3: client.resp3 }.refusal(refusal);
    } else {
        crate::pipe::response::Writer { out, frame: client.framed, id: None }.refusal(refusal);
    }
}
