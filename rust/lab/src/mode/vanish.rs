//! A peer that vanishes: whoever starts the two cuts the link and kills the receiver, and the sender says
//! when it noticed.

use serde_json::{Value, json};

use super::{CHUNK_SIZE, INBOX_SIZE};
use crate::clock;
use crate::error::LabError;
use crate::peer::{Options, Ready};
use crate::transport::{Kind, Transport};

pub fn receive(transport: &dyn Transport, options: &Options, ready: Ready) -> Result<Value, LabError> {
    let listener =
        transport.listen(options.address, Kind::Stream).map_err(LabError::connection("listening"))?;
    ready()?;
    let connection = listener.accept().map_err(LabError::connection("accepting"))?;
    let mut inbox = vec![0; INBOX_SIZE];
    while connection.receive(&mut inbox).map_err(LabError::connection("receiving"))? > 0 {}
    Ok(json!({}))
}

pub fn send(transport: &dyn Transport, options: &Options) -> Result<Value, LabError> {
    let connection =
        transport.connect(options.address, Kind::Stream).map_err(LabError::connection("connecting"))?;
    let chunk = vec![b'x'; CHUNK_SIZE];
    loop {
        if let Err(error) = connection.send(&chunk) {
            return Ok(json!({ "noticed_ns": clock::now(), "said": error.to_string() }));
        }
    }
}
