//! Open loop: requests are sent when they are due, at a rate, whatever the answers do, as many
//! independent users would. Latency counts from when a request was due, so a server that stalls pays for
//! everything that it kept waiting.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::address::PATIENCE;
use crate::closed::watch;
use crate::connection::{Connection, Load};
use crate::error::LoadError;
use crate::poll::Poll;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// Number of the timer among the sockets.
const TIMER: usize = usize::MAX;
/// Requests that could not even be sent are entered in so many groups of about the same age.
const OVERDUE_GROUPS: u64 = 1000;

/// When each request is due: at even distances. The longest run at the highest rate stays below 2^64.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: u64,
    rate: u64,
}

impl Schedule {
    fn due(&self, number: u64) -> u64 {
        self.start + number * NS_PER_SECOND / self.rate
    }

    /// How many are due by a time.
    fn count(&self, time: u64) -> u64 {
        time.saturating_sub(self.start) * self.rate / NS_PER_SECOND + 1
    }
}

/// Wakes the thread when the next request is due, to the microsecond: epoll's own timeouts have slack.
#[derive(Debug)]
struct Timer {
    timer: OwnedFd,
    due: u64,
}

impl Timer {
    fn new(poll: &Poll) -> Result<Self, LoadError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).map_err(LoadError::system("timerfd_create"))?;
        poll.add(&timer, TIMER)?;
        Ok(Timer { timer, due: 0 })
    }

    fn set(&mut self, now: u64, due: u64) -> Result<(), LoadError> {
        if self.due == due {
            return Ok(());
        }
        self.due = due;
        let wait = Duration::from_nanos(due.saturating_sub(now).max(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let setting = Itimerspec { it_interval: zero, it_value: once };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)
            .map(|_| ())
            .map_err(LoadError::system("timerfd_settime"))
    }
}

/// Sends `rate` requests a second over all connections, at most `depth` in flight on each. Returns how many
/// were due and not answered at the end.
pub fn run(
    load: &mut Load<'_>,
    connections: &mut [Connection],
    depth: usize,
    rate: u64,
) -> Result<u64, LoadError> {
    let mut poll = Poll::new()?;
    let mut timer = Timer::new(&poll)?;
    // The connection that was used last is used next: what a pool of clients does.
    let mut free: Vec<usize> = Vec::with_capacity(connections.len() * depth);
    for (number, connection) in connections.iter().enumerate() {
        poll.add(connection, number)?;
        free.extend(std::iter::repeat_n(number, depth));
    }
    let schedule = Schedule { start: load.window.clock.now(), rate };
    let (mut sent, slots) = (0, free.len());
    loop {
        let now = load.window.clock.now();
        while schedule.due(sent) <= now {
            let Some(number) = free.pop() else { break };
            let (connection, due) = (&mut connections[number], schedule.due(sent));
            let sending = connection.is_sending();
            connection.ask(load, 1, Some(due))?;
            watch(&poll, connection, number, sending)?;
            sent += 1;
        }
        if free.len() == slots {
            load.window.heard(now);
        }
        let due = schedule.due(sent);
        if due > now && !free.is_empty() {
            timer.set(now, due)?;
        }
        let late = due <= now && !free.is_empty();
        for index in 0..poll.wait(if late { Duration::ZERO } else { PATIENCE })? {
            let number = poll.ready(index);
            let Some(connection) = connections.get_mut(number) else { continue };
            let sending = connection.is_sending();
            connection.flush()?;
            let answered = connection.receive(load, RecvFlags::DONTWAIT)?;
            watch(&poll, connection, number, sending)?;
            free.extend(std::iter::repeat_n(number, answered));
        }
        let now = load.window.clock.now();
        if load.window.is_over(now)? {
            return Ok(unanswered(load, connections, &schedule, sent));
        }
    }
}

/// Enters what was due and has no answer, with how long that has been.
fn unanswered(load: &mut Load<'_>, connections: &[Connection], schedule: &Schedule, sent: u64) -> u64 {
    let end = load.window.end();
    let latencies = &mut load.window.tally.latencies;
    let mut count = 0;
    for since in connections.iter().flat_map(Connection::waiting_since).filter(|since| *since < end) {
        latencies.saturating_record(end - since);
        count += 1;
    }
    let due = schedule.count(end).max(sent);
    let group = (due - sent).div_ceil(OVERDUE_GROUPS).max(1);
    for first in (sent..due).step_by(group as usize) {
        latencies.saturating_record_n(end.saturating_sub(schedule.due(first)), group.min(due - first));
    }
    count + due - sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_keeps_the_rate() {
        let schedule = Schedule { start: 7, rate: 30_000 };
        assert_eq!((schedule.due(0), schedule.due(1), schedule.due(30_000)), (7, 33_340, 1_000_000_007));
        assert_eq!((schedule.count(0), schedule.count(7), schedule.count(1_000_000_007)), (1, 1, 30_001));
    }

    #[test]
    fn the_longest_schedule_fits() {
        let (rate, seconds) = (10_000_000, 1_200);
        let schedule = Schedule { start: NS_PER_SECOND, rate };
        let end = schedule.due(rate * seconds);
        assert_eq!((end, schedule.count(end)), (1_201 * NS_PER_SECOND, rate * seconds + 1));
    }
}
