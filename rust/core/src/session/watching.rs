//! What a session does while its client watches: changes go out as they happen, as far as there is room.

use super::{Flow, Session, Stage, World};
use crate::error::Refusal;
use crate::pipe::commands as pipe;

/// Changes looked at before others have their turn: some tens of microseconds.
const STEP: usize = 128;

impl Session {
    /// There may be changes for the client, or room for more; with `beat` it is told where it is even if
    /// there are none, so that it knows that the node is there, and can go on from there later.
    pub fn handle_changes(&mut self, beat: bool, world: &mut World<'_>) -> Flow {
        let Stage::Watching(request, watch) = &mut self.stage else { return Flow::Read };
        let mut writer = pipe::writer(world.out, &self.client, request);
        let full = writer.out.len() > world.replica.limits().output_max;
        let read = match watch.gone() {
            Some(gone) => Err(gone),
            None if full => return Flow::Watch(true),
            None => watch.read(STEP),
        };
        match read {
            Ok((found, more)) => {
                found.iter().for_each(|change| writer.event(change));
                if beat && found.is_empty() {
                    writer.status(&[("revision", &watch.revision().to_string())]);
                }
                Flow::Watch(more)
            }
            Err(gone) => {
                writer.refusal(&gone);
                self.over(Flow::Linger)
            }
        }
    }

    /// Ends the watching: with what there is room for, and why.
    pub(super) fn end_watch(&mut self, refusal: &Refusal, world: &mut World<'_>) -> Flow {
        while self.handle_changes(false, world) == Flow::Watch(true) {
            if world.out.len() > world.replica.limits().output_max {
                break;
            }
        }
        let Stage::Watching(request, _) = &self.stage else { return Flow::Linger };
        pipe::writer(world.out, &self.client, request).refusal(refusal);
        self.answered(world)
    }
}
