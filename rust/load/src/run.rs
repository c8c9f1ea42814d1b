//! The stages of a run: write the keys, warm up, measure. They happen in a thread of their own, whose CPU and
//! place among the CPUs are the load's alone; who called is told how it goes, and may stop it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use crate::address::Address;
use crate::connection::{Connection, Load};
use crate::cpu::{self, Meter};
use crate::error::LoadError;
use crate::measure::{Control, Stage, Window};
use crate::oneshot::{self, Caller};
use crate::options::Options;
use crate::report::Report;
use crate::traffic::Traffic;
use crate::{closed, open};

/// Writes in flight while keys are written, and bytes of them: enough to keep a server busy.
const FILL_DEPTH: usize = 64;
const FILL_SIZE: usize = 1 << 20;

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
    let traffic = Traffic::new(options);
    let mut connections = match options.one_shot {
        true => Vec::new(),
        false => connect(options, address, &traffic)?,
    };
    let meter = Meter::new(&options.pids);
    let window = Window::open(control, meter, options.warmup_seconds, options.seconds)?;
    let mut load = Load::new(traffic, window);
    let caller = Caller::new(address, &options.address, load.traffic.checked_size());
    let (depth, mut unanswered) = (options.depth, 0);
    match connections.as_mut_slice() {
        [] if options.connections == 1 => oneshot::one(&mut load, caller)?,
        [] => oneshot::many(&mut load, caller, options.connections)?,
        all if options.rate > 0 => unanswered = open::run(&mut load, all, depth, options.rate)?,
        [single] => closed::one(&mut load, single, depth)?,
        all => closed::many(&mut load, all, depth)?,
    }
    let (tally, elapsed, spent) = load.window.close()?;
    Ok(Report::new(tally, unanswered, elapsed, spent))
}

