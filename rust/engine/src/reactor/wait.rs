//! Connections that wait: for a key, or for their time to be over.

use turbopump_core::error::Refusal;
use turbopump_core::session::Flow;
use turbopump_core::waits::Waiter;

use super::Reactor;
use crate::connection::{Connection, Stage};

impl Reactor {
    pub(super) fn set_deadline(&mut self, token: u64, connection: &mut Connection, after_ms: u64) {
        self.forget_deadline(token, connection);
        let at_ms = self.now_ms.saturating_add(after_ms);
        connection.deadline_ms = Some(at_ms);
        self.timers.add(at_ms, token);
    }

    pub(super) fn forget_deadline(&mut self, token: u64, connection: &Connection) {
        if let Some(at_ms) = connection.deadline_ms {
            self.timers.remove(at_ms, token);
        }
    }

    /// Has the connection wait for a key; `None` when it does.
    pub(super) fn begin_wait(
        &mut self,
        token: u64,
        connection: &mut Connection,
        key: Vec<u8>,
        timeout_ms: Option<u64>,
    ) -> Option<Flow> {
        let waiter = Waiter { reactor: self.index, client: token };
        if self.drain_deadline_ms.is_some() {
            return Some(connection.session.handle_refusal(Refusal::ShuttingDown, &mut self.world()));
        }
        if !self.replica.waits().wait(&key, waiter) {
            let refusal = Refusal::Busy("as many clients wait as limits.max_waits allows: try again".into());
            return Some(connection.session.handle_refusal(refusal, &mut self.world()));
        }
        // A write between the session's look and the note has not seen the note.
        match connection.session.handle_wait(false, &mut self.world()) {
            Flow::Wait(..) => {
                connection.stage = Stage::Waiting;
                connection.key = Some(key);
                match (timeout_ms, connection.deadline_ms) {
                    (Some(timeout_ms), _) => self.set_deadline(token, connection, timeout_ms),
                    (None, Some(at_ms)) => self.timers.add(at_ms, token),
                    (None, None) => {}
                }
                None
            }
            flow => {
                self.replica.waits().cancel(&key, waiter);
                Some(flow)
            }
        }
    }

    pub(super) fn handle_timers(&mut self) {
        while let Some((at_ms, token)) = self.timers.pop_due(self.now_ms) {
            if token == u64::MAX {
                self.knocking = true;
                continue;
            }
            let connection = self.connections.get_mut(token);
            match connection.filter(|connection| connection.deadline_ms == Some(at_ms)).map(|c| c.stage) {
                Some(Stage::Waiting) => {
                    self.advance(token, Stage::Waiting, |session, world| session.handle_wait(true, world));
                }
                Some(Stage::Watching) => self.show_changes(token, true),
                Some(Stage::Lingering(_)) => self.turn(token),
                _ => {}
            }
        }
    }
}
