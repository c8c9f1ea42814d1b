//! How fast to send: a trait, and three that implement it. No I/O and no clock, so that a trace decides all.

mod bbr;
mod cubic;
mod udt;

use std::time::Duration;

use crate::config::Config;
use crate::rtt::Rtt;
use crate::time::Time;

/// Who sets the rate of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406): fair beside TCP.
    Cubic,
    /// By bandwidth and round-trip time: keeps its rate where up to 2% are lost. Beside CUBIC it takes from a
    /// third to two thirds, the more the shorter the queue is.
    Bbr,
    /// UDT's own (draft-gg-udt-03).
    Udt,
}

impl Algorithm {
    /// All of them.
    pub const ALL: &[Algorithm] = &[Algorithm::Cubic, Algorithm::Bbr, Algorithm::Udt];

    /// Its name, as configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Cubic => "cubic",
            Algorithm::Bbr => "bbr",
            Algorithm::Udt => "udt",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Algorithm::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    /// A new controller of this kind.
    pub(crate) fn start(self, config: &Config, mtu: u16) -> Box<dyn Controller> {
        match self {
            Algorithm::Cubic => Box::new(cubic::Cubic::new(config, mtu)),
            Algorithm::Bbr => Box::new(bbr::Bbr::new(config, mtu)),
            Algorithm::Udt => Box::new(udt::Udt::new(config, mtu)),
        }
    }
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckInfo {
    pub now: Time,
    /// Bytes newly acknowledged.
    pub bytes: u64,
    /// When the newest of the packets was sent.
    pub sent_at: Time,
    pub rtt: Rtt,
    /// Bytes in flight before the acknowledgement.
    pub in_flight_before: u64,
    /// Bytes in flight now.
    pub in_flight: u64,
    /// Whether the sender had less to send than it might.
    pub app_limited: bool,
    /// Bytes a second that were delivered lately.
    pub delivery: Option<Delivery>,
    /// Packets a second that arrive at the receiver; 0 is unknown.
    pub arrival_rate: u64,
    /// Packets a second that the path could take; 0 is unknown.
    pub capacity: u64,
}

/// A sample of the rate of delivery (draft-ietf-ccwg-ratesample).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Delivery {
    /// Bytes a second.
    pub rate: u64,
    /// Whether the sample's packet left when there was little to send, so that the path may do more.
    pub app_limited: bool,
    /// Bytes delivered in all when the sample's packet was sent: tells rounds apart.
    pub before: u64,
    /// Bytes delivered in all.
    pub total: u64,
    /// Bytes lost in all since the sample's packet was sent.
    pub lost: u64,
    /// Bytes in flight when the sample's packet was sent.
    pub in_flight: u64,
}

/// Packets that were found lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LossInfo {
    pub now: Time,
    pub bytes: u64,
    pub packets: u64,
    /// When the newest of them was sent.
    pub sent_at: Time,
    /// Packet numbers of the first and the newest.
    pub first: u64,
    pub last: u64,
    /// Whether nothing at all came through for several probe timeouts (RFC 9002, 7.6).
    pub persistent: bool,
}

/// A congestion controller. All sizes are in bytes, all rates in bytes a second.
pub(crate) trait Controller: Send {
    /// A packet was sent; `in_flight` counts it.
    fn on_sent(&mut self, _now: Time, _number: u64, _bytes: u64, _in_flight: u64) {}
    /// Packets were acknowledged.
    fn on_ack(&mut self, ack: &AckInfo);
    /// Packets were lost.
    fn on_loss(&mut self, loss: &LossInfo);
    /// Routers marked packets, the newest of which was sent at `sent_at`.
    fn on_ecn(&mut self, now: Time, sent_at: Time);
    /// The losses of the last event came after all: the cut was not due.
    fn on_spurious_loss(&mut self) {}
    /// Every 10 ms (UDT's SYN) while packets are in flight.
    fn on_tick(&mut self, _now: Time) {}
    /// Packets have another size now.
    fn set_mtu(&mut self, mtu: u16);
    /// Bytes that may be in flight.
    fn window(&self) -> u64;
    /// Bytes a second to send at. `None` lets the window decide.
    fn pacing_rate(&self, rtt: Duration) -> Option<u64>;
    /// What it is doing, in a word.
    fn state(&self) -> &'static str;
}

/// The least window: two packets, so that a lone packet does not wait for a delayed acknowledgement.
pub(crate) fn window_min(mtu: u16) -> u64 {
    2 * u64::from(mtu)
}

/// The window at the start (RFC 6928, in packets of the path's first size).
pub(crate) fn initial_window(config: &Config, mtu: u16) -> u64 {
    u64::from(config.initial_packets) * u64::from(mtu)
}
