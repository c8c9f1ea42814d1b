//! The keys of a connection as they come and go: current, previous and next; and attempts at a handshake.

use std::time::Duration;

use crate::config::Config;
use crate::handshake::Initiation;
use crate::seal::Keys;
use crate::time::Time;

/// What one handshake made: names for both sides, and keys.
pub(crate) struct Session {
    /// Our name for it: packets to us carry it.
    pub local: u32,
    /// The peer's name for it: packets to the peer carry it.
    pub remote: u32,
    pub keys: Keys,
    pub created: Time,
    /// Packets sealed.
    pub sealed: u64,
    /// Whether this side began the handshake, and so renews the keys first.
    pub initiator: bool,
}

/// A handshake that this side began and that is not answered.
pub(crate) struct Attempt {
    /// `None` until the first INIT is written.
    pub initiation: Option<Initiation>,
    pub index: u32,
    /// When the last INIT was written.
    pub sent_at: Time,
    pub retry_at: Time,
    pub pause: Duration,
    /// INITs written so far.
    pub written: usize,
}

impl Attempt {
    pub fn new(now: Time, config: &Config) -> Self {
        let pause = config.handshake_retry;
        Attempt { initiation: None, index: 0, sent_at: now, retry_at: now, pause, written: 0 }
    }
}

/// Sessions by age.
#[derive(Default)]
pub(crate) struct Sessions {
    /// Packets are sealed with this one.
    pub current: Option<Session>,
    /// Packets that are late may still be of this one, until the time given.
    pub previous: Option<(Session, Time)>,
    /// This side answered a handshake; the first packet of the peer proves that it has the keys.
    pub next: Option<Session>,
}

impl Sessions {
    /// The session that packets to this index belong to.
    pub fn find(&self, index: u32) -> Option<&Session> {
        let previous = self.previous.as_ref().map(|(session, _)| session);
        let all = [self.current.as_ref(), previous, self.next.as_ref()];
        all.into_iter().flatten().find(|session| session.local == index)
    }

    /// Makes a session the current one. Returns the index that is no longer in use.
    pub fn promote(&mut self, session: Session, until: Time) -> Option<u32> {
        let before = self.current.replace(session)?;
        self.previous.replace((before, until)).map(|(session, _)| session.local)
    }

    /// Makes the next session the current one, if `index` is its index.
    pub fn confirm(&mut self, index: u32, until: Time) -> Option<Option<u32>> {
        let next = self.next.take_if(|next| next.local == index)?;
        Some(self.promote(next, until))
    }

    /// Forgets the previous session when its time is over. Returns its index.
    pub fn expire(&mut self, now: Time) -> Option<u32> {
        self.previous.take_if(|(_, until)| *until <= now).map(|(session, _)| session.local)
    }

    /// All indices in use.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        let previous = self.previous.as_ref().map(|(session, _)| session);
        [self.current.as_ref(), previous, self.next.as_ref()].into_iter().flatten().map(|s| s.local)
    }
}
