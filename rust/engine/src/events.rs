//! What the reactors tell the side that decides: a bounded queue with a descriptor that says when to look.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use turbopump_core::feed::Change;

/// News from a reactor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A cold command waits for its answer.
    Asked {
        /// The number to answer it under.
        ask: u64,
        /// Its name.
        command: &'static str,
        /// Its arguments.
        args: Vec<Vec<u8>>,
    },
    /// Something worth a line in the log.
    Logged {
        /// `info`, `warning` or `error`.
        level: &'static str,
        /// What happened.
        event: &'static str,
        /// Particulars.
        fields: Vec<(&'static str, String)>,
    },
    /// A reactor panicked: its clients are gone, the engine is of no more use.
    Failed(String),
    /// The key of the call with this number has a value now, or had one.
    Appeared(u64),
    /// The reply to the request of this process with this number.
    Replied {
        /// The number.
        call: u64,
        /// What a client would be answered, with its length.
        reply: Vec<u8>,
    },
    /// There are changes for those of this process who watch.
    Stirred,
    /// A change that one of the rules takes.
    Changed(Change),
    /// All reactors have drained.
    Drained {
        /// Connections that ended between two requests.
        answered: u64,
        /// Connections that the deadline cut off.
        aborted: u64,
    },
}

/// The queue.
#[derive(Debug)]
pub struct Events {
    queue: Mutex<VecDeque<Event>>,
    limit: usize,
    signal: OwnedFd,
}

impl Events {
    /// An empty queue for `limit` events.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(limit: usize) -> std::io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Events { queue: Mutex::default(), limit, signal })
    }

    /// Adds an event; gives it back when the queue is full. What must arrive has a reserve of its own.
    pub fn push(&self, event: Event) -> Result<(), Event> {
        let mut queue = self.queue.lock();
        // Somebody waits for each reply, so there are no more of them than calls.
        let vital = matches!(event, Event::Failed(_) | Event::Drained { .. } | Event::Replied { .. });
        if queue.len() >= self.limit && !vital {
            return Err(event);
        }
        queue.push_back(event);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            self.signal();
        }
        Ok(())
    }

    /// Has whoever takes events look for some.
    pub fn signal(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }

    /// Takes all events.
    pub fn drain(&self) -> Vec<Event> {
        // First the signal, then the queue: an event in between signals anew.
        let _ = rustix::io::read(&self.signal, &mut [0u8; 8]);
        self.queue.lock().drain(..).collect()
    }
}

impl AsFd for Events {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_back_all_but_the_vital() {
        let events = Events::new(1).expect("a descriptor");
        let ask = |ask| Event::Asked { ask, command: "state", args: vec![] };

        assert_eq!(events.push(ask(1)), Ok(()));
        assert_eq!(events.push(ask(2)), Err(ask(2)));
        assert_eq!(events.push(Event::Failed("x".into())), Ok(()));
        assert_eq!(events.drain(), [ask(1), Event::Failed("x".into())]);
        assert_eq!(events.drain(), []);
    }
}
