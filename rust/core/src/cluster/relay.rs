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

/// A request on its way here.
#[derive(Debug)]
pub struct Asking {
    /// The guest that it is for.
    guest: u64,
    flow: Inflow,
    /// If nothing of it comes until then, its client has forgotten it.
    due_ms: u64,
}

impl Cluster {
    /// More of a request has come from its client.
    pub(super) fn request_goes_on(&mut self, id: u64, pieces: Vec<Bytes>, last: bool) {
        let Some(forwarded) = self.forwards.get_mut(&id) else { return };
        let Some(flow) = &mut forwarded.request else { return };
        pieces.into_iter().for_each(|piece| flow.push(piece));
        if last {
            flow.end();
        }
        self.send_request(id);
    }

    /// Sends what it may of a request.
    fn send_request(&mut self, id: u64) {
        let Some(forwarded) = self.forwards.get_mut(&id) else { return };
        let Some(flow) = &mut forwarded.request else { return };
        while let Some(part) = flow.next() {
            let head =
                Message::Part { of: Half::Request, id, offset: part.offset, last: part.last }.to_bytes();
            let pieces = std::iter::once(head).chain(part.pieces).collect();
            self.peers[usize::from(forwarded.at)].transmit(Urgency::Bulk, false, pieces);
        }
    }

    /// A peer asks for more of a request.
    pub(super) fn request_granted(&mut self, peer: MemberIndex, id: u64, upto: u64) {
        let forwarded = self.forwards.get_mut(&id).filter(|forwarded| forwarded.at == peer);
        let Some(forwarded) = forwarded else { return };
        let Some(flow) = &mut forwarded.request else { return };
        flow.grant(upto);
        self.done.push_back((forwarded.forward.waiter, Outcome::Room(upto)));
        self.send_request(id);
    }

    /// The head of a request is here: asks for the rest.
    pub(super) fn ask_for_request(&mut self, peer: MemberIndex, id: u64, guest: u64) {
        let upto = self.replica.limits().relayed_max as u64;
        let due_ms = self.now.ms + self.replica.limits().stall_ms_max;
        if let Some(other) = self.drop_asking(peer, id) {
            self.drop_guest(other.guest);
        }
        self.deadlines.insert((due_ms, Due::Request(peer, id)));
        self.requests.insert((peer, id), Asking { guest, flow: Inflow::new(upto), due_ms });
        self.peers[usize::from(peer)].send(Urgency::Request, &Message::Grant { of: Half::Request, id, upto });
        self.end_if_over(peer, id);
    }

    /// Bytes of a request came, behind so many others. Those that are in order the guest gets.
    pub(super) fn handle_request_part(
        &mut self,
        peer: MemberIndex,
        id: u64,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), MessageError> {
        let (window, stall_ms) =
            (self.replica.limits().relayed_max as u64, self.replica.limits().stall_ms_max);
        let Some(asking) = self.requests.get_mut(&(peer, id)) else { return Ok(()) };
        let guest = asking.guest;
        asking.flow.take(offset, bytes)?;
        while let Some(bytes) = self.requests.get_mut(&(peer, id)).and_then(|asking| asking.flow.next()) {
            self.feed_guest(guest, &bytes);
        }
        let Some(asking) = self.requests.get_mut(&(peer, id)) else { return Ok(()) };
        let upto = asking.flow.passed() + window;
        if upto - asking.flow.upto() >= part_bytes(window) && asking.flow.allow(upto) {
            self.deadlines.remove(&(asking.due_ms, Due::Request(peer, id)));
            asking.due_ms = self.now.ms + stall_ms;
            self.deadlines.insert((asking.due_ms, Due::Request(peer, id)));
            let grant = Message::Grant { of: Half::Request, id, upto };
            self.peers[usize::from(peer)].send(Urgency::Request, &grant);
        }
        self.end_if_over(peer, id);
        Ok(())
    }

    /// The last part of a request came: so many bytes there are behind its head.
    pub(super) fn end_request_part(&mut self, peer: MemberIndex, id: u64, len: u64) {
        if let Some(asking) = self.requests.get_mut(&(peer, id)) {
            asking.flow.end(len);
            self.end_if_over(peer, id);
        }
    }

    /// Ends a request that is all there, or was refused before.
    fn end_if_over(&mut self, peer: MemberIndex, id: u64) {
        let Some(asking) = self.requests.get(&(peer, id)) else { return };
        let (guest, whole) = (asking.guest, asking.flow.is_over());
        if whole {
            self.drop_asking(peer, id);
            return self.end_request(guest);
        }
        self.finish_guest(guest);
        if !self.guests.contains_key(&guest) {
            self.drop_asking(peer, id);
        }
    }

