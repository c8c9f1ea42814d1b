//! What is counted, for people and dashboards.

use std::time::Duration;

use crate::seal::Suite;

/// A connection's figures, since it began unless they are of now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConnectionStats {
    /// Connecting, connected or closing.
    pub state: &'static str,
    /// The congestion controller: cubic, bbr or udt.
    pub algorithm: &'static str,
    /// What it is doing.
    pub congestion: &'static str,
    /// What packets are sealed with; `None` before the first keys.
    pub suite: Option<Suite>,
    /// The smoothed round-trip time now.
    pub rtt: Duration,
    /// Its variance now.
    pub rtt_variance: Duration,
    /// The least that was seen.
    pub rtt_min: Duration,
    /// Bytes that may be in flight now.
    pub window: u64,
    /// Bytes in flight now.
    pub in_flight: u64,
    /// Bytes a second that packets are paced at now; 0 is unpaced.
    pub pacing_rate: u64,
    /// Bytes a second that arrive at the peer, as it says; 0 is unknown.
    pub arrival_rate: u64,
    /// Bytes a second that the path could take, from packet pairs; 0 is unknown.
    pub capacity: u64,
    /// The largest datagram that the path takes now.
    pub mtu: u16,
    /// Packets sent.
    pub packets_sent: u64,
    /// Bytes of them.
    pub bytes_sent: u64,
    /// Packets that were opened.
    pub packets_received: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    /// Packets that were found lost; of those sent, their share is the path's loss as this side sees it.
    pub packets_lost: u64,
    /// Bytes of them.
    pub bytes_lost: u64,
    /// Packets that were found lost and came after all, as events.
    pub spurious_losses: u64,
    /// Packets repeated before a loss was known.
    pub duplicates: u64,
    /// Probe timeouts.
    pub timeouts: u64,
    /// Packets that did not open, were seen before or too old.
    pub packets_rejected: u64,
    /// Best-effort datagrams sent.
    pub datagrams_sent: u64,
    /// Best-effort datagrams dropped here, because too many waited.
    pub datagrams_dropped: u64,
    /// Best-effort datagrams received.
    pub datagrams_received: u64,
    /// Marks of congestion that routers made on our packets.
    pub congestion_marks: u64,
    /// Bytes of messages that wait to be sent or acknowledged now.
    pub send_buffered: u64,
    /// Bytes of messages received and not consumed now.
    pub receive_buffered: u64,
    /// Handshakes completed: the first and each renewal of keys.
    pub handshakes: u64,
}

/// An endpoint's figures, since it began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EndpointStats {
    /// Datagrams that are none of ours, or not well formed.
    pub malformed: u64,
    /// Datagrams for a session that does not exist, or that nobody has proved to have the keys of.
    pub unknown_session: u64,
    /// Handshakes with a wrong tag: by somebody who does not know this node's key.
    pub forged_handshakes: u64,
    /// Handshakes of another version, by somebody who knows this node's key.
    pub other_versions: u64,
    /// Handshakes of who is not admitted.
    pub unknown_peers: u64,
    /// Handshakes with a key of the cluster that this node does not have, and answers made with another one
    /// than was asked with.
    pub other_secrets: u64,
    /// Handshakes of who asked again and again, and was answered each time: it does not hear the answers, or
    /// cannot open them.
    pub unheard_answers: u64,
    /// Handshakes older than the last that was proved, and answered: late ones, those that somebody repeats,
    /// or of a peer whose clock was set back.
    pub late_handshakes: u64,
    /// Connections of peers whose clock was set back, as they have proved.
    pub set_back_clocks: u64,
    /// Handshakes that come late or again, show a cookie that is none, or must wait for ours.
    pub refused_handshakes: u64,
    /// Handshakes dropped unread: too many from their address, or too many answers waited.
    pub dropped_handshakes: u64,
    /// Handshakes answered with a cookie.
    pub cookies: u64,
    /// Handshakes answered.
    pub answered_handshakes: u64,
}
