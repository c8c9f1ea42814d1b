//! A network in memory: links that delay, lose, reorder, repeat and damage datagrams, on a clock of its own.
//!
//! One seed reproduces everything. Knows addresses and bytes, not what they mean. Times are nanoseconds since
//! the network's start.

mod dice;
mod link;
mod net;

pub use dice::Dice;
pub use link::{Link, LinkConfig, Loss};
pub use net::{Datagram, Mark, Net};
