//! Where the peer is. A packet from elsewhere moves the connection there, but only as far as its sender has
//! proved that it is there (as RFC 9000, section 9).

use core::net::SocketAddr;

use crate::time::Time;

/// Bytes that go to an address which is not validated, for each byte that came from it.
const AMPLIFICATION: u64 = 3;

/// The address in use.
#[derive(Debug)]
pub(crate) struct Path {
    pub remote: SocketAddr,
    pub validation: Option<Validation>,
}

/// An address that is not proved.
#[derive(Debug)]
pub(crate) struct Validation {
    /// Where the peer was before.
    pub previous: SocketAddr,
    pub challenge: u64,
    /// The challenge must go out, at first or again.
    pub due: bool,
    pub retry_at: Time,
    /// When the connection goes back to where it was.
    pub give_up: Time,
    pub received: u64,
    pub sent: u64,
}

impl Path {
    pub fn new(remote: SocketAddr) -> Self {
        Path { remote, validation: None }
    }

    /// Whether `bytes` more may go to the address.
    pub fn may_send(&self, bytes: usize) -> bool {
        self.validation.as_ref().is_none_or(|path| path.sent + bytes as u64 <= AMPLIFICATION * path.received)
    }

    pub fn on_sent(&mut self, bytes: usize) {
        if let Some(validation) = &mut self.validation {
            validation.sent += bytes as u64;
        }
    }

    /// The peer answered a challenge. Returns whether that proves the address.
    pub fn on_response(&mut self, number: u64) -> bool {
        self.validation.take_if(|validation| validation.challenge == number).is_some()
    }
}
