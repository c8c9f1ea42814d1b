//! Requests and replies that are too long to be held on their way: they come in parts, as they are asked for.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::flow::{Inflow, Outflow, part_bytes};
use super::operation::Due;
use super::{Cluster, MemberIndex, Outcome, Urgency};
use crate::error::Refusal;
use crate::message::{Half, Message, MessageError};

/// A reply on its way to another node, large values by reference.
#[derive(Debug)]
pub struct Replying {
    flow: Outflow,
    /// If nothing of it is asked for until then, nobody reads it.
    due_ms: u64,
}

impl Cluster {
    /// Sends a reply of which not all may come at once.
    pub(super) fn reply_in_parts(
        &mut self,
        peer: MemberIndex,
        id: u64,
        window: u64,
        pieces: VecDeque<Bytes>,
    ) {
        let mut flow = Outflow::new(window, part_bytes(window));
        pieces.into_iter().for_each(|piece| flow.push(piece));
        flow.end();
        self.replies.insert((peer, id), Replying { flow, due_ms: 0 });
        self.go_on(peer, id);
    }

    /// Sends what it may of a reply, and waits for the next to be asked for.
    fn go_on(&mut self, peer: MemberIndex, id: u64) {
        let Some(reply) = self.replies.get_mut(&(peer, id)) else { return };
        self.deadlines.remove(&(reply.due_ms, Due::Reply(peer, id)));
        while let Some(part) = reply.flow.next() {
            let head = Message::Part { of: Half::Reply, id, offset: part.offset, last: part.last }.to_bytes();
            let pieces = std::iter::once(head).chain(part.pieces).collect();
            self.peers[usize::from(peer)].transmit(Urgency::Bulk, false, pieces);
        }
        if reply.flow.is_over() {
            self.replies.remove(&(peer, id));
            return;
        }
        reply.due_ms = self.now.ms + self.replica.limits().stall_ms_max;
        self.deadlines.insert((reply.due_ms, Due::Reply(peer, id)));
    }

    /// A peer asks for more of a reply.
    pub(super) fn handle_grant(&mut self, peer: MemberIndex, id: u64, upto: u64) {
        if let Some(reply) = self.replies.get_mut(&(peer, id)) {
            reply.flow.grant(upto);
            self.go_on(peer, id);
        }
    }

    /// A peer has not asked for more of a reply for so long that nobody reads it.
    pub(super) fn reply_stalled(&mut self, peer: MemberIndex, id: u64) {
        if self.replies.remove(&(peer, id)).is_some() {
            self.cancel(peer, Half::Reply, id);
        }
    }

    pub(super) fn drop_replies_to(&mut self, peer: MemberIndex) {
        let ids: Vec<u64> =
            self.replies.range((peer, 0)..=(peer, u64::MAX)).map(|((_, id), _)| *id).collect();
        ids.into_iter().for_each(|id| self.drop_reply(peer, id));
    }

    fn drop_reply(&mut self, peer: MemberIndex, id: u64) {
        if let Some(reply) = self.replies.remove(&(peer, id)) {
            self.deadlines.remove(&(reply.due_ms, Due::Reply(peer, id)));
        }
    }

    /// A part of a reply begins; returns whether anybody waits for it. If not, its sender is told.
    pub(super) fn begin_reply_part(&mut self, peer: MemberIndex, id: u64) -> bool {
        let window = self.replica.limits().relayed_max as u64;
        let forwarded = self.forwards.get_mut(&id).filter(|forwarded| forwarded.at == peer);
        let Some(forwarded) = forwarded else {
            self.cancel(peer, Half::Request, id);
            return false;
        };
        forwarded.reply.get_or_insert_with(|| Box::new(Inflow::new(window)));
        true
    }

    /// Bytes of a reply came, behind so many others. What is in order is passed on.
    pub(super) fn handle_reply_part(
        &mut self,
        peer: MemberIndex,
        id: u64,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), MessageError> {
        let forwarded = self.forwards.get_mut(&id).filter(|forwarded| forwarded.at == peer);
        let Some(forwarded) = forwarded else { return Ok(()) };
        let Some(flow) = &mut forwarded.reply else { return Ok(()) };
        flow.take(offset, bytes)?;
        let (waiter, part) = (forwarded.forward.waiter, forwarded.forward.part);
        while let Some(bytes) = flow.next() {
            forwarded.begun = true;
            self.done.push_back((waiter, Outcome::Piece(part, bytes, false)));
        }
        if flow.is_over() {
            self.handle_reply(peer, id, Bytes::new(), true);
        }
        Ok(())
    }

    /// The last part of a reply came: so many bytes there are.
    pub(super) fn end_reply(&mut self, peer: MemberIndex, id: u64, len: u64) {
        let forwarded = self.forwards.get_mut(&id).filter(|forwarded| forwarded.at == peer);
        let Some(flow) = forwarded.and_then(|forwarded| forwarded.reply.as_mut()) else { return };
        flow.end(len);
        if flow.is_over() {
            self.handle_reply(peer, id, Bytes::new(), true);
        }
    }

    /// A client has taken so many bytes of a reply: more may come.
    pub(super) fn reply_taken(&mut self, id: u64, upto: u64) {
        let upto = upto.saturating_add(self.replica.limits().relayed_max as u64);
        let Some(forwarded) = self.forwards.get_mut(&id) else { return };
        // One that came as one, or is all there, needs nothing.
        if forwarded.reply.as_mut().is_some_and(|flow| flow.allow(upto)) {
            let grant = Message::Grant { of: Half::Reply, id, upto };
            self.peers[usize::from(forwarded.at)].send(Urgency::Request, &grant);
        }
    }

    /// Nobody waits for the replies to these requests: who runs them is told.
    pub(super) fn leave(&mut self, ids: Range<u64>) {
        let ids: Vec<u64> = self.forwards.range(ids).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(forwarded) = self.forwards.remove(&id) else { continue };
            if forwarded.at == self.routes.me() {
                self.drop_request(forwarded.at, id);
            } else {
                self.cancel(forwarded.at, Half::Request, id);
            }
        }
    }

    fn cancel(&mut self, peer: MemberIndex, of: Half, id: u64) {
        self.peers[usize::from(peer)].send(Urgency::Request, &Message::Cancel { of, id });
    }

    /// A peer does not want the reply to a request any more, or gave one up.
    pub(super) fn handle_cancel(&mut self, peer: MemberIndex, of: Half, id: u64) {
        if of == Half::Request {
            self.drop_reply(peer, id);
            return self.drop_request(peer, id);
        }
        if self.forwards.get(&id).is_none_or(|forwarded| forwarded.at != peer) {
            return;
        }
        let Some(forwarded) = self.forwards.remove(&id) else { return };
        let text = format!(
            "{} waited {} s for this client to go on: try again",
            self.routes.name(peer),
            self.replica.limits().stall_ms_max / 1000
        );
        let refusal = Outcome::PartRefused(forwarded.forward.part, Refusal::Unavailable(text));
        self.done.push_back((forwarded.forward.waiter, refusal));
    }

    /// Nobody waits for the reply to a request that runs here. What it writes it writes nevertheless, as if
    /// its client had left a moment later.
    fn drop_request(&mut self, peer: MemberIndex, id: u64) {
        let found = self.guests.iter().find(|(_, guest)| guest.is(peer, id) && guest.is_waiting());
        let found = found.map(|(token, _)| *token);
        found.into_iter().for_each(|token| self.drop_guest(token));
    }
}
