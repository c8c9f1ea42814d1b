//! A laboratory for transports: a link between two network namespaces, and peers that measure over it, each a
//! process of its own. It reports JSON; `loadtests/transport.py` makes namespaces, starts processes and draws
//! conclusions. No part of a node.

mod clock;
mod emulator;
mod error;
mod latency;
pub mod link;
mod mode;
mod namespace;
mod peer;
mod process;
mod transport;

use std::io::{Write, stdout};
use std::mem::ManuallyDrop;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use error::LabError;

const USAGE: &str = "usage: turbopump-lab transports
       turbopump-lab link OPTIONS      join two network namespaces until SIGTERM
       turbopump-lab receive OPTIONS   one end of a measurement
       turbopump-lab send OPTIONS      the other; it is given the same options
OPTIONS are JSON, such as:
  {\"namespaces\": [\"a\", \"b\"], \"device\": \"wire\", \"limit_seconds\": 60,
   \"there\": {\"rate_mbit\": 100, \"queue_bytes\": 250000, \"delay_us\": 10000, \"loss_percent\": 0.1}}
  {\"transport\": \"udt\", \"mode\": \"bulk\", \"address\": \"127.0.0.1:9000\", \"seconds\": 5,
   \"limit_seconds\": 20}
A line of JSON says when packets can pass or a receiver listens; the next is the report.";

/// Does what a command line asks for. An end of a measurement stays after its report until it is ended, since
/// some libraries still have to send what they took.
pub fn run(arguments: &[String]) -> Result<(), LabError> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["transports"] => say(&transports()),
        ["link", text] => say(&emulator::run(&options(text)?, ready)?),
        ["receive", text] => measure(peer::Role::Receive, text),
        ["send", text] => measure(peer::Role::Send, text),
        _ => Err(LabError::Command(USAGE.into())),
    }
}

/// Ends the process now, with what its foreign libraries have left to do undone.
pub fn leave(code: i32) -> ! {
    process::leave(code)
}

/// Why each transport cannot be measured on this machine; null if it can.
fn transports() -> Value {
    let missing = |name| transport::open(name).err().map(|error| error.to_string());
    transport::NAMES
        .map(|name| (name.to_owned(), json!(missing(name))))
        .into_iter()
        .collect::<Map<_, _>>()
        .into()
}

fn measure(role: peer::Role, text: &str) -> Result<(), LabError> {
    let options: peer::Options = options(text)?;
    let limit = clock::now() + clock::seconds(options.limit_seconds);
    say(&peer::run(role, options, Box::new(ready))?)?;
    clock::wait_until(limit)
}

fn options<T: DeserializeOwned>(text: &str) -> Result<T, LabError> {
    serde_json::from_str(text).map_err(|error| LabError::Command(format!("OPTIONS: {error}")))
}

fn ready() -> Result<(), LabError> {
    say(&json!({ "ready": true }))
}

fn say(report: &impl Serialize) -> Result<(), LabError> {
    let mut line =
        serde_json::to_vec(report).map_err(std::io::Error::from).map_err(LabError::system("JSON"))?;
    line.push(b'\n');
    stdout().write_all(&line).map_err(LabError::system("stdout"))
}

/// Leaves something open until the process ends: closing a connection may wait for its peer, for minutes.
fn hold<T>(it: T) {
    let _ = ManuallyDrop::new(it);
}
