//! A peer: one end of a measurement, in a process of its own. Both ends are given the same options; one
//! receives and the other sends.

use std::net::SocketAddrV4;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::error::LabError;
use crate::transport::{self, Transport};
use crate::{clock, mode, namespace, process};

/// A run that nobody ends must end.
const SECONDS_MAX: f64 = 3600.0;
/// UDT takes no message that is larger than its buffer of 8192 packets.
const SIZE_MAX: usize = 8 << 20;
const CLIENTS_MAX: usize = 1000;

/// A measurement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// One of [`transport::NAMES`].
    pub transport: String,
    /// What is measured.
    pub mode: Mode,
    /// Where the receiver listens.
    pub address: SocketAddrV4,
    /// The network namespace of this end; without it that of whoever starts it.
    pub namespace: Option<String>,
    /// How long is measured.
    #[serde(default)]
    pub seconds: f64,
    /// `bytes`: how many are sent.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes of a message.
    #[serde(default)]
    pub size: usize,
    /// Between a message and the next, in an open loop.
    #[serde(default)]
    pub gap_us: u64,
    /// `request-reply`: connections, each with one request on its way.
    #[serde(default)]
    pub clients: usize,
    /// `beside`: whether the messages share the stream's connection.
    #[serde(default)]
    pub same_connection: bool,
    /// An end that is still there after so long fails.
    pub limit_seconds: f64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A stream for a time: goodput.
    Bulk,
    /// A stream of an amount: what it costs.
    Bytes,
    /// Messages at a pace: how long each takes, one way.
    Messages,
    /// Requests, each when the last is answered: round trips.
    RequestReply,
    /// Messages at a pace while a stream runs.
    Beside,
    /// A stream whose receiver is killed: when the sender notices.
    Vanish,
}

/// Which end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It listens.
    Receive,
    /// It connects.
    Send,
}

impl Options {
    /// Refuses what cannot be measured.
    pub fn check(&self) -> Result<(), LabError> {
        within("limit_seconds", self.limit_seconds, 0.01, SECONDS_MAX)?;
        let (timed, messages) = match self.mode {
            Mode::Bulk => (true, false),
            Mode::Bytes | Mode::Vanish => (false, false),
            Mode::Messages | Mode::RequestReply | Mode::Beside => (true, true),
        };
        if timed {
            within("seconds", self.seconds, 0.01, SECONDS_MAX)?;
        }
        if messages {
            within("size", self.size, mode::messages::STAMP_SIZE, SIZE_MAX)?;
        }
        match self.mode {
            Mode::Bytes => within("bytes", self.bytes, 1, u64::MAX),
            Mode::Messages | Mode::Beside => within("gap_us", self.gap_us, 1, 1_000_000),
            Mode::RequestReply => within("clients", self.clients, 1, CLIENTS_MAX),
            Mode::Bulk | Mode::Vanish => Ok(()),
        }
    }

    /// Messages of a run with a pace.
    pub fn messages(&self) -> u64 {
        ((self.seconds * 1e6 / self.gap_us as f64) as u64).max(1)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), LabError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(LabError::option(name, format!("{value} is not between {least} and {most}")))
}

/// Something that tells the world: a listener is ready.
pub type Ready = Box<dyn FnOnce() -> Result<(), LabError> + Send>;

/// Measures at one end. `ready` is called when a receiver listens. Returns what was found, or why nothing
/// was; in time, whatever the transport does: its threads may be stuck in it.
pub fn run(role: Role, options: Options, ready: Ready) -> Result<Value, LabError> {
    options.check()?;
    process::end_with_parent()?;
    if let Some(name) = &options.namespace {
        namespace::enter(name)?;
    }
    let transport = transport::open(&options.transport)?;
    let (limit, (tell, told)) = (options.limit_seconds, sync_channel(1));
    std::thread::spawn(move || tell.send(measure(role, &*transport, &options, ready)));
    told.recv_timeout(Duration::from_secs_f64(limit)).unwrap_or(Err(LabError::Stuck { seconds: limit }))
}

