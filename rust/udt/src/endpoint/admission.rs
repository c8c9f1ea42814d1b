//! The way in: INITs are judged and answered, and who has proved itself gets its connection.

use core::net::SocketAddr;

use super::{ConnectionId, Endpoint};
use crate::candidate::Candidate;
use crate::connection::Session;
use crate::error::{CloseReason, Malformed};
use crate::guard::Verdict;
use crate::handshake::{Answer, PresharedKey, PublicKey, write_cookie};
use crate::identity::Me;
use crate::packet::{Header, INIT_MAC1, Init, Settings, VERSION};
use crate::seal::{Keys, Suite};
use crate::time::Time;

/// Answers that wait to be sent; beyond that INITs are dropped, and will be repeated.
const ANSWERS_MAX: usize = 256;
/// Answers in a row that the peer did not go on after: some may be lost.
const UNPROVED_MAX: u8 = 2;

impl Endpoint {
    pub(super) fn handle_init(
        &mut self,
        now: Time,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Malformed> {
        let init = Init::parse(datagram)?;
        let is_for = |me: &Me| me.is_meant(&datagram[..INIT_MAC1], init.mac1);
        let Some(at) = self.identity.iter().position(is_for) else {
            self.stats.forged_handshakes += 1;
            return Ok(());
        };
        if init.version != VERSION {
            self.stats.other_versions += 1;
            return Ok(());
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.stats.dropped_handshakes += 1;
            return Ok(());
        }
        match self.guard.judge(now, &from, &datagram[..INIT_MAC1 + 16], init.mac2) {
            Verdict::Drop => {
                self.stats.dropped_handshakes += 1;
                return Ok(());
            }
            Verdict::AskCookie => {
                let cookie = self.guard.cookie(now, &mut self.rng, &from);
                let mut out = Vec::new();
                write_cookie(&mut self.rng, &self.identity[at].public, &init, &cookie, &mut out);
                self.answers.push_back((from, out));
                self.stats.cookies += 1;
                return Ok(());
            }
            Verdict::Forged => {
                self.stats.refused_handshakes += 1;
                return Ok(());
            }
            Verdict::Hear => {}
        }
        let answer = Answer::read(&mut self.rng, &self.identity[at].key, &init)?;
        let psk = self.psks.iter().find(|(id, _)| *id == answer.psk_id()).map(|(_, psk)| psk.clone());
        match psk {
            _ if !self.admitted.contains_key(&answer.peer) => self.stats.unknown_peers += 1,
            // Who renews keys offers the secret before this one next.
            None if !self.is_renewal(&answer) => self.stats.other_secrets += 1,
            Some(psk) if self.answer(now, from, answer, &psk) => self.stats.answered_handshakes += 1,
            _ => self.stats.refused_handshakes += 1,
        }
        Ok(())
    }

    /// Answers a handshake of a peer. Returns false if it may not connect now.
    fn answer(&mut self, now: Time, from: SocketAddr, answer: Answer, psk: &PresharedKey) -> bool {
        let (peer, settings) = (answer.peer, answer.settings);
        let ours_first = self.goes_first(&peer);
        let known = self.find(&peer);
        let renewed = known.filter(|_| self.is_renewal(&answer));
        let is_full = known.is_none() && self.connections.len() >= self.config.peers_max;
        if is_full || !self.is_new(&answer, renewed) {
            return false;
        }
        let known = known.and_then(|id| self.connections.get_mut(&id));
        if known.is_some_and(|known| ours_first && known.goes_first(settings.token)) {
            return false;
        }
        let suite = Suite::choose(self.suites(), settings.suites);
        let local = self.free_index();
        let ours = Settings { suites: suite as u16, ..self.settings(now, settings.token) };
        let remote = answer.sender();
        let mut out = Vec::new();
        let Ok(secrets) = answer.write(psk, local, &ours, &mut out) else { return false };
        let keys = Keys::new(suite, &secrets.sending, &secrets.receiving);
        let session = Session { local, remote, keys, created: now, sealed: 0, initiator: false };
        if let Some((id, connection)) = renewed.and_then(|id| Some((id, self.connections.get_mut(&id)?))) {
            connection.on_asked(now, session, settings.stamp);
            self.by_index.insert(local, id);
            self.touch(id);
        } else {
            let before = self.candidates.get(&peer).map_or(0, |before| before.answers);
            let (answers, late) = (before.saturating_add(1), self.is_late(&peer, settings.stamp));
            let candidate = Candidate { from, settings, session, answers, late };
            self.stats.late_handshakes += u64::from(late);
            self.stats.unheard_answers += u64::from(candidate.answers > UNPROVED_MAX);
            self.candidates.insert(now, self.config.silence_max, peer, candidate);
        }
        self.answers.push_back((from, out));
        true
    }

    /// Whether a handshake is worth an answer: it did not come before, and takes nobody's place who is more
    /// likely to be the peer.
    ///
    /// A stamp older than the peer's last is of a handshake that somebody repeats, or of a peer whose clock
    /// was set back. What is repeated is never proved, and costs what any handshake of a stranger may; so it
    /// is heard, but waits for one with a newer stamp.
    fn is_new(&self, answer: &Answer, renewed: Option<ConnectionId>) -> bool {
        let Settings { stamp, token, .. } = answer.settings;
        if let Some(connection) = renewed.and_then(|id| self.connection(id)) {
            return stamp > connection.stamp;
        }
        let Some(before) = self.candidates.get(&answer.peer) else { return true };
        if before.settings.token == token {
            stamp > before.settings.stamp
        } else {
            self.is_late(&answer.peer, before.settings.stamp) || !self.is_late(&answer.peer, stamp)
        }
    }

    /// Whether a peer has proved a stamp that is not older than this one.
    fn is_late(&self, peer: &PublicKey, stamp: u64) -> bool {
        self.admitted.get(peer).is_some_and(|last| stamp <= *last)
    }

    /// Whether our handshake goes first where both begin at once: one side's must, and both know whose.
    pub(super) fn goes_first(&self, peer: &PublicKey) -> bool {
        self.identity.first().is_some_and(|me| me.public < *peer)
    }

    /// Whether a handshake is to renew the keys of a connection that goes on without it.
    fn is_renewal(&self, answer: &Answer) -> bool {
        let connection = self.find(&answer.peer).and_then(|id| self.connection(id));
        connection.is_some_and(|known| known.is_connected() && known.token == answer.settings.token)
    }

    /// The connection of a peer that has proved itself: one that is there, or a new one.
    fn connection_for(
        &mut self,
        now: Time,
        peer: PublicKey,
        from: SocketAddr,
        token: u64,
    ) -> Option<ConnectionId> {
        if let Some(id) = self.find(&peer) {
            let connection = self.connections.get_mut(&id)?;
            if connection.is_unheard() {
                // Both began at once: theirs it is, and ours takes its name.
                connection.adopt(token, from);
                return Some(id);
            }
            connection.end(CloseReason::Replaced);
            self.by_peer.remove(&peer);
            self.touch(id);
        } else if self.connections.len() >= self.config.peers_max {
            return None;
        }
        Some(self.insert(now, peer, from, token))
    }

    /// The first packet of a candidate: its sender has the cluster's key, and is the peer from now on.
    pub(super) fn prove(&mut self, now: Time, header: &Header, datagram: &[u8]) -> Option<ConnectionId> {
        let (peer, candidate) = self.candidates.prove(header, datagram)?;
        let Candidate { from, settings, session, late, .. } = candidate;
        let id = self.connection_for(now, peer, from, settings.token)?;
        self.stats.set_back_clocks += u64::from(late);
        if let Some(last) = self.admitted.get_mut(&peer) {
            *last = if late { settings.stamp } else { (*last).max(settings.stamp) };
        }
        self.by_index.insert(session.local, id);
        self.connections.get_mut(&id)?.on_proved(now, session, &settings);
        Some(id)
    }
}
