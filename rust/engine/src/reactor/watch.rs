//! Connections that watch what changes.

use turbopump_core::error::Refusal;
use turbopump_core::session::Flow;

use super::Reactor;
use crate::connection::{Connection, Stage};

/// How often one who watches is told where it is: so that it knows that the node is there, and the node
/// finds out that it is not.
const BEAT_MS: u64 = 15_000;

impl Reactor {
    /// Has the connection watch, or go on; `None` when it does. `behind` if there is more for it already.
    pub(super) fn begin_watch(
        &mut self,
        token: u64,
        connection: &mut Connection,
        behind: bool,
    ) -> Option<Flow> {
        connection.behind = behind;
        if connection.stage != Stage::Watching {
            if self.drain_deadline_ms.is_some() {
                return Some(connection.session.handle_refusal(Refusal::ShuttingDown, &mut self.world()));
            }
            if self.watchers.is_empty() {
                self.replica.feed().listen(self.index, true);
            }
            self.watchers.insert(token);
            // A change before that has woken nobody.
            (connection.stage, connection.behind) = (Stage::Watching, true);
        }
        match connection.deadline_ms.filter(|at_ms| *at_ms > self.now_ms) {
            Some(at_ms) => self.timers.add(at_ms, token),
            None => self.set_deadline(token, connection, BEAT_MS),
        }
        None
    }

    /// There are changes: all who watch look.
    pub(super) fn stir(&mut self) {
        if self.replica.feed().take_woken(self.index) {
            let watchers: Vec<u64> = self.watchers.iter().copied().collect();
            watchers.into_iter().for_each(|token| self.show_changes(token, false));
        }
    }

    pub(super) fn show_changes(&mut self, token: u64, beat: bool) {
        self.advance(token, Stage::Watching, |session, world| session.handle_changes(beat, world));
    }

    /// A connection ends.
    pub(super) fn forget_watcher(&mut self, token: u64) {
        if self.watchers.remove(&token) && self.watchers.is_empty() {
            self.replica.feed().listen(self.index, false);
        }
    }
}
