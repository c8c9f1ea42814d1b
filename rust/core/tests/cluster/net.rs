//! The way between nodes: connections that come, stall and break, messages that overtake each other, and
//! datagrams that are lost. Knows nodes by their number and messages as bytes. Times are microseconds.

use bytes::Bytes;
use turbopump_sim::Dice;

pub const MS: u64 = 1000;
pub const SECOND: u64 = 1_000_000;

/// Messages up to this many bytes are delivered whole, as the engine does.
const WHOLE: usize = 16 * 1024;

/// What arrives.
#[derive(Debug)]
pub enum Cargo {
    Whole(Bytes),
    Piece(u64, Bytes),
    End(u64),
    Datagram(Bytes),
}

impl Cargo {
    pub fn len(&self) -> usize {
        match self {
            Cargo::Whole(bytes) | Cargo::Piece(_, bytes) | Cargo::Datagram(bytes) => bytes.len(),
            Cargo::End(_) => 0,
        }
    }
}

/// Something under way.
#[derive(Debug)]
pub struct Packet {
    pub from: usize,
    pub to: usize,
    /// The connection it belongs to.
    pub epoch: u64,
    pub cargo: Cargo,
}

/// One direction between two nodes.
#[derive(Debug, Default)]
pub struct Way {
    pub blocked: bool,
    pub delay: u64,
    pub jitter: u64,
    /// Share of datagrams that is lost.
    pub loss: f64,
    /// The connection that the sender believes in.
    pub believes: Option<u64>,
    pub stalled: Vec<Packet>,
    pub under_way: usize,
    ordered_at: u64,
    next_stream: u64,
}

/// The connection between two nodes.
#[derive(Debug, Default)]
pub struct Pair {
    pub epoch: u64,
    /// The connection over which something arrives.
    pub live: Option<u64>,
    /// Since when a direction is blocked.
    pub blocked_at: Option<u64>,
    /// Both sides know of the connection from then on.
    pub ready_at: u64,
}

/// All ways.
#[derive(Debug)]
pub struct Net {
    count: usize,
    ways: Vec<Way>,
    pairs: Vec<Pair>,
    dice: Dice,
    /// Bytes that a connection takes before some have arrived.
    pub window: usize,
    /// How long nothing may come before a connection is given up.
    pub silence: u64,
}

impl Net {
    pub fn new(count: usize, mut dice: Dice) -> Self {
        let mut ways = Vec::new();
        let delay = dice.pick(&[1, 2, 5, 40]) * MS;
        for _ in 0..count * count {
            let delay = delay + dice.below(2 * MS);
            let (jitter, loss) = (dice.pick(&[0, 1, 3]) * delay, dice.pick(&[0.0, 0.01, 0.2]));
            ways.push(Way { delay, jitter, loss, ..Way::default() });
        }
        let pairs = (0..count * count).map(|_| Pair::default()).collect();
        let (window, silence) = (dice.pick(&[128 << 10, 1 << 20, 16 << 20]), dice.pick(&[1, 5, 15]) * SECOND);
        Net { count, ways, pairs, dice, window, silence }
    }

    pub fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from * self.count + to]
    }

    pub fn pair(&mut self, a: usize, b: usize) -> &mut Pair {
        &mut self.pairs[a.min(b) * self.count + a.max(b)]
    }

    /// Lets nothing through in one direction, or lets it through again. Returns what had waited.
    pub fn block(&mut self, now: u64, from: usize, to: usize, blocked: bool) -> Vec<Packet> {
        self.way(from, to).blocked = blocked;
        let either = self.is_blocked(from, to);
        let pair = self.pair(from, to);
        pair.blocked_at = either.then(|| pair.blocked_at.unwrap_or(now));
        if blocked { Vec::new() } else { std::mem::take(&mut self.way(from, to).stalled) }
    }

    /// Whether one of the directions lets nothing through.
    pub fn is_blocked(&mut self, a: usize, b: usize) -> bool {
        self.way(a, b).blocked || self.way(b, a).blocked
    }

    /// Begins a connection; returns when each of the two knows.
    pub fn connect(&mut self, now: u64, a: usize, b: usize) -> (u64, u64, u64) {
        let (there, back) = (self.way(a, b).delay, self.way(b, a).delay);
        let (at_b, at_a) = (now + there + back, now + 2 * there + back);
        let pair = self.pair(a, b);
        pair.epoch += 1;
        pair.live = Some(pair.epoch);
        pair.ready_at = at_a.max(at_b) + 1;
        (pair.epoch, at_a, at_b)
    }

    /// Whether a node may hand more to its connection.
    pub fn takes(&mut self, from: usize, to: usize) -> bool {
        let window = self.window;
        let way = self.way(from, to);
        way.believes.is_some() && way.under_way < window
    }

    /// Sends a message; returns its packets and when they arrive. Without a live connection they vanish, and
    /// the window stays as full as they made it.
    pub fn send(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        (ordered, datagram): (bool, bool),
        pieces: impl IntoIterator<Item = Bytes>,
    ) -> Vec<(u64, Packet)> {
        let ready_at = self.pair(from, to).ready_at;
        let live = self.pair(from, to).live;
        let mut dice = self.dice.fork();
        let way = self.way(from, to);
        let Some(epoch) = way.believes else { return Vec::new() };
        let pieces: Vec<Bytes> = pieces.into_iter().collect();
        let len: usize = pieces.iter().map(Bytes::len).sum();
        let mut at = (now + way.delay + dice.below(way.jitter + 1)).max(ready_at);
        if datagram && len <= 1200 {
            let lost = dice.chance(way.loss) || way.blocked;
            let packet = Packet { from, to, epoch, cargo: Cargo::Datagram(pieces.concat().into()) };
            return if lost { Vec::new() } else { vec![(at, packet)] };
        }
        way.under_way += len;
        if live != Some(epoch) {
            return Vec::new();
        }
        if ordered {
            at = at.max(way.ordered_at + 1);
            way.ordered_at = at;
        }
        let packet = |cargo| Packet { from, to, epoch, cargo };
        if len <= WHOLE {
            return vec![(at, packet(Cargo::Whole(pieces.concat().into())))];
        }
        way.next_stream += 1;
        let stream = way.next_stream;
        let (mut all, chunk) = (Vec::new(), dice.pick(&[1200, 9000, 65_536]));
        for mut piece in pieces {
            while !piece.is_empty() {
                let next = piece.split_to(piece.len().min(chunk));
                all.push((at, packet(Cargo::Piece(stream, next))));
                at += 10 + dice.below(100);
            }
        }
        all.push((at, packet(Cargo::End(stream))));
        all
    }

    /// Whether a packet that is due is taken now; one that is blocked is kept.
    pub fn arrive(&mut self, packet: Packet) -> Option<Packet> {
        let (from, to) = (packet.from, packet.to);
        if self.pair(from, to).live != Some(packet.epoch) {
            return None;
        }
        let theirs = self.way(to, from).believes;
        let way = self.way(from, to);
        if way.blocked {
            if !matches!(packet.cargo, Cargo::Datagram(_)) {
                way.stalled.push(packet);
            }
            return None;
        }
        if !matches!(packet.cargo, Cargo::Datagram(_)) {
            way.under_way = way.under_way.saturating_sub(packet.cargo.len());
        }
        Some(packet).filter(|packet| theirs == Some(packet.epoch))
    }
}