fn measure(
    role: Role,
    transport: &dyn Transport,
    options: &Options,
    ready: Ready,
) -> Result<Value, LabError> {
    clock::be_punctual()?;
    match (options.mode, role) {
        (Mode::Bulk, Role::Receive) => mode::bulk::receive(transport, options, ready),
        (Mode::Bulk, Role::Send) => mode::bulk::send(transport, options),
        (Mode::Bytes, Role::Receive) => mode::bytes::receive(transport, options, ready),
        (Mode::Bytes, Role::Send) => mode::bytes::send(transport, options),
        (Mode::Messages, Role::Receive) => mode::messages::receive(transport, options, ready),
        (Mode::Messages, Role::Send) => mode::messages::send(transport, options),
        (Mode::RequestReply, Role::Receive) => mode::requests::receive(transport, options, ready),
        (Mode::RequestReply, Role::Send) => mode::requests::send(transport, options),
        (Mode::Beside, Role::Receive) => mode::beside::receive(transport, options, ready),
        (Mode::Beside, Role::Send) => mode::beside::send(transport, options),
        (Mode::Vanish, Role::Receive) => mode::vanish::receive(transport, options, ready),
        (Mode::Vanish, Role::Send) => mode::vanish::send(transport, options),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::mpsc;

    use serde_json::json;

    use super::*;

    /// One that keeps the order, and whoever tests may use.
    fn tcp() -> &'static str {
        let mut tcps = transport::NAMES.into_iter().filter(|name| name.starts_with("tcp"));
        tcps.find(|name| transport::open(name).is_ok()).unwrap()
    }

    fn options(change: Value) -> Result<Options, String> {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut all = json!({"transport": tcp(), "mode": "bulk", "limit_seconds": 20, "seconds": 0.2});
        all["address"] = json!(format!("127.0.0.1:{port}"));
        for (name, value) in change.as_object().unwrap() {
            all[name] = value.clone();
        }
        let options: Options = serde_json::from_value(all).map_err(|error| error.to_string())?;
        options.check().map(|()| options).map_err(|error| error.to_string())
    }

    /// What receiver and sender find, in threads of this process: without the arrangements of a process.
    fn both(change: Value) -> (Result<Value, LabError>, Result<Value, LabError>) {
        let options = options(change).unwrap();
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let transport = transport::open(&options.transport).unwrap();
                let ready: Ready = Box::new(move || tell.send(()).map_err(|_| unreachable!()));
                measure(Role::Receive, &*transport, &options, ready)
            });
            told.recv().unwrap();
            let transport = transport::open(&options.transport).unwrap();
            let sent = measure(Role::Send, &*transport, &options, Box::new(|| Ok(())));
            (receiver.join().unwrap(), sent)
        })
    }

    #[test]
    fn a_stream_is_counted() {
        let (received, sent) = both(json!({"mode": "bulk"}));
        let (received, sent) = (received.unwrap(), sent.unwrap());
        assert!(received["goodput_mbit"].as_f64().unwrap() > 0.0, "{received}");
        assert!(sent["bytes"].as_u64() >= received["bytes"].as_u64(), "{sent} {received}");
    }

    #[test]
    fn an_amount_arrives_and_costs() {
        let (received, sent) = both(json!({"mode": "bytes", "bytes": 50_000_000}));
        for end in [received.unwrap(), sent.unwrap()] {
            assert_eq!(end["bytes"], 50_000_000);
            assert!(end["seconds"].as_f64().unwrap() > 0.0);
            assert!(end["cpu_seconds"].as_f64().unwrap() > 0.0);
        }
    }

    #[test]
    fn messages_are_timed() {
        let (received, sent) = both(json!({"mode": "messages", "size": 512, "gap_us": 1000}));
        let received = received.unwrap();
        assert_eq!(received["latency_us"]["count"], 200);
        assert_eq!(received["out_of_order"], 0);
        assert!(received["latency_us"]["min"].as_f64().unwrap() > 0.0);
        assert_eq!(sent.unwrap()["messages"], 200);
    }

    #[test]
    fn requests_are_answered() {
        let (received, sent) = both(json!({"mode": "request-reply", "size": 512, "clients": 3}));
        let sent = sent.unwrap();
        assert!(sent["latency_us"]["count"].as_u64().unwrap() >= 3, "{sent}");
        assert_eq!(received.unwrap()["requests"], sent["latency_us"]["count"]);
    }

    #[test]
    fn a_refusal_names_the_option() {
        for (word, change) in [
            ("seconds", json!({"seconds": 0})),
            ("bytes", json!({"mode": "bytes"})),
            ("size", json!({"mode": "messages", "size": 1})),
            ("gap_us", json!({"mode": "messages", "size": 512})),
            ("clients", json!({"mode": "request-reply", "size": 512})),
            ("limit_seconds", json!({"limit_seconds": 1e9})),
            ("unknown", json!({"unknown": 1})),
            ("`none`, expected one of `bulk`", json!({"mode": "none"})),
            ("invalid IPv4 socket address", json!({"address": "here"})),
        ] {
            let error = options(change).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
