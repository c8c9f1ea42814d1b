//! Reliable, encrypted messages over datagrams: UDT's ideas on a wire of its own, as a state machine.
//!
//! Knows bytes and peers, not keys of a store; no socket, no clock, no thread, no randomness of its own.
//!
//! Read in this order: [`Endpoint`] is one socket's connections and their handshakes, [`Connection`] one
//! peer. `packet` and `frame` are the wire. `handshake`, `candidate`, `seal`, `replay` and `guard` keep
//! strangers out. `send`, `scheduler` and `recv` are messages; `ack`, `loss`, `rtt`, `congestion`, `pacing`
//! and `mtu` carry them.
#![deny(unsafe_code)]

mod ack;
mod candidate;
mod coding;
pub mod config;
mod congestion;
mod connection;
mod endpoint;
pub mod error;
mod frame;
mod guard;
mod handshake;
mod identity;
#[cfg(any(test, feature = "fuzz"))]
pub mod inject;
mod loss;
mod message;
mod mtu;
mod pacing;
mod packet;
mod ranges;
mod recv;
mod replay;
mod rng;
mod rtt;
mod scheduler;
mod seal;
mod send;
mod sodium;
mod stats;
mod time;

pub use ack::Ecn;
pub use config::Config;
pub use connection::{Connection, Transmit};
pub use endpoint::{ConnectionId, Endpoint};
pub use handshake::{PresharedKey, PrivateKey, PublicKey};
pub use identity::Identity;
pub use message::{Class, Event, MessageId, Options};
pub use rng::Rng;
pub use seal::Suite;
pub use stats::{ConnectionStats, EndpointStats};
pub use time::Time;
