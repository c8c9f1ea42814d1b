//! Requests and replies in a closed loop: each client asks again when it is answered, as a client of a store
//! does.

use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use crate::clock;
use crate::error::LabError;
use crate::latency::Times;
use crate::peer::{Options, Ready};
use crate::transport::{Class, Connection, Kind, Transport};

pub fn receive(transport: &dyn Transport, options: &Options, ready: Ready) -> Result<Value, LabError> {
    let listener =
        transport.listen(options.address, Kind::Messages).map_err(LabError::connection("listening"))?;
    ready()?;
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for _ in 0..options.clients {
            let connection = listener.accept().map_err(LabError::connection("accepting"))?;
            clients.push(scope.spawn(move || answer(&*connection, options.size)));
        }
        let requests: u64 = clients.into_iter().filter_map(|client| client.join().ok()).sum();
        Ok(json!({ "requests": requests }))
    })
}

/// Sends back what comes until the client leaves, which is an error to some transports. Tells how much that
/// was.
fn answer(connection: &dyn Connection, size: usize) -> u64 {
    let (mut message, mut count) = (vec![0; size], 0);
    while let Ok(length @ 1..) = connection.receive_message(&mut message) {
        if connection.send_message(&message[..length], Class::Urgent).is_err() {
            break;
        }
        count += 1;
    }
    count
}

pub fn send(transport: &dyn Transport, options: &Options) -> Result<Value, LabError> {
    let all = Mutex::new(Times::new()?);
    let connect =
        |_| transport.connect(options.address, Kind::Messages).map_err(LabError::connection("connecting"));
    let connections = (0..options.clients).map(connect).collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let clients: Vec<_> =
            connections.iter().map(|client| scope.spawn(|| ask(&**client, options, &all))).collect();
        let ended = clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Err(panicked())));
        ended.collect::<Result<(), LabError>>()
    })?;
    let latency = all.lock().unwrap_or_else(PoisonError::into_inner).latency();
    Ok(json!({ "latency_us": latency, "requests_per_second": latency.count as f64 / options.seconds }))
}

fn panicked() -> LabError {
    LabError::connection("asking")(std::io::Error::other("a client panicked"))
}

/// A client.
fn ask(connection: &dyn Connection, options: &Options, all: &Mutex<Times>) -> Result<(), LabError> {
    let (mut message, mut times) = (vec![b'x'; options.size], Times::new()?);
    let end = clock::now() + clock::seconds(options.seconds);
    loop {
        let asked = clock::now();
        if asked >= end {
            break;
        }
        connection.send_message(&message, Class::Urgent).map_err(LabError::connection("asking"))?;
        let length = connection.receive_message(&mut message).map_err(LabError::connection("waiting"))?;
        if length != options.size {
            let wrong = std::io::Error::other(format!("a reply of {length} bytes"));
            return Err(LabError::connection("waiting")(wrong));
        }
        times.enter(clock::now() - asked);
    }
    all.lock().unwrap_or_else(PoisonError::into_inner).append(&times);
    Ok(())
}
