//! What comes in: packets are opened, and their frames taken one by one.

use core::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::path::Validation;
use super::{Connection, State};
use crate::ack::{Arrival, Ecn, Patience};
use crate::coding::Reader;
use crate::congestion::AckInfo;
use crate::error::{CloseReason, Violation};
use crate::frame::{self, Ack, Frame};
use crate::loss::{SentFrame, SentPacket};
use crate::message::Event;
use crate::packet::Header;
use crate::time::Time;

/// Answers to path challenges that wait; more at once are somebody playing.
const PATH_RESPONSES_MAX: usize = 4;
/// A challenge is repeated after this, or a probe timeout.
const CHALLENGE_RETRY: Duration = Duration::from_millis(100);
/// An address that does not answer for this is given up, and the one before it used again.
const VALIDATION_MAX: Duration = Duration::from_secs(2);
/// An acknowledgement waits so long on the shortest paths for an answer that takes it with it.
const ANSWER_LEAST: Duration = Duration::from_millis(1);
/// The same where a stream comes, whose sender stops if it waits for long: some turns of a socket.
const STREAM_LEAST: Duration = Duration::from_micros(100);

impl Connection {
    /// Takes a packet for one of this connection's sessions. Nothing changes but a counter unless it opens
    /// and is new.
    pub(crate) fn handle_packet(
        &mut self,
        now: Time,
        from: SocketAddr,
        ecn: Ecn,
        header: &Header,
        datagram: &mut [u8],
    ) {
        let len = datagram.len();
        let is_new = self.replay.is_new(header.number);
        let session = self.sessions.find(header.receiver).filter(|_| is_new);
        let Some(Ok(frames)) = session.map(|session| session.keys.open(header, datagram)) else {
            self.stats.packets_rejected += 1;
            return;
        };
        if self.is_closed() {
            return;
        }
        self.now = now;
        let highest = self.replay.insert(header.number);
        self.on_heard(now);
        self.unheard = false;
        self.stats.packets_received += 1;
        self.stats.bytes_received += len as u64;
        self.confirm(now, header.receiver);
        if from != self.path.remote && highest {
            self.move_to(now, from);
        }
        if let Some(validation) = &mut self.path.validation {
            validation.received += len as u64;
        }
        match self.handle_frames(now, from, frames) {
            Ok(eliciting) => {
                let Header { number, ack_now, .. } = *header;
                let arrival = Arrival { number, bytes: len, eliciting, ack_now, ecn };
                let patience = Patience { few: self.ack_patience(), stream: self.patience(STREAM_LEAST) };
                self.received.on_packet(now, arrival, patience);
            }
            Err(violation) => self.violated(violation),
        }
    }

