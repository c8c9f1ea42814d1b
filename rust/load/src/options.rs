//! What a run is asked to do, and whether that makes sense.

use crate::address::Address;
use crate::error::LoadError;
use crate::protocol::Protocol;
use crate::template;

/// Longest run, and longest prefill: a load that nobody watches must end.
pub const RUN_SECONDS_MAX: f64 = 600.0;
/// More connections than most servers take.
const CONNECTIONS_MAX: usize = 10_000;
/// Deeper pipelines than any client has.
const DEPTH_MAX: usize = 10_000;
/// Several times what one thread can ask.
const RATE_MAX: u64 = 10_000_000;
/// Bytes of requests that may be on their way: what a slow server leaves unread is kept here.
const IN_FLIGHT_MAX: usize = 2 << 30;

/// A run. [`Options::default`] is 50 connections that read 100-byte values for two seconds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of a unix socket, or `tcp://host:port` on loopback.
    pub address: String,
    /// What the server is spoken to.
    pub protocol: Protocol,
    /// Clients at once.
    pub connections: usize,
    /// Requests in flight on each. In a closed loop they go out together, and the next ones when all are
    /// answered.
    pub depth: usize,
    /// Different keys; each request takes any of them, all equally likely.
    pub keys: u64,
    /// Bytes of a key, from 8.
    pub key_size: usize,
    /// Bytes of a value. It begins with its key, so that a wrong one is seen.
    pub value_size: usize,
    /// Percent of requests that read; the others write.
    pub reads: u8,
    /// How long to measure.
    pub seconds: f64,
    /// How long to load before that.
    pub warmup_seconds: f64,
    /// Requests a second over all connections, sent when they are due, whatever the answers do; latency then
    /// counts from when a request was due. 0: the next request when the last is answered.
    pub rate: u64,
    /// Whether to write every key once, first.
    pub prefill: bool,
    /// Whether each request has a connection of its own, as with `nc -N`: connect, send, half-close, read to
    /// the end. Latency is all of that.
    pub one_shot: bool,
    /// Processes whose CPU time is the server's.
    pub pids: Vec<u32>,
    /// The CPU for this side; `None` leaves the choice to the system.
    pub cpu: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            address: "/tmp/turbopump".into(),
            protocol: Protocol::Resp,
            connections: 50,
            depth: 1,
            keys: 100_000,
            key_size: 16,
            value_size: 100,
            reads: 100,
            seconds: 2.0,
            warmup_seconds: 0.25,
            rate: 0,
            prefill: false,
            one_shot: false,
            pids: Vec::new(),
            cpu: None,
        }
    }
}

impl Options {
    /// Checks every option, and gives the address in the form that can be connected to.
    pub(crate) fn check(&self) -> Result<Address, LoadError> {
        let address = Address::parse(&self.address)?;
        within("connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("depth", self.depth, 1, DEPTH_MAX)?;
        within("key_size", self.key_size, template::KEY_SIZE_MIN, self.protocol.key_size_max())?;
        within("value_size", self.value_size, 0, 1 << 30)?;
        within("keys", self.keys, 1, template::keys_max(self.key_size))?;
        within("reads", self.reads, 0, 100)?;
        within("seconds", self.seconds, 0.01, RUN_SECONDS_MAX)?;
        within("warmup_seconds", self.warmup_seconds, 0.0, RUN_SECONDS_MAX)?;
        within("rate", self.rate, 0, RATE_MAX)?;
        self.check_together()?;
        Ok(address)
    }

    fn check_together(&self) -> Result<(), LoadError> {
        if self.one_shot && self.depth > 1 {
            return Err(LoadError::option(
                "depth",
                "a connection for each request has one in flight: leave it at 1",
            ));
        }
        if self.one_shot && self.rate > 0 {
            return Err(LoadError::option(
                "rate",
                "a connection for each request is a closed loop: leave it at 0",
            ));
        }
        let request = self.value_size + 2 * self.key_size + 64;
        let in_flight = self.connections.saturating_mul(self.depth).saturating_mul(request);
        if in_flight > IN_FLIGHT_MAX {
            let problem =
                format!("{in_flight} bytes of requests would be in flight, {IN_FLIGHT_MAX} at most: lower");
            return Err(LoadError::option("value_size", format!("{problem} it, connections or depth")));
        }
        Ok(())
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), LoadError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(LoadError::option(name, format!("{value} is not between {least} and {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of options, and the option that the refusal must name.
    type Case = (&'static str, fn(&mut Options));

    const WRONG: [Case; 13] = [
        ("address", |o| o.address = "tcp://192.0.2.1:1".into()),
        ("connections", |o| o.connections = 0),
        ("depth", |o| o.depth = 10_001),
        ("key_size", |o| o.key_size = 7),
        ("key_size", |o| (o.protocol, o.key_size) = (Protocol::Memcached, 251)),
        ("keys", |o| (o.key_size, o.keys) = (8, 10_000_001)),
        ("reads", |o| o.reads = 101),
        ("seconds", |o| o.seconds = f64::NAN),
        ("seconds", |o| o.seconds = 601.0),
        ("rate", |o| o.rate = u64::MAX),
        ("depth", |o| (o.one_shot, o.depth) = (true, 2)),
        ("rate", |o| (o.one_shot, o.rate) = (true, 2)),
        ("value_size", |o| (o.value_size, o.depth) = (1 << 30, 16)),
    ];

    #[test]
    fn a_refusal_names_the_option() {
        assert!(Options::default().check().is_ok());

        for (expected, change) in WRONG {
            let mut options = Options::default();
            change(&mut options);
            let error = options.check().unwrap_err();
            assert!(matches!(error, LoadError::Option { name, .. } if name == expected), "{error}");
            assert!(error.to_string().starts_with(expected));
        }
    }
}