    fn drop_asking(&mut self, peer: MemberIndex, id: u64) -> Option<Asking> {
        let asking = self.requests.remove(&(peer, id))?;
        self.deadlines.remove(&(asking.due_ms, Due::Request(peer, id)));
        Some(asking)
    }

    /// A peer has sent nothing more of a request for so long that its client has forgotten it.
    pub(super) fn request_stalled(&mut self, peer: MemberIndex, id: u64) {
        if let Some(asking) = self.drop_asking(peer, id) {
            self.drop_guest(asking.guest);
            self.cancel(peer, Half::Reply, id);
        }
    }

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
        self.drop_reply(peer, id);
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

    /// A peer is gone: it takes no reply, and sends no more of its requests, whose guests are gone as well.
    pub(super) fn drop_parts_of(&mut self, peer: MemberIndex) {
        let all = (peer, 0)..=(peer, u64::MAX);
        let replies: Vec<u64> = self.replies.range(all.clone()).map(|((_, id), _)| *id).collect();
        let requests: Vec<u64> = self.requests.range(all).map(|((_, id), _)| *id).collect();
        replies.into_iter().for_each(|id| self.drop_reply(peer, id));
        requests.into_iter().for_each(|id| drop(self.drop_asking(peer, id)));
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
        let Some(forwarded) = forwarded.filter(|forwarded| !forwarded.left) else {
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
            let Some(forwarded) = self.forwards.get_mut(&id) else { continue };
            // All of it came from its client, so it is done, although the rest is still to be sent.
            if forwarded.request.as_ref().is_some_and(|request| request.has_ended()) {
                forwarded.left = true;
                continue;
            }
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
            if let Some(asking) = self.drop_asking(peer, id) {
                self.drop_guest(asking.guest);
            }
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

#[cfg(test)]
mod tests {
    use super::super::{Cluster, Now, tests::cluster};
    use super::*;
    use crate::layout::LayoutError;
    use crate::outbox::{Forward, Order, Wire};
    use crate::waits::Waiter;

    fn part(offset: u64, last: bool, bytes: &[u8]) -> Bytes {
        let head = Message::Part { of: Half::Reply, id: 7, offset, last }.to_bytes();
        [&head[..], bytes].concat().into()
    }

    /// A node, b and c being there, that has b run a request which c can run as well.
    fn asking() -> Result<Cluster, LayoutError> {
        let mut cluster = cluster(&["a", "b", "c"], &std::sync::Arc::default())?;
        for peer in &mut cluster.peers[1..] {
            peer.welcomed();
            peer.greeted = true;
        }
        let waiter = Waiter { reactor: 0, client: 1 };
        let (to, wire, request) = (vec![1, 2], Wire::Resp2, VecDeque::from([Bytes::from_static(b"x")]));
        let forward = Forward { id: 7, waiter, part: 0, to, reads: true, wire, request, open: false };
        cluster.outboxes[0].push(Order::Forward(forward));
        cluster.handle_orders(Now::default());
        assert!(cluster.poll_transmit(1).is_some());
        Ok(cluster)
    }

    fn told(cluster: &mut Cluster) -> Vec<u8> {
        let mut told = Vec::new();
        while let Some((_, outcome)) = cluster.poll_done() {
            let Outcome::Piece(_, bytes, last) = outcome else { panic!("{outcome:?}") };
            told.extend_from_slice(&bytes);
            told.extend(last.then_some(b'.'));
        }
        told
    }

    #[test]
    fn what_came_too_early_from_a_node_that_was_lost_is_not_taken_for_the_next_ones()
    -> Result<(), LayoutError> {
        let (mut cluster, now) = (asking()?, Now::default());
        assert_eq!(cluster.handle_message(now, 1, part(4, true, b"late")), Ok(()));
        assert_eq!(told(&mut cluster), b"");
        cluster.handle_closed(now, 1);
        assert!(cluster.poll_transmit(2).is_some());
        assert_eq!(cluster.handle_message(now, 2, part(3, true, b"def")), Ok(()));
        assert_eq!(cluster.handle_message(now, 2, part(0, false, b"abc")), Ok(()));
        assert_eq!((told(&mut cluster), cluster.waiting()), (b"abcdef.".to_vec(), 0));
        Ok(())
    }
}