fn connect(options: &Options, address: &Address, traffic: &Traffic) -> Result<Vec<Connection>, LoadError> {
    let open = |_| Connection::open(address, &options.address, traffic.wire());
    (0..options.connections).map(open).collect()
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::protocol::Protocol;
    use crate::server::{Fault, Server};

    fn options(server: &Server, protocol: Protocol) -> Options {
        let address = server.address();
        let (seconds, warmup_seconds, keys) = (0.05, 0.01, 500);
        Options { address, protocol, seconds, warmup_seconds, keys, connections: 3, ..Options::default() }
    }

    fn load(options: Options) -> Result<Report, LoadError> {
        run(&options, &mut |_| ())
    }

    /// Again, until something was answered while it was measured: a busy machine may take longer than a run.
    fn loaded(options: &Options) -> Report {
        let mut reports = (0..1000).map(|_| load(options.clone()).unwrap());
        reports.find(|report| report.requests > 0).expect("nothing is ever answered")
    }

    /// Runs with each protocol and one or several connections; every reply must be right.
    fn all_is_well(fault: Fault, change: fn(&mut Options)) {
        for protocol in Protocol::ALL {
            let server = Server::start(protocol, fault);
            for connections in [1, 3] {
                let mut options = Options { prefill: true, connections, ..options(&server, protocol) };
                change(&mut options);
                let report = loaded(&options);
                let wrong = (report.misses, report.bad, report.errors, report.first_error);
                assert_eq!(wrong, (0, 0, 0, None), "{protocol} {connections}");
                assert!(report.latency.min > 0 && report.latency.p50 <= report.latency.max);
            }
        }
    }

    #[test]
    fn a_closed_loop() {
        all_is_well(Fault::None, |options| (options.depth, options.reads) = (4, 50));
    }

    #[test]
    fn replies_in_pieces() {
        all_is_well(Fault::ByteByByte, |options| (options.depth, options.reads) = (3, 50));
    }

    #[test]
    fn values_larger_than_every_buffer() {
        all_is_well(Fault::None, |options| {
            (options.keys, options.value_size, options.depth, options.reads) = (10, 1_000_000, 4, 50);
        });
    }

    #[test]
    fn values_smaller_than_their_keys() {
        for value_size in [0, 1, 15] {
            let server = Server::start(Protocol::Resp, Fault::None);
            let report =
                load(Options { prefill: true, value_size, ..options(&server, Protocol::Resp) }).unwrap();
            assert_eq!((report.misses, report.bad, report.errors), (0, 0, 0), "{value_size}");
        }
    }

    #[test]
    fn a_connection_for_each_request() {
        all_is_well(Fault::None, |options| (options.one_shot, options.reads) = (true, 50));
    }

    #[test]
    fn a_rate_is_kept() {
        for protocol in Protocol::ALL {
            let (server, start) = (Server::start(protocol, Fault::None), Instant::now());
            let options = Options { seconds: 0.2, prefill: true, depth: 2, ..options(&server, protocol) };
            let report = load(Options { rate: 1000, ..options }).unwrap();
            let due = (report.requests + report.unanswered) as f64;
            assert!((195.0..start.elapsed().as_secs_f64() * 1000.0).contains(&due), "{due}");
            assert_eq!((report.misses, report.bad, report.errors), (0, 0, 0));
        }
    }

    #[test]
    fn a_stall_counts_from_when_requests_were_due() {
        let server = Server::start(Protocol::Resp, Fault::Silent);
        let options = options(&server, Protocol::Resp);
        let report = load(Options { seconds: 0.2, warmup_seconds: 0.0, rate: 1000, ..options }).unwrap();

        assert_eq!(report.requests, 0);
        // One was due each millisecond: the first waited for all of the run, half of them half as long.
        let (count, latency) = (report.unanswered, report.latency);
        assert!(count >= 199 && latency.max.abs_diff(count * 1_000_000) < 2_000_000, "{count} {latency:?}");
        assert!(latency.p50.abs_diff(latency.max / 2) < latency.max / 50, "{latency:?}");
    }

    #[test]
    fn what_is_not_there_is_missed() {
        for (protocol, one_shot) in Protocol::ALL.into_iter().flat_map(|one| [(one, false), (one, true)]) {
            let server = Server::start(protocol, Fault::None);
            let report = loaded(&Options { one_shot, ..options(&server, protocol) });
            assert_eq!((report.requests - report.misses, report.bad, report.errors), (0, 0, 0), "{protocol}");
        }
    }

    #[test]
    fn values_of_other_keys_are_bad() {
        for (protocol, one_shot) in Protocol::ALL.into_iter().flat_map(|one| [(one, false), (one, true)]) {
            let server = Server::start(protocol, Fault::OtherKey);
            let report = load(Options { one_shot, prefill: true, ..options(&server, protocol) }).unwrap();
            assert_eq!((report.requests - report.bad, report.misses, report.errors), (0, 0, 0), "{protocol}");
        }
    }

    #[test]
    fn refusals_are_errors() {
        for (protocol, one_shot) in Protocol::ALL.into_iter().flat_map(|one| [(one, false), (one, true)]) {
            let server = Server::start(protocol, Fault::Refuses);
            let writes = Options { one_shot, reads: 0, ..options(&server, protocol) };
            let report = loaded(&writes);
            assert_eq!((report.requests - report.errors, report.bad, report.misses), (0, 0, 0), "{protocol}");
            assert!(report.first_error.is_some());
            let error = load(Options { prefill: true, ..writes }).unwrap_err();
            assert!(matches!(error, LoadError::Refused { .. }), "{error}");
        }
    }

    #[test]
    fn a_server_that_leaves() {
        let server = Server::start(Protocol::Resp, Fault::Leaves(100));
        let error = load(Options { seconds: 60.0, ..options(&server, Protocol::Resp) }).unwrap_err();
        assert!(matches!(error, LoadError::Closed { .. }), "{error}");

        let report = load(Options { one_shot: true, ..options(&server, Protocol::Resp) }).unwrap();
        assert_eq!((report.errors, report.requests - report.misses), (0, 0));
        let leaves = Server::start(Protocol::Resp, Fault::Leaves(0));
        let report = loaded(&Options { one_shot: true, ..options(&leaves, Protocol::Resp) });
        assert_eq!(report.errors, report.requests);
        assert!(report.first_error.unwrap().contains("ended within"));
    }

    #[test]
    fn a_server_of_another_protocol() {
        for (protocol, reads) in Protocol::ALL.into_iter().flat_map(|one| [(one, 0), (one, 100)]) {
            let server = Server::start(protocol, Fault::Foreign);
            let error = load(Options { reads, seconds: 60.0, ..options(&server, protocol) }).unwrap_err();
            assert!(matches!(error, LoadError::Broken { .. }), "{error}");
            assert!(
                error.to_string().contains(protocol.name()) && error.to_string().contains("what?"),
                "{error}"
            );
        }
    }

    #[test]
    fn nobody_is_there() {
        let error = load(Options { address: "/nowhere/at/all".into(), ..Options::default() }).unwrap_err();
        assert!(matches!(error, LoadError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn a_run_can_be_watched_and_stopped() {
        let server = Server::start(Protocol::Resp, Fault::None);
        let options = Options { seconds: 600.0, ..options(&server, Protocol::Resp) };
        let mut seen = Vec::new();
        let result = run(&options, &mut |progress| {
            assert!((0.0..=1.0).contains(&progress.share));
            seen.push(progress.stage);
            if progress.stage == Stage::Measure {
                progress.stop();
            }
        });
        assert!(matches!(result, Err(LoadError::Stopped)));
        assert_eq!(seen.last(), Some(&Stage::Measure));
    }

    #[test]
    fn the_server_pays() {
        let server = Server::start(Protocol::Resp, Fault::None);
        let pids = vec![std::process::id()];
        let report = load(Options { pids, ..options(&server, Protocol::Resp) }).unwrap();
        // How much is not certain here: the threads of other tests end meanwhile, and take their time along.
        assert!(report.server_us_per_request.is_some() && report.server_cpu.is_some());
        assert!(report.other_cpu.is_some());

        let gone = Options { pids: vec![u32::MAX], ..options(&server, Protocol::Resp) };
        assert!(matches!(load(gone), Err(LoadError::System { .. })));
    }
}
