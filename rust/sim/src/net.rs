//! Links between addresses, a clock, and what is under way.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

use crate::link::Link;

/// The ECN field of a datagram.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mark {
    /// Its sender takes no part.
    None,
    /// Its sender takes part.
    Capable,
    /// A link was congested.
    Congested,
}

/// A datagram that arrives.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Datagram {
    /// Who sent it, as the receiver sees it.
    pub from: SocketAddr,
    /// Whom it reaches.
    pub to: SocketAddr,
    /// Its mark.
    pub mark: Mark,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The network.
#[derive(Debug, Default)]
pub struct Net {
    now: u64,
    links: Vec<Link>,
    routes: HashMap<(SocketAddr, SocketAddr), usize>,
    /// How a node's own address looks from outside, and back.
    outside: HashMap<SocketAddr, SocketAddr>,
    inside: HashMap<SocketAddr, SocketAddr>,
    under_way: BinaryHeap<Reverse<(u64, u64, Datagram)>>,
    counter: u64,
}

impl Net {
    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Adds a link. Several routes may share it.
    pub fn add(&mut self, link: Link) -> usize {
        self.links.push(link);
        self.links.len() - 1
    }

    /// A link, to change or to read its counters.
    pub fn link(&mut self, link: usize) -> &mut Link {
        &mut self.links[link]
    }

    /// What goes from one address to another takes this link. Addresses are nodes' own.
    pub fn route(&mut self, from: SocketAddr, to: SocketAddr, link: usize) {
        self.routes.insert((from, to), link);
    }

    /// From now on a node has another address outside, as after a NAT has forgotten it.
    pub fn rebind(&mut self, node: SocketAddr, outside: SocketAddr) {
        if let Some(before) = self.outside.insert(node, outside) {
            self.inside.remove(&before);
        }
        self.inside.insert(outside, node);
    }

    /// Sends a datagram from a node to an address. Where no route is, it vanishes.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, mark: Mark, bytes: &[u8]) {
        let inside = match self.inside.get(&to) {
            Some(inside) => *inside,
            // The old address of a node that has another one now leads nowhere.
            None if self.outside.contains_key(&to) => return,
            None => to,
        };
        let Some(link) = self.routes.get(&(from, inside)).and_then(|link| self.links.get_mut(*link)) else {
            return;
        };
        let bleach = link.config.bleach;
        let seen = self.outside.get(&from).copied().unwrap_or(from);
        for carried in link.carry(self.now, bytes) {
            let mark = match mark {
                Mark::None => Mark::None,
                _ if bleach => Mark::None,
                _ if carried.marked => Mark::Congested,
                _ => mark,
            };
            let datagram = Datagram { from: seen, to: inside, mark, bytes: carried.bytes };
            self.counter += 1;
            self.under_way.push(Reverse((carried.at, self.counter, datagram)));
        }
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Moves the clock, and returns the next datagram that has arrived by then.
    pub fn arrive(&mut self, until: u64) -> Option<Datagram> {
        if self.next_arrival().is_some_and(|at| at <= until) {
            let Reverse((at, _, datagram)) = self.under_way.pop()?;
            self.now = self.now.max(at);
            return Some(datagram);
        }
        self.now = self.now.max(until);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::link::LinkConfig;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 4000))
    }

    /// Sends a byte, and returns who got it from whom.
    fn sent(net: &mut Net, from: SocketAddr, to: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        net.send(from, to, Mark::Capable, b"x");
        let until = net.now() + 1;
        net.arrive(until).map(|datagram| (datagram.from, datagram.to))
    }

    #[test]
    fn a_node_whose_address_changed_is_seen_and_reached_at_the_new_one_alone() {
        let (a, b, outside, later) = (address(1), address(2), address(101), address(102));
        let mut net = Net::default();
        for (from, to) in [(a, b), (b, a)] {
            let link = net.add(Link::new(LinkConfig::default(), Dice::new(1)));
            net.route(from, to, link);
        }
        assert_eq!(sent(&mut net, a, b), Some((a, b)));
        net.rebind(a, outside);
        assert_eq!(sent(&mut net, a, b), Some((outside, b)));
        assert_eq!(sent(&mut net, b, outside), Some((b, a)));
        assert_eq!(sent(&mut net, b, a), None, "the old address leads nowhere");
        net.rebind(a, later);
        assert_eq!(sent(&mut net, b, outside), None);
        assert_eq!(sent(&mut net, b, later), Some((b, a)));
        assert_eq!(sent(&mut net, b, address(9)), None, "nobody is there");
    }
}
