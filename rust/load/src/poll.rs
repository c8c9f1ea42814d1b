//! Waiting for many sockets at once: a thin cover of epoll.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::error::LoadError;

/// Events taken at once.
const EVENTS_MAX: usize = 256;

/// Sockets, each with a number, and those of them that are ready.
pub struct Poll {
    epoll: OwnedFd,
    ready: Vec<Event>,
}

impl Poll {
    pub fn new() -> Result<Self, LoadError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(LoadError::system("epoll_create1"))?;
        Ok(Poll { epoll, ready: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches until it is closed; it is ready when there is something to read.
    pub fn add(&self, socket: impl AsFd, number: usize) -> Result<(), LoadError> {
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, socket, data, EventFlags::IN).map_err(LoadError::system("epoll_ctl"))
    }

    /// Says whether it is ready, too, when it can be written to.
    pub fn watch_writing(&self, socket: impl AsFd, number: usize, writing: bool) -> Result<(), LoadError> {
        let flags = if writing { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        let data = EventData::new_u64(number as u64);
        epoll::modify(&self.epoll, socket, data, flags).map_err(LoadError::system("epoll_ctl"))
    }

    /// Waits until something is ready, or so long; tells how many are.
    pub fn wait(&mut self, patience: Duration) -> Result<usize, LoadError> {
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(self.ready.len()),
            Err(error) => Err(LoadError::system("epoll_wait")(error)),
        }
    }

    /// The number of one that is ready, of those that the last `wait` counted.
    pub fn ready(&self, index: usize) -> usize {
        self.ready[index].data.u64() as usize
    }
}
