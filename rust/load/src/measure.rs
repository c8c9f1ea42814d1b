//! Counting and timing: what came back, how long it took, and when warming up is over.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cpu::{Meter, Spent};
use crate::error::LoadError;
use crate::options::RUN_SECONDS_MAX;

/// How often somebody who watches is told.
const PROGRESS_INTERVAL_NS: u64 = 100_000_000;
/// A server that owes replies and sends nothing for so long will not.
const STALL_NS: u64 = 30_000_000_000;
/// Three digits of a latency are told apart: 0.1%.
const DIGITS: u8 = 3;

/// What a run is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Writing every key once.
    Prefill,
    /// Loading, without measuring.
    Warmup,
    /// Measuring.
    Measure,
}

/// The thread's link to who called.
#[derive(Debug)]
pub struct Control<'a> {
    /// The server's, for people.
    pub address: String,
    /// Set when the run is to end.
    pub stopped: &'a AtomicBool,
    /// What it is told.
    pub progress: SyncSender<(Stage, f64, u64)>,
}

impl Control<'_> {
    /// Tells how far a stage is, unless nobody listens at the moment.
    pub fn tell(&self, stage: Stage, share: f64, requests: u64) -> Result<(), LoadError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(LoadError::Stopped);
        }
        // A full queue: the last word is not read yet.
        let _ = self.progress.try_send((stage, share, requests));
        Ok(())
    }
}

/// Nanoseconds since a run began.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Clock(Instant::now())
    }

    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What became of requests.
#[derive(Debug)]
pub struct Tally {
    pub latencies: Histogram<u64>,
    /// Replies of all kinds.
    pub answered: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Values that are not their keys'.
    pub bad: u64,
    /// Requests that the server refused.
    pub errors: u64,
    /// What it said, the first time.
    pub first_error: Option<String>,
}

impl Tally {
    pub fn new() -> Result<Self, LoadError> {
        let longest = RUN_SECONDS_MAX as u64 * 1_000_000_000;
        let latencies = Histogram::new_with_bounds(1, longest, DIGITS)
            .map_err(|error| std::io::Error::other(error.to_string()))
            .map_err(LoadError::system("a histogram"))?;
        Ok(Tally { latencies, answered: 0, misses: 0, bad: 0, errors: 0, first_error: None })
    }

    /// Enters so many replies that took as long.
    pub fn answered(&mut self, latency_ns: u64, count: u64) {
        if count > 0 {
            self.answered += count;
            self.latencies.saturating_record_n(latency_ns, count);
        }
    }

    pub fn error(&mut self, reply: &[u8]) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| shown(reply).trim_end().to_owned());
    }

    fn clear(&mut self) {
        self.latencies.reset();
        (self.answered, self.misses, self.bad, self.errors) = (0, 0, 0, 0);
        self.first_error = None;
    }
}

/// A reply for people: its first line, not too long.
pub fn shown(reply: &[u8]) -> Cow<'_, str> {
    let line = reply.split(|&byte| byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(200)])
}

/// The stage of a run: how long it lasts, and what has happened in it.
#[derive(Debug)]
pub struct Window<'c> {
    pub clock: Clock,
    pub tally: Tally,
    control: &'c Control<'c>,
    meter: Meter,
    stage: Stage,
    start: u64,
    end: u64,
    seconds: f64,
    /// Requests that end the stage, if it is not time that does.
    goal: Option<u64>,
    told: u64,
    /// When the server last sent something.
    heard: u64,
}

impl<'c> Window<'c> {
    /// Opens with the warm-up; measures for `seconds` after it.
    pub fn open(
        control: &'c Control<'c>,
        meter: Meter,
        warmup_seconds: f64,
        seconds: f64,
    ) -> Result<Self, LoadError> {
        let (clock, tally, end) = (Clock::start(), Tally::new()?, nanoseconds(warmup_seconds));
        let (stage, start, goal, told, heard) = (Stage::Warmup, 0, None, 0, 0);
        Ok(Window { clock, tally, control, meter, stage, start, end, seconds, goal, told, heard })
    }

    /// For writing so many keys, however long that takes within reason.
    pub fn fill(control: &'c Control<'c>, keys: u64) -> Result<Self, LoadError> {
        let window = Self::open(control, Meter::new(&[]), RUN_SECONDS_MAX, 0.0)?;
        Ok(Window { stage: Stage::Prefill, goal: Some(keys), ..window })
    }

    /// Looks at the time; whether the run is over.
    pub fn is_over(&mut self, now: u64) -> Result<bool, LoadError> {
        if now - self.told >= PROGRESS_INTERVAL_NS {
            self.told = now;
            self.tell(now)?;
        }
        if now < self.end {
            return Ok(false);
        }
        if self.stage != Stage::Warmup {
            return Ok(true);
        }
        self.stage = Stage::Measure;
        self.tally.clear();
        self.meter.start()?;
        self.start = self.clock.now();
        self.end = self.start + nanoseconds(self.seconds);
        Ok(false)
    }

    fn tell(&self, now: u64) -> Result<(), LoadError> {
        let share = match self.goal {
            Some(goal) => self.tally.answered as f64 / goal as f64,
            None => (now - self.start) as f64 / (self.end - self.start).max(1) as f64,
        };
        self.control.tell(self.stage, share.min(1.0), self.tally.answered)?;
        if now - self.heard < STALL_NS {
            return Ok(());
        }
        let seconds = STALL_NS / 1_000_000_000;
        Err(LoadError::Stalled { address: self.control.address.clone(), seconds })
    }

    /// The server sent something, or owes nothing.
    pub fn heard(&mut self, now: u64) {
        self.heard = now;
    }

    /// When the stage is over.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn closed(&self) -> LoadError {
        let said = self.tally.first_error.clone().unwrap_or_else(|| "nothing".into());
        LoadError::Closed { address: self.control.address.clone(), said }
    }

    /// What was counted, for how long, and at whose cost.
    pub fn close(self) -> Result<(Tally, Duration, Spent), LoadError> {
        let elapsed = Duration::from_nanos(self.clock.now() - self.start);
        let spent = self.meter.stop(elapsed)?;
        Ok((self.tally, elapsed, spent))
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
