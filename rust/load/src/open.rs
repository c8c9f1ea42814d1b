//! Open loop: requests are sent when they are due, at a rate, whatever the answers do, as many
//! independent users would. Latency counts from when a request was due, so a server that stalls pays for
//! everything that it kept waiting.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::thread::set_current_timer_slack;

use crate::address::PATIENCE;
use crate::closed::watch;
use crate::connection::{Connection, Load};
use crate::error::LoadError;
use crate::poll::Poll;

const NS_PER_SECOND: u64 = 1_000_000_000;
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

/// Sends `rate` requests a second over all connections, at most `depth` in flight on each. Returns how many
/// were due and not answered at the end.
pub fn run(
    load: &mut Load<'_>,
    connections: &mut [Connection],
    depth: usize,
    rate: u64,
) -> Result<u64, LoadError> {
    let mut poll = Poll::new()?;
    // The default slack, 50 us, would be added to every latency. It is this thread's own.
    set_current_timer_slack(Some(NonZeroU64::MIN)).map_err(LoadError::system("timer slack"))?;
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
        let next = Duration::from_nanos(schedule.due(sent).saturating_sub(now));
        for index in 0..poll.wait(if free.is_empty() { PATIENCE } else { next.min(PATIENCE) })? {
            let number = poll.ready(index);
            let connection = &mut connections[number];
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
