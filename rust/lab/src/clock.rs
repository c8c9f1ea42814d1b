//! Time: one clock for all processes of this machine, and waiting for it. What is sent in one process and
//! received in another can be timed only because both read the same one.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::error::LabError;

/// Nanoseconds of CLOCK_MONOTONIC: Python's `time.monotonic_ns()`.
pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds that all threads of this process have computed, its own and the system's part together.
pub fn process_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// Waits until a time. Does nothing if that is past.
pub fn wait_until(time: u64) -> Result<(), LabError> {
    loop {
        match clock_nanosleep_absolute(ClockId::Monotonic, &timespec(time)) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(LabError::system("clock_nanosleep")(error)),
        }
    }
}

/// Has the system wake this thread on time; it would gather wakings within 50 us otherwise.
pub fn be_punctual() -> Result<(), LabError> {
    set_current_timer_slack(NonZeroU64::new(1)).map_err(LabError::system("PR_SET_TIMERSLACK"))
}

/// For the system.
pub fn timespec(nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_nsec: (nanoseconds % 1_000_000_000) as i64 }
}

/// Seconds of an option.
pub fn seconds(seconds: f64) -> u64 {
    Duration::from_secs_f64(seconds).as_nanos() as u64
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_it_should() {
        be_punctual().unwrap();
        let due = now() + 2_000_000;
        wait_until(due).unwrap();
        assert!(now() >= due);
        wait_until(0).unwrap();
        assert_eq!(timespec(seconds(1.5)), Timespec { tv_sec: 1, tv_nsec: 500_000_000 });
    }

    #[test]
    fn computing_is_counted() {
        let before = process_cpu();
        while process_cpu() < before + 1_000_000 {
            std::hint::black_box(0);
        }
    }
}
