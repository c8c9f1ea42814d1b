//! Any datagrams from strangers: not one is answered with more bytes than it has, and none is remembered.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use turbopump_udt::{Config, Ecn, Endpoint, Identity, PresharedKey, PrivateKey, Time};

fuzz_target!(|datagrams: Vec<Vec<u8>>| {
    let identity =
        Identity { keys: vec![PrivateKey::new([1; 32])], psks: vec![(1, PresharedKey::new([2; 32]))] };
    let mut endpoint = Endpoint::new(Time::ZERO, Config::default(), identity, [3; 32], 1 << 60);
    let (from, mut out) = (SocketAddr::from(([192, 0, 2, 1], 1)), Vec::new());
    for mut datagram in datagrams {
        let len = datagram.len();
        endpoint.handle_datagram(Time::ZERO, from, Ecn::NotEct, &mut datagram);
        while let Some(transmit) = endpoint.poll_transmit(Time::ZERO, &mut out) {
            assert!(transmit.len <= len && transmit.to == from);
        }
    }
    assert!(endpoint.connections().next().is_none() && endpoint.poll_event().is_none());
});
