//! Every limit and choice of the transport, with its reason.

use std::time::Duration;

pub use crate::congestion::Algorithm;

/// Limits and choices of an endpoint and its connections. The same for all peers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections at once: a cluster is hundreds of nodes, and each connection may take
    /// `window + send_buffer` bytes.
    pub peers_max: usize,
    /// Bytes of messages that a peer may have sent and this side not consumed: the bound of what reassembly
    /// keeps. 16 MiB is the bandwidth-delay product of 1 Gbit/s and 128 ms.
    ///
    /// It is not tuned as TCP's is: bytes take memory only while nobody consumes them, and a replica consumes
    /// them at once, so that a smaller window would save nothing, and one that has to grow costs each stream
    /// some round trips.
    pub window: u64,
    /// The same for one message, so that one which nobody reads leaves room for the others.
    pub message_window: u64,
    /// Messages that a peer may have begun and not finished.
    pub messages: u64,
    /// The longest message, in bytes, that is sent or taken.
    pub message_max: u64,
    /// Bytes of messages that wait to be sent or acknowledged, before `Full`. Bulk gets seven eighths of it.
    pub send_buffer: u64,
    /// Bytes of best-effort datagrams that wait to be sent; beyond that the oldest are dropped.
    pub datagram_buffer: usize,
    /// Pieces of messages kept out of order: each costs more than its bytes. Twice what fills the window with
    /// packets of 1200 bytes.
    pub fragments_max: usize,
    /// The largest datagram that is sent or taken. Ethernet is 1472 over IPv4; loopback takes 65,000.
    pub datagram_max: u16,
    /// Sizes that path MTU discovery tries, ascending (RFC 8899); those over `datagram_max` are left out.
    pub mtu_probes: Vec<u16>,
    /// After how long a path is probed again for larger datagrams.
    pub mtu_again: Duration,
    /// A used peer that is silent for so long is asked for a sign of life.
    pub keep_alive: Duration,
    /// A peer that was silent for so long, although asked, is dead. Three keep-alives must be lost for it.
    pub silence_max: Duration,
    /// How long a handshake is tried.
    pub handshake_max: Duration,
    /// When an INIT is repeated first; the pause doubles up to `handshake_retry_max`.
    pub handshake_retry: Duration,
    /// The longest pause between INITs.
    pub handshake_retry_max: Duration,
    /// Keys are renewed after so long (WireGuard's constant).
    pub rekey_after: Duration,
    /// Keys are no longer used after so long (WireGuard's constant).
    pub reject_after: Duration,
    /// Keys are renewed after so many packets. AES-GCM wants fewer than 2^32.
    pub rekey_after_packets: u64,
    /// How long old keys open late packets.
    pub old_keys: Duration,
    /// Handshakes a second, of all addresses, before cookies are asked for: each costs 0.2 ms of work.
    pub handshakes_per_second: u32,
    /// The same from one IPv4 address or IPv6 /64.
    pub handshakes_per_address: u32,
    /// Who sets the rate.
    pub congestion: Algorithm,
    /// Packets that may be in flight at the start (RFC 6928).
    pub initial_packets: u32,
    /// The round-trip time before one was measured.
    pub initial_rtt: Duration,
    /// The longest that an acknowledgement waits: UDT's SYN.
    pub ack_delay: Duration,
    /// Whether packets are marked ECT(0).
    pub ecn: bool,
    /// Repeats of sparse messages before a loss is known.
    pub duplicates: Duplicates,
    /// Whether AES suites may be chosen. Off in tests of the mandatory one.
    pub aes: bool,
}

/// Early duplicates: a request alone in flight is sent twice, so that one loss costs an eighth of a round
/// trip and not a probe timeout.
#[derive(Clone, Copy, Debug)]
pub struct Duplicates {
    /// Classes below this are repeated; 0 is none.
    pub classes: u8,
    /// Only while no more packets than this are in flight.
    pub in_flight: usize,
    /// Repeats a second that are free.
    pub per_second: u32,
    /// Beyond them, a repeat for each so many packets.
    pub one_in: u32,
    /// The shortest pause before a repeat; else an eighth of the round-trip time.
    pub pause_min: Duration,
}

impl Config {
    /// The longest message, in bytes, that is delivered whole; a longer one is streamed. So short that all
    /// messages that may be begun fit into the window in full but for a byte: one of them always goes on.
    pub fn whole_max(&self) -> u64 {
        (self.window / self.messages.max(1)).min(self.message_window / 2)
    }
}

impl Default for Duplicates {
    fn default() -> Self {
        Duplicates {
            classes: 2,
            in_flight: 2,
            per_second: 20,
            one_in: 20,
            pause_min: Duration::from_millis(2),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            peers_max: 1024,
            window: 16 << 20,
            message_window: 8 << 20,
            messages: 1024,
            message_max: 1 << 40,
            send_buffer: 16 << 20,
            datagram_buffer: 256 << 10,
            fragments_max: 32 << 10,
            datagram_max: 65_000,
            mtu_probes: vec![1400, 1452, 1472, 8952, 65_000],
            mtu_again: Duration::from_secs(600),
            keep_alive: Duration::from_secs(1),
            silence_max: Duration::from_millis(3500),
            handshake_max: Duration::from_secs(90),
            handshake_retry: Duration::from_millis(250),
            handshake_retry_max: Duration::from_secs(5),
            rekey_after: Duration::from_secs(120),
            reject_after: Duration::from_secs(180),
            rekey_after_packets: 1 << 30,
            old_keys: Duration::from_secs(10),
            handshakes_per_second: 500,
            handshakes_per_address: 20,
            congestion: Algorithm::Bbr,
            initial_packets: 10,
            initial_rtt: Duration::from_millis(100),
            ack_delay: Duration::from_millis(10),
            ecn: true,
            duplicates: Duplicates::default(),
            aes: true,
        }
    }
}
