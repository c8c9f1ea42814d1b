//! The stages of a run: write the keys, warm up, measure. They happen in a thread of their own, whose CPU and
//! place among the CPUs are the load's alone; who called is told how it goes, and may stop it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::address::Address;
use crate::connection::{Connection, Load};
use crate::cpu::{self, Meter};
use crate::error::LoadError;
use crate::measure::Window;
use crate::oneshot::{self, Caller};
use crate::options::Options;
use crate::report::Report;
use crate::traffic::Traffic;
use crate::{closed, open};

/// Writes in flight while keys are written, and bytes of them: enough to keep a server busy.
const FILL_DEPTH: usize = 64;
const FILL_SIZE: usize = 1 << 20;

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

/// How far a run is. Comes about ten times a second.
#[derive(Debug)]
pub struct Progress<'a> {
    /// What it is doing.
    pub stage: Stage,
    /// How much of that is done, from 0 to 1.
    pub share: f64,
    /// Requests answered in this stage.
    pub requests: u64,
    stopped: &'a AtomicBool,
}

impl Progress<'_> {
    /// Ends the run soon, with [`LoadError::Stopped`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// The thread's link to who called.
#[derive(Debug)]
pub struct Control<'a> {
    /// The server's, for people.
    pub address: String,
    stopped: &'a AtomicBool,
    progress: SyncSender<(Stage, f64, u64)>,
}

impl Control<'_> {
    /// Tells how far a stage is, unless nobody listens at the moment.
    pub fn tell(&self, stage: Stage, share: f64, requests: u64) -> Result<(), LoadError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(LoadError::Stopped);
        }
        let _ = self.progress.try_send((stage, share, requests)); // a full queue: the last word is not read yet
        Ok(())
    }
}

/// Loads a server and measures it. Blocks until that is over; meanwhile `progress` is called in this thread.
///
/// # Errors
/// An option is out of range, the server cannot be reached, goes away, stalls or speaks another protocol, the
/// system refuses a resource, or `progress` stopped the run.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Report, LoadError> {
    let address = options.check()?;
    let stopped = AtomicBool::new(false);
    let (sender, receiver) = sync_channel(1);
    let control = Control { address: options.address.clone(), stopped: &stopped, progress: sender };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("load".into());
        let work = move || stages(options, &address, &control);
        let thread = builder.spawn_scoped(scope, work).map_err(LoadError::system("a thread"))?;
        // The queue ends with the thread that owns its other side.
        for (stage, share, requests) in receiver {
            progress(Progress { stage, share, requests, stopped: &stopped });
        }
        thread.join().map_err(|_| LoadError::Panicked)?
    })
}

fn stages(options: &Options, address: &Address, control: &Control<'_>) -> Result<Report, LoadError> {
    if let Some(cpu) = options.cpu {
        cpu::pin(cpu)?;
    }
    if options.prefill {
        prefill(options, address, control)?;
    }
    let (traffic, meter) = (Traffic::new(options), Meter::new(&options.pids));
    let window = Window::open(control, meter, options.warmup_seconds, options.seconds)?;
    let mut load = Load::new(traffic, window);
    let unanswered = if options.one_shot {
        let caller = Caller::new(address, &options.address, load.traffic.checked_size());
        match options.connections {
            1 => oneshot::one(&mut load, caller)?,
            count => oneshot::many(&mut load, caller, count)?,
        }
        0
    } else {
        keep_busy(options, address, &mut load)?
    };
    let (tally, elapsed, spent) = load.window.close()?;
    Ok(Report::new(tally, unanswered, elapsed, spent))
}

/// Loads the server over connections that stay. Returns how many requests were left without an answer that were
/// due one.
fn keep_busy(options: &Options, address: &Address, load: &mut Load<'_>) -> Result<u64, LoadError> {
    let wire = load.traffic.wire();
    let open = |_| Connection::open(address, &options.address, wire);
    let mut connections = (0..options.connections).map(open).collect::<Result<Vec<_>, _>>()?;
    let depth = options.depth;
    match connections.as_mut_slice() {
        all if options.rate > 0 => return open::run(load, all, depth, options.rate),
        [single] => closed::one(load, single, depth)?,
        all => closed::many(load, all, depth)?,
    }
    Ok(0)
}

/// Writes every key once.
fn prefill(options: &Options, address: &Address, control: &Control<'_>) -> Result<(), LoadError> {
    let kept = Options { one_shot: false, ..options.clone() };
    let traffic = Traffic::new(&kept);
    let mut connection = Connection::open(address, &options.address, traffic.wire())?;
    let depth = (FILL_SIZE / traffic.set_size()).clamp(1, FILL_DEPTH) as u64;
    let mut load = Load::new(traffic, Window::fill(control, options.keys)?);
    for start in (0..options.keys).step_by(depth as usize) {
        connection.fill(&mut load, start..options.keys.min(start + depth))?;
        while connection.is_waiting() {
            connection.wait(&mut load)?;
            let now = load.window.clock.now();
            if load.window.is_over(now)? {
                return Err(LoadError::option(
                    "keys",
                    "the server did not take them within 600 s: take fewer",
                ));
            }
        }
        if let Some(reply) = load.window.tally.first_error.take() {
            return Err(LoadError::Refused { what: "a write", reply });
        }
    }
    Ok(())
}
