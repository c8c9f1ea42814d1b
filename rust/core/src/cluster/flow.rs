//! A long request or reply between two nodes: what of it waits until it is asked for, and what of it came, in
//! whatever order. Not the messages.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::message::MessageError;

/// Bytes of a part at most: many times what its message costs beside them.
const PART_MAX: u64 = 1 << 20;
/// Pieces that came too early are this long on average at least: packets are longer, and each piece costs
/// more than its bytes.
const PIECE_MIN: u64 = 256;

/// Bytes of a part where so many may be on their way: a few parts are, while the next are asked for.
pub fn part_bytes(window: u64) -> u64 {
    (window / 4).clamp(1, PART_MAX)
}

/// A part.
#[derive(Debug, Eq, PartialEq)]
pub struct Part {
    /// What comes before it, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub pieces: VecDeque<Bytes>,
    /// Whether nothing comes after it.
    pub last: bool,
}

/// What is to be sent.
#[derive(Debug)]
pub struct Outflow {
    waiting: VecDeque<Bytes>,
    /// Bytes of `waiting`.
    len: u64,
    /// Bytes sent.
    sent: u64,
    /// Bytes that may be sent.
    upto: u64,
    part: u64,
    /// Nothing will be added.
    ended: bool,
    /// The last part is sent.
    over: bool,
}

impl Outflow {
    /// Of nothing yet; `upto` bytes may be sent, in parts of `part`.
    pub fn new(upto: u64, part: u64) -> Self {
        let waiting = VecDeque::new();
        Outflow { waiting, len: 0, sent: 0, upto, part, ended: false, over: false }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len() as u64;
        self.waiting.push_back(bytes);
    }

    /// Bytes that wait.
    pub fn held(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing will be added.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Nothing will be added.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// So many bytes may be sent, from the first one on.
    pub fn grant(&mut self, upto: u64) {
        self.upto = self.upto.max(upto);
    }

    /// The next part, if it may be sent.
    pub fn next(&mut self) -> Option<Part> {
        let count = self.len.min(self.part).min(self.upto.saturating_sub(self.sent));
        let last = self.ended && count == self.len;
        if self.over || count < self.part && !last {
            return None;
        }
        let (offset, mut pieces, mut left) = (self.sent, VecDeque::new(), count as usize);
        while let Some(piece) = self.waiting.front_mut().filter(|_| left > 0) {
            let taken = piece.split_to(piece.len().min(left));
            left -= taken.len();
            pieces.push_back(taken);
            if piece.is_empty() {
                self.waiting.pop_front();
            }
        }
        (self.len, self.sent, self.over) = (self.len - count, self.sent + count, last);
        Some(Part { offset, pieces, last })
    }

    /// Whether all of it is sent.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

/// What comes.
#[derive(Debug)]
pub struct Inflow {
    /// Bytes passed on.
    passed: u64,
    /// Bytes that may come.
    upto: u64,
    /// What cannot be passed on yet, by offset.
    early: BTreeMap<u64, Bytes>,
    /// How many bytes there are, once that is known.
    len: Option<u64>,
}

impl Inflow {
    /// Of nothing yet; `upto` bytes may come.
    pub fn new(upto: u64) -> Self {
        Inflow { passed: 0, upto, early: BTreeMap::new(), len: None }
    }

    /// Bytes that came too early.
    pub fn held(&self) -> usize {
        self.early.values().map(Bytes::len).sum()
    }

    /// Takes bytes that come behind so many others.
    ///
    /// # Errors
    /// They were not asked for.
    pub fn take(&mut self, offset: u64, bytes: Bytes) -> Result<(), MessageError> {
        let most = self.len.unwrap_or(self.upto).min(self.upto);
        let fits = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= most);
        if !fits || offset < self.passed || self.early.len() as u64 > self.upto / PIECE_MIN + 1024 {
            return Err(MessageError::Bad("a part that was not asked for"));
        }
        if !bytes.is_empty() {
            self.early.insert(offset, bytes);
        }
        Ok(())
    }

    /// There are so many bytes.
    pub fn end(&mut self, len: u64) {
        self.len = Some(len);
    }

    /// The next bytes, if they have come.
    pub fn next(&mut self) -> Option<Bytes> {
        let next = self.early.first_entry().filter(|next| *next.key() == self.passed)?.remove();
        self.passed += next.len() as u64;
        Some(next)
    }

    /// Bytes passed on.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Bytes that may come.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Whether all bytes were passed on.
    pub fn is_over(&self) -> bool {
        self.len == Some(self.passed)
    }

    /// Lets so many bytes come; returns whether there is something to tell the sender.
    pub fn allow(&mut self, upto: u64) -> bool {
        let more = upto > self.upto && self.len.is_none();
        self.upto = self.upto.max(upto);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 4000;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index % 251) as u8).collect()
    }

    fn flow(of: &[u8]) -> Outflow {
        let mut flow = Outflow::new(WINDOW, part_bytes(WINDOW));
        of.chunks(1337).for_each(|piece| flow.push(Bytes::copy_from_slice(piece)));
        flow.end();
        flow
    }

    #[test]
    fn parts_that_overtake_each_other_come_out_in_order_and_never_more_than_the_window() {
        for len in [0, 1, 999, 1000, 4000, 4001, 50_123] {
            let all = bytes(len);
            let (mut from, mut to) = (flow(&all), Inflow::new(WINDOW));
            let (mut under_way, mut got, mut most) = (Vec::new(), Vec::new(), 0);
            while !to.is_over() {
                under_way.extend(std::iter::from_fn(|| from.next()));
                most = most.max(from.sent - to.passed);
                // The last that was sent is the first that arrives.
                let part: Part = under_way.pop().unwrap_or_else(|| panic!("{from:?} and {to:?} stand still"));
                let mut offset = part.offset;
                for piece in part.pieces {
                    offset += piece.len() as u64;
                    assert_eq!(to.take(offset - piece.len() as u64, piece), Ok(()));
                }
                if part.last {
                    to.end(offset);
                }
                std::iter::from_fn(|| to.next()).for_each(|piece| got.extend_from_slice(&piece));
                if to.allow(to.passed + WINDOW) {
                    from.grant(to.upto);
                }
            }
            assert!(from.is_over() && from.next().is_none() && to.early.is_empty());
            assert_eq!(got, all);
            assert!(most <= WINDOW, "{most}");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let mut to = Inflow::new(WINDOW);
        let piece = Bytes::from(vec![0; 100]);
        assert!(to.take(WINDOW - 99, piece.clone()).is_err());
        assert!(to.take(u64::MAX, piece.clone()).is_err());
        assert_eq!(to.take(0, piece.clone()), Ok(()));
        assert_eq!(to.next(), Some(piece.clone()));
        assert!(to.take(0, piece.clone()).is_err(), "it came already");
        to.end(150);
        assert!(to.take(100, piece).is_err(), "it is beyond the end");
        let mut to = Inflow::new(1 << 20);
        let crumbs = (1..1 << 20).take_while(|at| to.take(*at, Bytes::from_static(b"x")).is_ok());
        assert!(crumbs.count() < 6000, "crumbs cost more than their bytes");
    }
}
