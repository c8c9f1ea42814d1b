//! The end of a reactor: who connected before is served, then everybody is let go.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use mio::unix::SourceFd;
use turbopump_core::error::Refusal;

use super::Reactor;
use super::accept::ACCEPT_TURN;
use crate::connection::Stage;
use crate::events::Event;

/// Connections that can wait to be accepted: what `server.py` asks the kernel for.
const BACKLOG_MAX: usize = 4096;

impl Reactor {
    pub(super) fn begin_drain(&mut self, deadline_ms: u64) {
        if self.drained {
            return;
        }
        // Who connected before this moment is served: as many as can have been waiting.
        for _ in 0..BACKLOG_MAX / ACCEPT_TURN {
            self.accept();
            if !self.knocking {
                break;
            }
        }
        self.knocking = false;
        for listener in std::mem::take(&mut self.listeners) {
            let fd = listener.socket.as_raw_fd();
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        self.drain_deadline_ms = Some(self.now_ms.saturating_add(deadline_ms));
        for token in self.connections.tokens() {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.readable = true;
            }
            // Who waits for a key has asked for nothing that could be lost.
            self.advance(token, Stage::Waiting, |session, world| {
                session.handle_refusal(Refusal::ShuttingDown, world)
            });
            self.advance(token, Stage::Watching, |session, world| {
                session.handle_refusal(Refusal::ShuttingDown, world)
            });
        }
    }

    pub(super) fn check_drained(&mut self) {
        let Some(deadline_ms) = self.drain_deadline_ms else { return };
        if self.now_ms >= deadline_ms {
            for token in self.connections.tokens() {
                if let Some(connection) = self.connections.take(token) {
                    self.shared.aborted.fetch_add(1, Relaxed);
                    self.close(token, connection);
                }
            }
        }
        if self.connections.len() == 0 {
            (self.drain_deadline_ms, self.drained) = (None, true);
            if self.shared.undrained.fetch_sub(1, Relaxed) == 1 {
                let (answered, aborted) =
                    (self.shared.answered.load(Relaxed), self.shared.aborted.load(Relaxed));
                // Cannot be refused: the queue keeps room for it.
                let _ = self.shared.events.push(Event::Drained { answered, aborted });
            }
        }
    }
}
