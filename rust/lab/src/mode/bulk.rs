//! A stream for a time: what arrives, start-up included, and what arrives once the start is over.

use serde_json::{Value, json};

use super::{CHUNK_SIZE, INBOX_SIZE};
use crate::clock;
use crate::error::LabError;
use crate::peer::{Options, Ready};
use crate::transport::{Kind, Transport};

/// Seconds that a congestion control is given to find its rate.
const START_SECONDS: usize = 3;
/// The sender goes on for so much longer than the receiver counts, in nanoseconds.
const MARGIN_NS: u64 = 2_000_000_000;

pub fn receive(transport: &dyn Transport, options: &Options, ready: Ready) -> Result<Value, LabError> {
    let listener =
        transport.listen(options.address, Kind::Stream).map_err(LabError::connection("listening"))?;
    ready()?;
    let connection = listener.accept().map_err(LabError::connection("accepting"))?;
    let mut inbox = vec![0; INBOX_SIZE];
    let mut each_second = vec![0u64; options.seconds.ceil() as usize];
    let start = clock::now();
    let end = start + clock::seconds(options.seconds);
    loop {
        let length = connection.receive(&mut inbox).map_err(LabError::connection("receiving"))?;
        let now = clock::now();
        if now >= end {
            return Ok(report(&each_second, options.seconds));
        }
        if length == 0 {
            let ended = std::io::Error::other("the sender ended before its time");
            return Err(LabError::connection("receiving")(ended));
        }
        each_second[((now - start) / 1_000_000_000) as usize] += length as u64;
    }
}

pub fn send(transport: &dyn Transport, options: &Options) -> Result<Value, LabError> {
    let connection =
        transport.connect(options.address, Kind::Stream).map_err(LabError::connection("connecting"))?;
    let chunk = vec![b'x'; CHUNK_SIZE];
    let end = clock::now() + clock::seconds(options.seconds) + MARGIN_NS;
    let mut bytes = 0;
    // The receiver leaves when it has counted long enough, which is an error to most transports.
    while clock::now() < end
        && let Ok(sent) = connection.send(&chunk)
    {
        bytes += sent;
    }
    Ok(json!({ "bytes": bytes }))
}

fn report(each_second: &[u64], seconds: f64) -> Value {
    let mbit = |bytes: u64, seconds: f64| bytes as f64 * 8.0 / seconds / 1e6;
    let all: u64 = each_second.iter().sum();
    let after = seconds - START_SECONDS as f64;
    let started = each_second.iter().skip(START_SECONDS).sum();
    json!({
        "bytes": all,
        "goodput_mbit": mbit(all, seconds),
        "started_mbit": (after > 0.0).then(|| mbit(started, after)),
        "each_second_mbit": each_second.iter().map(|&bytes| mbit(bytes, 1.0)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_counted_and_left_out() {
        let found = report(&[0, 1_000_000, 2_000_000, 3_000_000, 4_000_000], 5.0);
        assert_eq!(found["bytes"], 10_000_000);
        assert_eq!(found["goodput_mbit"], 16.0);
        assert_eq!(found["started_mbit"], 28.0);
        assert_eq!(found["each_second_mbit"], json!([0.0, 8.0, 16.0, 24.0, 32.0]));
        assert_eq!(report(&[125_000], 1.0)["started_mbit"], Value::Null);
    }
}
