//! Messages at a pace while a stream runs: how much longer each takes because of the stream. On one
//! connection the stream is made of large messages, so that a small one need not wait for all of it; on two,
//! the other connection's port is the next one.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::messages::{Arrivals, send_at_pace};
use super::{CHUNK_SIZE, INBOX_SIZE};
use crate::clock;
use crate::error::LabError;
use crate::peer::{Options, Ready};
use crate::transport::{Class, Connection, Kind, Transport};

/// Bytes of the stream's messages on a shared connection.
const PART_SIZE: usize = 1 << 20;
/// The stream has so long to fill the path before the messages begin, in nanoseconds.
const START_NS: u64 = 2_000_000_000;

pub fn receive(transport: &dyn Transport, options: &Options, ready: Ready) -> Result<Value, LabError> {
    let listen = |address, kind| transport.listen(address, kind).map_err(LabError::connection("listening"));
    let messages = listen(options.address, Kind::Messages)?;
    let stream = match shared(transport, options)? {
        true => None,
        false => Some(listen(next_port(options.address), Kind::Stream)?),
    };
    ready()?;
    let connection = messages.accept().map_err(LabError::connection("accepting"))?;
    let streamed = Arc::new(AtomicU64::new(0));
    if let Some(stream) = stream {
        let connection = stream.accept().map_err(LabError::connection("accepting"))?;
        let streamed = Arc::clone(&streamed);
        thread::spawn(move || drain(&*connection, &streamed));
    }
    let start = clock::now();
    let (mut arrivals, mut inbox) = (Arrivals::new()?, vec![0; PART_SIZE.max(options.size)]);
    while arrivals.count < options.messages() {
        let length = connection.receive_message(&mut inbox).map_err(LabError::connection("receiving"))?;
        if length == options.size {
            arrivals.enter(&inbox[..length])?;
        } else {
            streamed.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
    let seconds = (clock::now() - start) as f64 / 1e9;
    let mut report = arrivals.report();
    report["stream_mbit"] = json!(streamed.load(Ordering::Relaxed) as f64 * 8.0 / seconds / 1e6);
    crate::hold(connection);
    Ok(report)
}

pub fn send(transport: &dyn Transport, options: &Options) -> Result<Value, LabError> {
    let connect =
        |address, kind| transport.connect(address, kind).map_err(LabError::connection("connecting"));
    let connection = connect(options.address, Kind::Messages)?;
    if shared(transport, options)? {
        let connection = Arc::clone(&connection);
        thread::spawn(move || {
            let part = vec![b'x'; PART_SIZE];
            while connection.send_message(&part, Class::Bulk).is_ok() {}
        });
    } else {
        let stream = connect(next_port(options.address), Kind::Stream)?;
        thread::spawn(move || {
            let chunk = vec![b'x'; CHUNK_SIZE];
            while stream.send(&chunk).is_ok() {}
        });
    }
    clock::wait_until(clock::now() + START_NS)?;
    send_at_pace(&*connection, options)?;
    crate::hold(connection);
    Ok(json!({ "messages": options.messages() }))
}

fn shared(transport: &dyn Transport, options: &Options) -> Result<bool, LabError> {
    if options.same_connection && !transport.has_messages() {
        let problem = format!("{} has no messages to put beside a stream", options.transport);
        return Err(LabError::option("same_connection", problem));
    }
    if options.same_connection && options.size >= PART_SIZE {
        return Err(LabError::option("size", format!("must be under {PART_SIZE} beside a stream")));
    }
    Ok(options.same_connection)
}

fn next_port(address: SocketAddrV4) -> SocketAddrV4 {
    SocketAddrV4::new(*address.ip(), address.port().wrapping_add(1))
}

fn drain(connection: &dyn Connection, streamed: &AtomicU64) {
    let mut inbox = vec![0; INBOX_SIZE];
    while let Ok(length @ 1..) = connection.receive(&mut inbox) {
        streamed.fetch_add(length as u64, Ordering::Relaxed);
    }
}