    /// Takes frames as if they had come in a packet that opened.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn inject(&mut self, now: Time, frames: &[u8]) {
        self.now = now;
        if let Err(violation) = self.handle_frames(now, self.path.remote, frames) {
            self.violated(violation);
        }
    }

    /// How long an acknowledgement may wait when nothing hurries. On the shortest paths a quarter of the
    /// round trip is less than an answer takes to be made, which would carry it.
    pub(super) fn ack_patience(&self) -> Duration {
        self.patience(ANSWER_LEAST)
    }

    fn patience(&self, least: Duration) -> Duration {
        self.config.ack_delay.min((self.rtt.smoothed() / 4).max(least))
    }

    /// The peer uses the keys of a handshake that this side answered.
    fn confirm(&mut self, now: Time, index: u32) {
        let until = now + self.config.old_keys;
        let answered = self.sessions.next.as_ref().map(|next| next.created);
        if let Some(retired) = self.sessions.confirm(index, until) {
            self.retired.extend(retired);
            self.ignored = 0;
            self.retired.extend(self.attempt.take().map(|attempt| attempt.index));
            self.stats.handshakes += 1;
            if self.state == State::Connecting {
                self.rtt.update(now.since(answered.unwrap_or(now)), Duration::ZERO);
                self.connected(now);
            }
        }
    }

    fn handle_frames(&mut self, now: Time, from: SocketAddr, frames: &[u8]) -> Result<bool, Violation> {
        let mut reader = Reader::new(frames);
        let mut eliciting = false;
        while let Some(frame) = frame::read(&mut reader)? {
            eliciting |= !matches!(frame, Frame::Padding | Frame::Ack(_) | Frame::Close { .. });
            match frame {
                Frame::Padding | Frame::Ping => {}
                Frame::Ack(ack) => self.handle_ack(now, &ack)?,
                Frame::Message(message) => self.inbox.on_message(&message, &mut self.events)?,
                Frame::Drop { id, size, after } => self.inbox.on_drop(id, size, after, &mut self.events)?,
                Frame::Stop { id } => {
                    let id = crate::message::MessageId(id);
                    if self.outbox.cancel(id, &mut self.events) {
                        self.events.push_back(Event::GivenUp { id });
                    }
                }
                Frame::MaxData(max) => self.outbox.on_max_data(max),
                Frame::MaxMessageData { id, max } => self.outbox.on_max_message_data(id, max),
                Frame::MaxMessages(max) => self.outbox.on_max_messages(max, &mut self.events),
                Frame::Datagram(data) => {
                    self.stats.datagrams_received += 1;
                    self.events.push_back(Event::Datagram(Bytes::copy_from_slice(data)));
                }
                Frame::PathChallenge(number) => {
                    self.path_responses.truncate(PATH_RESPONSES_MAX - 1);
                    self.path_responses.push_back((from, number));
                }
                Frame::PathResponse(number) => {
                    if self.path.on_response(number) {
                        self.events.push_back(Event::PathChanged(self.path.remote));
                    }
                }
                Frame::Close { code, reason } => {
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    self.end(CloseReason::Peer { code, reason });
                }
            }
        }
        Ok(eliciting)
    }

    /// The peer speaks from another address: follow it, and let it prove that it is there.
    fn move_to(&mut self, now: Time, from: SocketAddr) {
        let validated = self.path.validation.take().map_or(self.path.remote, |before| before.previous);
        let same_host = from.ip() == self.path.remote.ip();
        self.path.remote = from;
        if validated != from {
            self.path.validation = Some(Validation {
                previous: validated,
                challenge: self.rng.number(),
                due: true,
                retry_at: now,
                give_up: now + VALIDATION_MAX,
                received: 0,
                sent: 0,
            });
        }
        if !same_host {
            self.restart_path(now);
        }
    }

    /// Another host is another path: what was learned of the old one does not hold.
    pub(super) fn restart_path(&mut self, now: Time) {
        self.controller = self.config.congestion.start(&self.config, crate::mtu::MTU_MIN);
        self.mtu = crate::mtu::Mtu::new(now, &self.config, self.datagram_max);
        self.rtt = crate::rtt::Rtt::new(self.rtt.smoothed());
        self.ecn = self.config.ecn;
    }

    pub(super) fn challenge_again(&mut self, now: Time) {
        let pause = self.rtt.probe_timeout(Duration::ZERO).min(CHALLENGE_RETRY * 5).max(CHALLENGE_RETRY);
        if let Some(validation) = &mut self.path.validation {
            (validation.due, validation.retry_at) = (false, now + pause);
        }
    }

    fn handle_ack(&mut self, now: Time, ack: &Ack) -> Result<(), Violation> {
        let in_flight_before = self.sent.in_flight();
        let acked = self.sent.on_ack(now, ack)?;
        (self.arrival_rate, self.capacity) = (ack.rate, ack.capacity);
        if acked.packets.is_empty() && !acked.spurious {
            return Ok(());
        }
        if let Some(sample) = acked.rtt_sample {
            let delay = Duration::from_micros(ack.delay_us).min(self.config.ack_delay);
            self.rtt.update(sample, delay);
        }
        if acked.spurious {
            self.stats.spurious_losses += 1;
            self.controller.on_spurious_loss();
        }
        let sent_at = acked.packets.iter().map(|(_, packet)| packet.at).max();
        let marked = acked.packets.iter().filter(|(_, packet)| packet.ect).count() as u64;
        for (number, packet) in &acked.packets {
            self.on_packet_acked(now, *number, packet);
        }
        self.timeouts = 0;
        if let Some(sent_at) = sent_at {
            self.handle_ecn(now, ack, marked, sent_at);
            self.detect_lost(now);
            self.controller.on_ack(&AckInfo {
                now,
                bytes: acked.bytes,
                sent_at,
                rtt: self.rtt,
                in_flight_before,
                in_flight: self.sent.in_flight(),
                app_limited: self.app_limited,
                delivery: acked.delivery,
                arrival_rate: ack.rate,
                capacity: ack.capacity,
            });
            self.repace(now);
        }
        Ok(())
    }

    fn on_packet_acked(&mut self, now: Time, number: u64, packet: &SentPacket) {
        if self.mtu.on_acked(now, number, packet.bytes) {
            self.controller.set_mtu(self.mtu.current());
        }
        for frame in &packet.frames {
            match frame {
                SentFrame::Ack { largest } => self.received.on_confirmed(*largest),
                other => self.outbox.on_acked(other, &mut self.events),
            }
        }
    }

    /// Checks that the path keeps our marks, and obeys those of its routers (RFC 9000, 13.4.2).
    fn handle_ecn(&mut self, now: Time, ack: &Ack, marked: u64, sent_at: Time) {
        if !self.ecn {
            return;
        }
        let before = self.ecn_counts;
        let echoed = (ack.ecn.ect0 + ack.ecn.ce).saturating_sub(before.ect0 + before.ce);
        if echoed < marked {
            // Marks are bleached on the way, so their absence tells nothing.
            self.ecn = false;
            return;
        }
        if ack.ecn.ce > before.ce {
            self.stats.congestion_marks += ack.ecn.ce - before.ce;
            self.controller.on_ecn(now, sent_at);
        }
        if ack.ecn.ect0 >= before.ect0 && ack.ecn.ce >= before.ce {
            self.ecn_counts = ack.ecn;
        }
    }

    /// Finds lost packets, and lets what they carried be sent again.
    pub(super) fn detect_lost(&mut self, now: Time) {
        let Some((packets, info)) = self.sent.detect_lost(now, &self.rtt) else { return };
        let mut mtu_changed = false;
        for packet in &packets {
            self.stats.packets_lost += 1;
            if packet.mtu_probe {
                self.mtu.on_probe_lost(now);
            } else {
                mtu_changed |= self.mtu.on_lost(now, packet.bytes);
            }
            self.resend(packet);
        }
        if mtu_changed {
            // The path did not lose them for want of room: no reason to slow down.
            self.controller.set_mtu(self.mtu.current());
        } else if info.packets > 0 {
            self.controller.on_loss(&info);
        }
        self.repace(now);
    }

    fn resend(&mut self, packet: &SentPacket) {
        for frame in &packet.frames {
            self.outbox.on_lost(frame);
            self.inbox.on_lost(frame);
        }
    }

    pub(super) fn repace(&mut self, now: Time) {
        let rate = self.controller.pacing_rate(self.rtt.smoothed());
        self.pacer.set_rate(now, rate, self.mtu.current());
        self.paced_until = None;
    }
}
