//! Any bytes from another node: its messages, the entries in them, what it says of a comparison. Each is
//! refused or read, and what is read is written as it was.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use turbopump_core::blob::Value;
use turbopump_core::exchange;
use turbopump_core::message::Message;
use turbopump_core::record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((message, rest))) = Message::decode(Bytes::copy_from_slice(bytes), true) {
        let mut again = Vec::new();
        message.encode(&mut again);
        again.extend_from_slice(&rest);
        assert_eq!(again, bytes);
    }
    for found in record::Reader::new(bytes).flatten() {
        let mut again = Vec::new();
        match (found.is_name, found.view.value) {
            (true, Some(Value::Inline(name))) => {
                record::encode_name(&mut again, found.key, name, found.view.version);
            }
            _ => record::encode(&mut again, found.key, &found.view, found.base),
        }
        assert_eq!(record::Reader::new(&again).next(), Some(Ok(found)));
    }
    if let Ok(message) = exchange::Message::decode(bytes) {
        assert_eq!(exchange::Message::decode(&message.encode()), Ok(message));
    }
});
