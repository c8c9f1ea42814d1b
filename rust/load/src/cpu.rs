//! Who computed: the server's processes, this thread, and everybody else on the machine. A server's CPU
//! time per request is the figure that survives noisy neighbours; the others' time tells how noisy they
//! were.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::LoadError;

/// /proc/stat counts in hundredths of a second on every architecture of Linux.
const TICK_NS: u64 = 10_000_000;

/// CPU time used while a meter ran.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// The server's, in nanoseconds; `None` when its processes are not known.
    pub server_ns: Option<u64>,
    /// This thread's, in CPUs.
    pub client: f64,
    /// Everybody else's, in CPUs; `None` when the server's is not known.
    pub other: Option<f64>,
}

/// Measures CPU time between `start` and `stop`.
#[derive(Debug)]
pub struct Meter {
    pids: Vec<u32>,
    server: u64,
    client: u64,
    machine: u64,
}

impl Meter {
    pub fn new(pids: &[u32]) -> Self {
        Meter { pids: pids.to_vec(), server: 0, client: 0, machine: 0 }
    }

    pub fn start(&mut self) -> Result<(), LoadError> {
        (self.server, self.client, self.machine) = (server_ns(&self.pids)?, thread_ns()?, machine_ns()?);
        Ok(())
    }

    pub fn stop(&self, elapsed: Duration) -> Result<Spent, LoadError> {
        let known = !self.pids.is_empty();
        let client_ns = thread_ns()?.saturating_sub(self.client);
        let server_ns = server_ns(&self.pids)?.saturating_sub(self.server);
        let machine_ns = machine_ns()?.saturating_sub(self.machine);
        let cpus = |nanoseconds: u64| nanoseconds as f64 / elapsed.as_nanos().max(1) as f64;
        Ok(Spent {
            server_ns: known.then_some(server_ns),
            client: cpus(client_ns),
            other: known.then_some(cpus(machine_ns.saturating_sub(client_ns + server_ns))),
        })
    }
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: usize) -> Result<(), LoadError> {
    let too_many = LoadError::option("cpu", format!("there is no CPU {cpu} on this machine"));
    if cpu >= CpuSet::MAX_CPU {
        return Err(too_many);
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|_| too_many)
}

/// What the threads of some processes have run, in nanoseconds.
fn server_ns(pids: &[u32]) -> Result<u64, LoadError> {
    let mut total = 0;
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        total += process_ns(tasks.as_ref()).map_err(LoadError::system(tasks))?;
    }
    Ok(total)
}

fn process_ns(tasks: &Path) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(tasks)? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => total += first_number(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // a thread that has just ended
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// `schedstat` is: nanoseconds on a CPU, nanoseconds waiting for one, times on a CPU.
fn first_number(text: &str) -> io::Result<u64> {
    let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
    number.ok_or_else(|| io::Error::other("schedstat begins with no number"))
}

fn thread_ns() -> Result<u64, LoadError> {
    let path = "/proc/thread-self/schedstat";
    fs::read_to_string(path).and_then(|text| first_number(&text)).map_err(LoadError::system(path))
}

/// What all CPUs together have run, in nanoseconds.
fn machine_ns() -> Result<u64, LoadError> {
    let text = fs::read_to_string("/proc/stat").map_err(LoadError::system("/proc/stat"))?;
    Ok(busy_ticks(&text) * TICK_NS)
}

/// The first line of `/proc/stat` is: cpu user nice system idle iowait irq softirq steal.
fn busy_ticks(text: &str) -> u64 {
    let ticks = text.split_whitespace().skip(1).take(8).map_while(|word| word.parse::<u64>().ok());
    ticks.enumerate().filter(|(column, _)| !matches!(column, 3 | 4)).map(|(_, ticks)| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 5 5"), 63);
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000"), 7);
        assert_eq!(first_number("123 4 5\n").unwrap(), 123);
    }

    #[test]
    fn this_process_computes() {
        let mut meter = Meter::new(&[]);
        meter.start().unwrap();
        let mut x = 0u64;
        while thread_ns().unwrap() - meter.client < 20_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let spent = meter.stop(Duration::from_millis(20)).unwrap();
        assert!(spent.client >= 0.9, "{spent:?}");
        let own = thread_ns().unwrap();
        assert!(server_ns(&[std::process::id()]).unwrap() >= own);
    }

    #[test]
    fn nobody_known_is_not_nothing_used() {
        let mut meter = Meter::new(&[]);
        meter.start().unwrap();
        let spent = meter.stop(Duration::from_millis(1)).unwrap();
        assert!(spent.server_ns.is_none() && spent.other.is_none());
        assert!(matches!(Meter::new(&[u32::MAX]).start(), Err(LoadError::System { .. })));
    }

    #[test]
    fn a_cpu_that_is_not_there() {
        assert!(matches!(pin(usize::MAX), Err(LoadError::Option { name: "cpu", .. })));
        assert!(matches!(pin(1023), Err(LoadError::Option { name: "cpu", .. })));
    }
}
