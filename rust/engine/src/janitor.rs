//! Gives memory back to the system after much was deleted. A thread of its own, since that takes a while: a
//! gibibyte some tens of milliseconds, which no client should wait for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use turbopump_core::usage::Usage;

use crate::sched::give_way;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);
/// Below this much, the allocator may as well keep what was freed for what comes next.
const WORTHWHILE: u64 = 16 << 20;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Janitor {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Janitor {
    /// Starts the thread, which calls `release` when `usage` has fallen.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(usage: Arc<Usage>, release: fn()) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let work = move || watch(&receiver, &usage, release);
        let thread = std::thread::Builder::new().name("janitor".into()).spawn(work)?;
        Ok(Janitor { running: Some((sender, thread)) })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.running.take() {
            drop(sender);
            // It cannot have panicked: it calls only the allocator.
            let _ = thread.join();
        }
    }
}

fn watch(until: &Receiver<()>, usage: &Usage, release: fn()) {
    give_way();
    let mut highest = 0;
    while until.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
        let used = usage.total().bytes();
        highest = usage.take_peak().max(highest);
        if used + WORTHWHILE < highest {
            release();
            highest = used;
        }
    }
}
