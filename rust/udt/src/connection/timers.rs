//! What is due when: every timer of a connection is a moment computed from its state, so none can be stale.

use std::time::Duration;

use super::{Connection, State};
use crate::config::Duplicates;
use crate::error::CloseReason;
use crate::loss::SentFrame;
use crate::time::Time;

/// UDT's SYN: the controller's clock.
const TICK: Duration = Duration::from_millis(10);
/// Probe timeouts grow up to this, so that a path which comes back is found before the peer is called dead.
const TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// The side that answered renews the keys if the side that asked has not done so.
const REKEY_LAG: Duration = Duration::from_secs(15);
/// Signs of life that must be asked for in vain before a peer is dead.
const UNANSWERED_MIN: u32 = 3;
/// Packets sent anew at a probe timeout: two, so that one may be lost.
const PROBES: u8 = 2;

impl Connection {
    /// When `handle_timeout` is due. What is due at once has gone out when `poll_transmit` was drained.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.timers().into_iter().filter_map(|(_, time)| time).min()
    }

    /// All timers by name.
    pub(super) fn timers(&self) -> [(&'static str, Option<Time>); 13] {
        let validation = self.path.validation.as_ref();
        let connected = self.state == State::Connected;
        let open = !self.is_closed();
        let may_send = self.path.may_send(self.mtu.current().into());
        [
            ("init", self.attempt.as_ref().map(|attempt| attempt.retry_at).filter(|_| open)),
            ("handshake", self.handshake_end()),
            ("expiry", self.outbox.next_expiry().filter(|_| open)),
            ("old keys", self.sessions.previous.as_ref().map(|(_, until)| *until).filter(|_| open)),
            ("ack", self.received.deadline().filter(|_| connected && may_send)),
            ("loss", self.loss_or_probe_time().filter(|_| connected)),
            ("pace", self.paced_until.filter(|_| connected)),
            ("tick", self.next_tick.filter(|_| connected && self.sent.eliciting() > 0)),
            ("duplicate", self.duplicate_time().filter(|_| connected)),
            ("mtu", self.mtu.next_time().filter(|_| connected && validation.is_none())),
            ("path", validation.map(|path| path.retry_at.min(path.give_up)).filter(|_| connected)),
            ("keys", self.rekey_time().filter(|_| connected && self.attempt.is_none())),
            ("alive", Some(self.keep_alive_time().min(self.silence_time())).filter(|_| connected)),
        ]
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        if self.is_closed() {
            return;
        }
        self.outbox.expire(now, &mut self.events);
        self.retired.extend(self.sessions.expire(now));
        if self.handshake_end().is_some_and(|time| time <= now) {
            self.end(CloseReason::NoAnswer(self.config.handshake_max));
        }
        if self.state == State::Connected {
            self.handle_connected(now);
        }
    }

    fn handle_connected(&mut self, now: Time) {
        if self.silence_time() <= now {
            return self.end(CloseReason::Silent(now.since(self.last_heard)));
        }
        if self.keep_alive_time() <= now {
            self.ping_due = true;
            self.last_ping = now;
            self.unanswered += 1;
        }
        if self.sent.loss_time().is_some_and(|time| time <= now) {
            self.detect_lost(now);
        } else if self.loss_or_probe_time().is_some_and(|time| time <= now) {
            self.probe(now);
        }
        if self.next_tick.is_some_and(|time| time <= now) {
            self.next_tick = Some(now + TICK);
            self.controller.on_tick(now);
            self.repace(now);
        }
        if self.paced_until.is_some_and(|time| time <= now) {
            self.paced_until = None;
        }
        self.check_path(now);
        self.check_keys(now);
    }

    /// When a handshake has taken too long, whoever began it.
    fn handshake_end(&self) -> Option<Time> {
        (self.state == State::Connecting).then(|| self.begun + self.config.handshake_max)
    }

    pub(super) fn loss_or_probe_time(&self) -> Option<Time> {
        if self.sent.loss_time().is_some() {
            return self.sent.loss_time();
        }
        let timeout = self.rtt.probe_timeout(self.ack_patience());
        let grown = timeout * 2_u32.saturating_pow(self.timeouts.min(16));
        (self.sent.eliciting() > 0).then(|| self.sent.last_eliciting() + grown.min(TIMEOUT_MAX.max(timeout)))
    }

    /// Nothing was acknowledged for long: what is oldest goes out again, whatever the window says. Only an
    /// answer will tell what was lost.
    fn probe(&mut self, now: Time) {
        self.timeouts += 1;
        self.stats.timeouts += 1;
        self.probes_due = PROBES;
        self.ping_due = true;
        if self.timeouts > 1 {
            self.sent.forget_repeats();
        }
        if self.mtu.on_timeout(now, self.timeouts) {
            self.controller.set_mtu(self.mtu.current());
        }
        let (outbox, inbox) = (&mut self.outbox, &mut self.inbox);
        self.sent.repeat_oldest(PROBES.into(), |packet| {
            for frame in &packet.frames {
                outbox.on_lost(frame);
                inbox.on_lost(frame);
            }
        });
    }

    fn keep_alive_time(&self) -> Time {
        self.last_heard.max(self.last_ping) + self.config.keep_alive
    }

    fn silence_time(&self) -> Time {
        let silent = self.last_heard + self.config.silence_max;
        // A box that slept was silent itself: it asks first.
        if self.unanswered >= UNANSWERED_MIN {
            silent
        } else {
            silent.max(self.keep_alive_time()) + self.config.keep_alive
        }
    }

    fn rekey_time(&self) -> Option<Time> {
        let session = self.sessions.current.as_ref()?;
        let lag = if session.initiator { Duration::ZERO } else { REKEY_LAG };
        Some(session.created + self.config.rekey_after + lag)
    }

    fn check_keys(&mut self, now: Time) {
        if self.attempt.is_none() && self.rekey_time().is_some_and(|time| time <= now) {
            self.attempt = Some(super::Attempt::new(now, &self.config));
        }
        let reject = self.sessions.current.as_ref().map(|s| s.created + self.config.reject_after);
        if reject.is_some_and(|time| time <= now) {
            self.end(CloseReason::KeysExpired);
        }
    }

    fn check_path(&mut self, now: Time) {
        let Some(validation) = &mut self.path.validation else { return };
        if validation.give_up <= now {
            self.path.remote = validation.previous;
            self.path.validation = None;
            self.restart_path(now);
        } else if validation.retry_at <= now {
            validation.due = true;
        }
    }

    /// When a sparse tail of urgent messages is sent a second time.
    fn duplicate_time(&self) -> Option<Time> {
        let Duplicates { classes, in_flight, pause_min, .. } = self.config.duplicates;
        if classes == 0 || self.sent.eliciting() > in_flight || self.timeouts > 0 {
            return None;
        }
        let pause = (self.rtt.smoothed() / 8).max(pause_min);
        let urgent = |frame: &SentFrame| self.outbox.is_urgent(frame, classes);
        let packet =
            self.sent.iter().find(|packet| !packet.duplicated && packet.frames.iter().any(urgent))?;
        Some(self.budget.when(packet.at + pause, &self.config.duplicates))
    }

    /// Sends a sparse tail again, as soon as it is due: also when it has just become sparse.
    pub(super) fn duplicate(&mut self, now: Time) {
        while self.duplicate_time().is_some_and(|time| time <= now) {
            let (classes, outbox) = (self.config.duplicates.classes, &mut self.outbox);
            let urgent = |frame: &SentFrame| outbox.is_urgent(frame, classes);
            let Some(packet) = self.sent.duplicate_oldest(|packet| packet.frames.iter().any(urgent)) else {
                break;
            };
            for frame in &packet.frames {
                if outbox.is_urgent(frame, classes) {
                    outbox.on_lost(frame);
                }
            }
            self.budget.spend(now, 1.0, &self.config.duplicates);
            self.stats.duplicates += 1;
        }
    }

    /// A packet that wants an acknowledgement leaves.
    pub(super) fn start_tick(&mut self, now: Time) {
        if self.sent.eliciting() == 0 || self.next_tick.is_none() {
            self.next_tick = Some(now + TICK);
        }
        self.budget.earn(&self.config.duplicates);
    }
}

/// How many early duplicates may be sent: a share of all packets, and some each second.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: f64,
    at: Time,
}

impl Budget {
    pub fn new(now: Time) -> Self {
        Budget { tokens: 1.0, at: now }
    }

    fn earn(&mut self, config: &Duplicates) {
        let most = f64::from(config.per_second).max(1.0);
        self.tokens = (self.tokens + 1.0 / f64::from(config.one_in.max(1))).min(most);
    }

    /// When a duplicate that is wanted at `time` may go out.
    fn when(&self, time: Time, config: &Duplicates) -> Time {
        let per_second = f64::from(config.per_second.max(1));
        let wait = ((1.0 - self.tokens) / per_second).max(0.0);
        time.max(self.at + Duration::from_nanos((wait * 1e9).ceil() as u64))
    }

    fn spend(&mut self, now: Time, tokens: f64, config: &Duplicates) {
        let per_second = f64::from(config.per_second);
        let earned = per_second * now.since(self.at).as_secs_f64();
        self.tokens = (self.tokens + earned).min(per_second.max(1.0)) - tokens;
        self.at = now;
    }
}
