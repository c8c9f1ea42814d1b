//! A stream of a fixed amount: how long it takes and how much each end computes for it.

use serde_json::{Value, json};

use super::{CHUNK_SIZE, INBOX_SIZE};
use crate::clock;
use crate::error::LabError;
use crate::peer::{Options, Ready};
use crate::transport::{Kind, Transport, send_all};

pub fn receive(transport: &dyn Transport, options: &Options, ready: Ready) -> Result<Value, LabError> {
    let listener =
        transport.listen(options.address, Kind::Stream).map_err(LabError::connection("listening"))?;
    ready()?;
    let connection = listener.accept().map_err(LabError::connection("accepting"))?;
    let cost = Cost::start();
    let (mut inbox, mut missing) = (vec![0; INBOX_SIZE], options.bytes);
    while missing > 0 {
        let length = connection.receive(&mut inbox).map_err(LabError::connection("receiving"))?;
        if length == 0 {
            let ended = std::io::Error::other(format!("the sender ended, owing {missing} bytes"));
            return Err(LabError::connection("receiving")(ended));
        }
        missing = missing.saturating_sub(length as u64);
    }
    let report = cost.report(options.bytes);
    // Both ends' costs count until the bytes are there, and not until a library notices that nobody is.
    connection.send(b"!").map_err(LabError::connection("answering"))?;
    crate::hold(connection);
    Ok(report)
}

pub fn send(transport: &dyn Transport, options: &Options) -> Result<Value, LabError> {
    let connection =
        transport.connect(options.address, Kind::Stream).map_err(LabError::connection("connecting"))?;
    let cost = Cost::start();
    let (chunk, mut missing) = (vec![b'x'; CHUNK_SIZE], options.bytes);
    while missing > 0 {
        let part = missing.min(CHUNK_SIZE as u64) as usize;
        send_all(&*connection, &chunk[..part]).map_err(LabError::connection("sending"))?;
        missing -= part as u64;
    }
    connection.receive(&mut [0]).map_err(LabError::connection("waiting for the answer"))?;
    Ok(cost.report(options.bytes))
}

/// What something costs this process, from its start.
struct Cost {
    time: u64,
    cpu: u64,
}

impl Cost {
    fn start() -> Self {
        Cost { time: clock::now(), cpu: clock::process_cpu() }
    }

    fn report(&self, bytes: u64) -> Value {
        let seconds = (clock::now() - self.time) as f64 / 1e9;
        let cpu_seconds = (clock::process_cpu() - self.cpu) as f64 / 1e9;
        json!({ "bytes": bytes, "seconds": seconds, "cpu_seconds": cpu_seconds })
    }
}
