//! A load generator for key-value servers on this machine: turbopump, Redis, memcached. One thread asks,
//! checks every reply and tells how long each took, how many came a second, and what they cost the server
//! in CPU. Not a client library, and nothing for other machines: it refuses an address that is neither a
//! unix socket nor loopback.
//!
//! Reading order: `options` (what is asked for), `run` (the stages of a run), then the ways to keep a
//! server busy: `closed` (the next request when the last is answered), `open` (at a rate, whatever the
//! answers do) and `oneshot` (a connection for each request). They drive `connection`s; `traffic` chooses
//! requests and `template` writes them, `protocol` knows the wires, `measure` counts and times, `cpu` looks
//! up who computed, `report` sums up.
//!
//! ```no_run
//! use turbopump_load::{Options, run};
//!
//! let options = Options { address: "/tmp/turbopump".into(), depth: 16, ..Options::default() };
//! let report = run(&options, &mut |progress| println!("{progress:?}"))?;
//! println!("{:.0} requests/s, p99 {} ns", report.rate, report.latency.p99);
//! # Ok::<(), turbopump_load::LoadError>(())
//! ```

mod address;
mod closed;
mod connection;
mod cpu;
mod error;
mod measure;
mod oneshot;
mod open;
mod options;
mod poll;
mod protocol;
mod report;
mod run;
#[cfg(test)]
mod server;
mod template;
mod traffic;

pub use error::LoadError;
pub use measure::Stage;
pub use options::{Options, RUN_SECONDS_MAX};
pub use protocol::Protocol;
pub use report::{Latency, Point, Report};
pub use run::{Progress, run};
