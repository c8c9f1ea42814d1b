//! Messages at a pace: how long each takes, one way. An open loop: the pace does not wait for the transport.

use serde_json::{Value, json};

use crate::clock;
use crate::error::LabError;
use crate::latency::Times;
use crate::peer::{Options, Ready};
use crate::transport::{Class, Connection, Kind, Transport};

/// Bytes at the front of a message: when its time began, and its number.
pub const STAMP_SIZE: usize = 16;

pub fn receive(transport: &dyn Transport, options: &Options, ready: Ready) -> Result<Value, LabError> {
    let listener =
        transport.listen(options.address, Kind::Messages).map_err(LabError::connection("listening"))?;
    ready()?;
    let connection = listener.accept().map_err(LabError::connection("accepting"))?;
    let (mut arrivals, mut inbox) = (Arrivals::new()?, vec![0; options.size]);
    while arrivals.count < options.messages() {
        let length = connection.receive_message(&mut inbox).map_err(LabError::connection("receiving"))?;
        arrivals.enter(&inbox[..length])?;
    }
    crate::hold(connection);
    Ok(arrivals.report())
}

pub fn send(transport: &dyn Transport, options: &Options) -> Result<Value, LabError> {
    let connection =
        transport.connect(options.address, Kind::Messages).map_err(LabError::connection("connecting"))?;
    send_at_pace(&*connection, options)?;
    crate::hold(connection);
    Ok(json!({ "messages": options.messages() }))
}

/// Sends the messages of a run.
///
/// A message's time begins when it was due, if the transport held up the one before until then; else when
/// this thread had woken up for it, since a late timer is not the transport's doing.
pub fn send_at_pace(connection: &dyn Connection, options: &Options) -> Result<(), LabError> {
    let mut message = vec![b'x'; options.size];
    let start = clock::now();
    for number in 0..options.messages() {
        let due = start + number * options.gap_us * 1000;
        let began = if clock::now() > due && number > 0 {
            due
        } else {
            clock::wait_until(due)?;
            clock::now()
        };
        message[..8].copy_from_slice(&began.to_le_bytes());
        message[8..STAMP_SIZE].copy_from_slice(&number.to_le_bytes());
        connection.send_message(&message, Class::Urgent).map_err(LabError::connection("sending"))?;
    }
    Ok(())
}

/// What has come of the messages of a run.
pub struct Arrivals {
    pub count: u64,
    times: Times,
    last: u64,
    out_of_order: u64,
}

impl Arrivals {
    pub fn new() -> Result<Self, LabError> {
        Ok(Arrivals { count: 0, times: Times::new()?, last: 0, out_of_order: 0 })
    }

    /// Enters a message that has just come.
    pub fn enter(&mut self, message: &[u8]) -> Result<(), LabError> {
        let now = clock::now();
        let (Some((began, rest)), true) = (message.split_first_chunk(), message.len() >= STAMP_SIZE) else {
            let short = std::io::Error::other(format!("a message of {} bytes came", message.len()));
            return Err(LabError::connection("receiving")(short));
        };
        let mut number = [0; 8];
        number.copy_from_slice(&rest[..8]);
        let number = u64::from_le_bytes(number);
        self.times.enter(now.saturating_sub(u64::from_le_bytes(*began)));
        self.out_of_order += u64::from(number < self.last);
        self.last = number;
        self.count += 1;
        Ok(())
    }

    pub fn report(&self) -> Value {
        json!({ "latency_us": self.times.latency(), "out_of_order": self.out_of_order })
    }
}
