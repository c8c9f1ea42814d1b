//! What goes out: packets are filled, sealed, and gathered into batches of equal size.

use core::net::SocketAddr;

use super::{Attempt, Connection, State};
use crate::ack::{Ecn, PAIR_EVERY};
use crate::frame::{Frame, MESSAGE_HEAD_MAX};
use crate::loss::{SentFrame, SentPacket};
use crate::packet::{DATA_HEADER, FLAG_ACK_NOW, Header, NUMBER_MAX};
use crate::time::Time;

/// Bytes of UDP payload that one system call takes with segmentation offload.
const BATCH_BYTES: usize = 65_507;
/// Segments that it takes.
const BATCH_SEGMENTS: usize = 64;

/// Datagrams to send: `len` bytes of the buffer, in segments of `segment_size`, the last of which may be
/// shorter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// How to mark them.
    pub ecn: Ecn,
    /// Bytes of each datagram but the last.
    pub segment_size: usize,
    /// Bytes in all.
    pub len: usize,
}

/// What lets a packet leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Permit {
    /// Window and pace: anything goes.
    Full,
    /// A probe, whatever the window says.
    Probe,
    /// Nothing that counts as in flight: acknowledgements only.
    AckOnly,
}

impl Connection {
    /// Fills `out`, which is empty, with datagrams for one address. `None` when there is nothing to send now.
    pub(crate) fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        self.now = now;
        let ecn = if self.ecn { Ecn::Ect0 } else { Ecn::NotEct };
        let whole = |to, len| Transmit { to, ecn, segment_size: len, len };
        if self.sessions.current.is_none() || self.state == State::Closed {
            return None;
        }
        if let State::Closing { code, reason } = self.state.clone() {
            let len = self.write_lone(now, out, &[Frame::Close { code, reason: &reason }], 0);
            self.write_lone(now, out, &[Frame::Close { code, reason: &reason }], 0);
            self.state = State::Closed;
            return Some(Transmit { to: self.path.remote, ecn, segment_size: len, len: out.len() });
        }
        if let Some((to, number)) = self.path_responses.pop_front() {
            let len = self.write_lone(now, out, &[Frame::PathResponse(number)], 0);
            return Some(whole(to, len));
        }
        if let Some(challenge) = self.path.validation.as_ref().filter(|v| v.due).map(|v| v.challenge) {
            let len = self.write_lone(now, out, &[Frame::PathChallenge(challenge)], 0);
            self.challenge_again(now);
            self.path.on_sent(len);
            return Some(whole(self.path.remote, len));
        }
        if let Some(size) = self.mtu.due(now).filter(|_| self.path.validation.is_none()) {
            let number = self.sent.next_number();
            let len = self.write_lone(now, out, &[Frame::Ping], size.into());
            self.mtu.on_probe_sent(number, size);
            return Some(whole(self.path.remote, len));
        }
        self.duplicate(now);
        self.fill(now, out);
        let first = self.batch_segment(out)?;
        Some(Transmit { to: self.path.remote, ecn, segment_size: first, len: out.len() })
    }

    fn batch_segment(&self, out: &[u8]) -> Option<usize> {
        (!out.is_empty()).then(|| out.len().min(self.mtu.current().into()))
    }

    /// Appends packets until the window, the pace or the batch is full, or nothing is left.
    fn fill(&mut self, now: Time, out: &mut Vec<u8>) {
        let mtu = usize::from(self.mtu.current());
        let segments = BATCH_SEGMENTS.min(BATCH_BYTES / mtu);
        for _ in 0..segments {
            if !self.path.may_send(mtu) {
                break;
            }
            let Some(permit) = self.permit(now, mtu) else { break };
            let Some(len) = self.write_packet(now, out, mtu, permit) else { break };
            self.path.on_sent(len);
            if len < mtu {
                break;
            }
        }
    }

    /// Whether a packet may leave, and what it may carry.
    fn permit(&mut self, now: Time, mtu: usize) -> Option<Permit> {
        let wants = self.wants_to_send();
        if self.probes_due > 0 && (wants || self.ping_due) {
            return Some(Permit::Probe);
        }
        let ack_due = self.received.deadline().is_some_and(|time| time <= now);
        let ack_only = ack_due.then_some(Permit::AckOnly);
        if !wants {
            if self.ping_due {
                return Some(Permit::Probe);
            }
            self.app_limited = true;
            return ack_only;
        }
        let in_flight = self.sent.in_flight();
        if in_flight > 0 && in_flight + mtu as u64 > self.controller.window() {
            self.app_limited = false;
            return ack_only;
        }
        let is_pair = self.sent.next_number() % PAIR_EVERY == 1;
        let next = self.pacer.next(now);
        if next > now && !is_pair {
            self.app_limited = false;
            self.paced_until = Some(next);
            return ack_only;
        }
        Some(Permit::Full)
    }

    fn wants_to_send(&self) -> bool {
        self.outbox.has_frames() || self.inbox.has_frames() || !self.datagrams.is_empty()
    }

    /// Appends one packet of at most `mtu` bytes. Returns its length, or `None` if there was nothing to put
    /// in.
    fn write_packet(&mut self, now: Time, out: &mut Vec<u8>, mtu: usize, permit: Permit) -> Option<usize> {
        let start = self.begin(out)?;
        let end = start + mtu - (self.overhead() - DATA_HEADER);
        let mut packet = SentPacket::new(now, 0, false);
        let mut confirm = false;
        if self.received.has_news() || self.received.deadline().is_some_and(|time| time <= now) {
            confirm = self.received.wants_confirmation();
            let ack = self.received.take(now);
            packet.frames.push(SentFrame::Ack { largest: ack.largest() });
            Frame::Ack(ack).write(out);
        }
        let before = out.len();
        if permit != Permit::AckOnly {
            self.write_frames(out, end, &mut packet);
        }
        if out.len() == before && (confirm || (self.ping_due && permit == Permit::Probe)) {
            Frame::Ping.write(out);
        }
        if out.len() > before {
            packet.eliciting = true;
            self.ping_due = false;
            self.probes_due = self.probes_due.saturating_sub(1);
        }
        if out.len() == start + DATA_HEADER {
            out.truncate(start);
            return None;
        }
        let hurry = packet.eliciting && !self.outbox.has_frames();
        Some(self.seal(now, out, start, packet, hurry))
    }

    /// Appends frames up to `end`: credit first, then datagrams, then messages.
    fn write_frames(&mut self, out: &mut Vec<u8>, end: usize, packet: &mut SentPacket) {
        while end - out.len() >= MESSAGE_HEAD_MAX {
            let Some((frame, sent)) = self.inbox.next_frame().or_else(|| self.outbox.next_drop()) else {
                break;
            };
            frame.write(out);
            packet.frames.push(sent);
        }
        let mtu = usize::from(self.mtu.current());
        let most = mtu - self.overhead();
        while let Some(data) = self.datagrams.pop(end.saturating_sub(out.len()), most) {
            Frame::Datagram(&data).write(out);
            self.stats.datagrams_sent += 1;
        }
        while let Some(room) = end.checked_sub(out.len()) {
            let Some((sent, to_end, again)) = self.outbox.write_piece(out, room, mtu) else { break };
            packet.frames.push(sent);
            packet.duplicated |= again;
            if to_end {
                break;
            }
        }
    }

    /// Appends a packet with these frames alone, padded to `size` if that is more.
    fn write_lone(&mut self, now: Time, out: &mut Vec<u8>, frames: &[Frame<'_>], size: usize) -> usize {
        let Some(start) = self.begin(out) else { return 0 };
        frames.iter().for_each(|frame| frame.write(out));
        let tag = self.overhead() - DATA_HEADER;
        let padded = (start + size).saturating_sub(tag).max(out.len());
        out.resize(padded, 0);
        let mut packet = SentPacket::new(now, 0, true);
        packet.mtu_probe = size > 0;
        self.seal(now, out, start, packet, true)
    }

    fn overhead(&self) -> usize {
        self.sessions.current.as_ref().map_or(DATA_HEADER, |session| session.keys.overhead())
    }

    /// Appends a header. The flags are set by `seal`.
    fn begin(&self, out: &mut Vec<u8>) -> Option<usize> {
        let session = self.sessions.current.as_ref()?;
        let (start, number) = (out.len(), self.sent.next_number());
        if number > NUMBER_MAX {
            return None;
        }
        out.extend_from_slice(&Header { receiver: session.remote, number, ack_now: false }.bytes());
        Some(start)
    }

    /// Seals the packet that begins at `start`, and notes it as sent. Returns its length.
    fn seal(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        start: usize,
        mut packet: SentPacket,
        hurry: bool,
    ) -> usize {
        let number = self.sent.next_number();
        if hurry {
            out[start + 1] |= FLAG_ACK_NOW;
        }
        if let Some(session) = &mut self.sessions.current {
            session.keys.seal(number, out, start);
            session.sealed += 1;
            if session.sealed >= self.config.rekey_after_packets && self.attempt.is_none() {
                self.attempt = Some(Attempt::new(now, &self.config));
            }
        }
        let len = out.len() - start;
        packet.bytes = len as u32;
        packet.ect = self.ecn;
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += len as u64;
        if packet.eliciting {
            self.start_tick(now);
            self.pacer.on_sent(now, len);
        }
        let eliciting = packet.eliciting;
        self.sent.on_sent(packet, self.app_limited);
        if eliciting {
            self.controller.on_sent(now, number, len as u64, self.sent.in_flight());
        }
        len
    }
}
