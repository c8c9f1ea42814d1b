//! What two nodes say to each other while they compare, in bytes. At most 16 KiB each.

use crate::entry::View;
use crate::merkle::{Digest, FANOUT};
use crate::sketch::{CELL_BYTES, Cell};
use crate::slot::SLOTS;
use crate::slots::{Scope, SlotSet};

/// Digests of slots in one message.
pub const DIGESTS_MAX: usize = 1000;
/// How long after what is young entries are, in milliseconds, that a round takes for young: longer than a
/// round takes, and not so long that what a node with a wrong clock wrote is left alone for ever.
const YOUNG_MS: u64 = 5000;

/// A message cannot be understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a message of a comparison that cannot be understood")]
pub struct ExchangeError;

/// Part of what is compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Region {
    /// Branches, a bit each.
    Branches(u128),
    /// Not the entries, but the digests of the slots of these branches.
    Digests(u128),
    /// Slots.
    Slots(Vec<u16>),
}

impl Region {
    /// The part of `all` that is in the region.
    pub fn scope(&self, all: &Scope) -> Scope {
        let slots: SlotSet = match self {
            Region::Branches(bits) | Region::Digests(bits) => {
                all.slots.iter().filter(|slot| bits >> (usize::from(*slot) / FANOUT) & 1 == 1).collect()
            }
            Region::Slots(slots) => slots.iter().copied().filter(|slot| all.slots.contains(*slot)).collect(),
        };
        Scope { group: all.group, slots }
    }
}

/// Which entries are sketched. Both sides must take the same: so it is part of what they say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// Where they are.
    pub region: Region,
    /// Written after this Unix millisecond, and not long after, they are left out: they are on their way.
    pub until_ms: u64,
}

impl Part {
    /// Whether an entry of the region is one of them.
    pub fn takes(&self, view: &View<'_>) -> bool {
        let written_ms = view.version.unix_ms();
        written_ms <= self.until_ms || written_ms - self.until_ms > YOUNG_MS
    }
}

/// A message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Begins a round.
    Root {
        /// Its number.
        round: u32,
        /// The digest of all that both keep.
        root: Digest,
    },
    /// It is the same.
    Equal {
        /// The round.
        round: u32,
    },
    /// It is not: the digests of all branches.
    Branches {
        /// The round.
        round: u32,
        /// Half a digest for each.
        digests: Vec<u64>,
    },
    /// Digests of slots.
    Slots {
        /// The round.
        round: u32,
        /// The slot, half its digest, how many entries it has.
        digests: Vec<(u16, u64, u32)>,
        /// No more follow.
        last: bool,
    },
    /// Cells of a sketch.
    Sketch {
        /// The round.
        round: u32,
        /// What is sketched; if it is not said, what was asked for, or what the message before was of.
        part: Option<Part>,
        /// The first of these cells.
        from: u64,
        /// The cell behind the last that is sent.
        end: u64,
        /// Some of them.
        cells: Vec<Cell>,
    },
    /// Asks for a sketch; where that was of digests, for the digests themselves.
    More {
        /// The round.
        round: u32,
        /// What is to be sketched.
        part: Part,
        /// How many cells.
        end: u64,
    },
    /// Asks for entries.
    Want {
        /// The round.
        round: u32,
        /// Their items, of what was sketched last.
        items: Vec<u64>,
    },
    /// Asks for all entries of slots; without any, of all slots, which ends the round.
    Ship {
        /// The round.
        round: u32,
        /// The slots.
        slots: Vec<u16>,
    },
    /// All has been put that the other side lacked.
    Done {
        /// The round.
        round: u32,
    },
}

const ROOT: u8 = 1;
const EQUAL: u8 = 2;
const BRANCHES: u8 = 3;
const SLOT_DIGESTS: u8 = 4;
const SKETCH: u8 = 5;
const MORE: u8 = 6;
const WANT: u8 = 7;
const SHIP: u8 = 8;
const DONE: u8 = 9;

impl Message {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let head = |out: &mut Vec<u8>, kind: u8, round: &u32| {
            out.push(kind);
            out.extend_from_slice(&round.to_le_bytes());
        };
        match self {
            Message::Root { round, root } => {
                head(&mut out, ROOT, round);
                out.extend_from_slice(&root.to_le_bytes());
            }
            Message::Equal { round } => head(&mut out, EQUAL, round),
            Message::Branches { round, digests } => {
                head(&mut out, BRANCHES, round);
                digests.iter().for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
            }
            Message::Slots { round, digests, last } => {
                head(&mut out, SLOT_DIGESTS, round);
                out.push(u8::from(*last));
                for (slot, digest, count) in digests {
                    out.extend_from_slice(&slot.to_le_bytes());
                    out.extend_from_slice(&digest.to_le_bytes());
                    out.extend_from_slice(&count.to_le_bytes());
                }
            }
            Message::Sketch { round, part, from, end, cells } => {
                head(&mut out, SKETCH, round);
                span(&mut out, *from, *end);
                put_part(&mut out, part.as_ref().unwrap_or(&NO_PART));
                cells.iter().for_each(|cell| cell.encode(&mut out));
            }
            Message::More { round, part, end } => {
                head(&mut out, MORE, round);
                span(&mut out, 0, *end);
                put_part(&mut out, part);
            }
            Message::Want { round, items } => {
                head(&mut out, WANT, round);
                items.iter().for_each(|item| out.extend_from_slice(&item.to_le_bytes()));
            }
            Message::Ship { round, slots } => {
                head(&mut out, SHIP, round);
                slots.iter().for_each(|slot| out.extend_from_slice(&slot.to_le_bytes()));
            }
            Message::Done { round } => head(&mut out, DONE, round),
        }
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ExchangeError> {
        let mut parts = Parts(bytes);
        let kind = parts.array::<1>()?[0];
        let round = u32::from_le_bytes(parts.array()?);
        let message = match kind {
            ROOT => Message::Root { round, root: u128::from_le_bytes(parts.array()?) },
            EQUAL => Message::Equal { round },
            BRANCHES => {
                let digests = (0..FANOUT).map(|_| parts.number()).collect::<Result<_, _>>()?;
                Message::Branches { round, digests }
            }
            SLOT_DIGESTS => {
                let last = parts.array::<1>()?[0] != 0;
                let digest = |parts: &mut Parts<'_>| {
                    Ok((parts.slot()?, parts.number()?, u32::from_le_bytes(parts.array()?)))
                };
                Message::Slots { round, digests: parts.all(digest)?, last }
            }
            SKETCH => {
                let (from, end) = parts.span()?;
                let part = Some(parts.part()?).filter(|part| *part != NO_PART);
                let cells = parts.all(|parts| Ok(Cell::decode(&parts.array::<CELL_BYTES>()?)))?;
                Message::Sketch { round, part, from, end, cells }
            }
            MORE => {
                let (_, end) = parts.span()?;
                Message::More { round, part: parts.part()?, end }
            }
            WANT => Message::Want { round, items: parts.all(Parts::number)? },
            SHIP => Message::Ship { round, slots: parts.all(Parts::slot)? },
            DONE => Message::Done { round },
            _ => return Err(ExchangeError),
        };
        if parts.0.is_empty() { Ok(message) } else { Err(ExchangeError) }
    }
}

fn span(out: &mut Vec<u8>, from: u64, end: u64) {
    out.extend_from_slice(&(from as u32).to_le_bytes());
    out.extend_from_slice(&(end as u32).to_le_bytes());
}

/// What stands where regions of slots have their number.
const OF_BRANCHES: u16 = u16::MAX;
const OF_DIGESTS: u16 = u16::MAX - 1;
/// Where none is said.
const NO_PART: Part = Part { region: Region::Slots(Vec::new()), until_ms: 0 };

fn put_part(out: &mut Vec<u8>, part: &Part) {
    out.extend_from_slice(&part.until_ms.to_le_bytes());
    match &part.region {
        Region::Branches(bits) => {
            out.extend_from_slice(&OF_BRANCHES.to_le_bytes());
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Region::Digests(bits) => {
            out.extend_from_slice(&OF_DIGESTS.to_le_bytes());
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Region::Slots(slots) => {
            out.extend_from_slice(&(slots.len() as u16).to_le_bytes());
            slots.iter().for_each(|slot| out.extend_from_slice(&slot.to_le_bytes()));
        }
    }
}

/// What of a message has not been read.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ExchangeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(ExchangeError)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, ExchangeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn slot(&mut self) -> Result<u16, ExchangeError> {
        let slot = u16::from_le_bytes(self.array()?);
        if usize::from(slot) < SLOTS { Ok(slot) } else { Err(ExchangeError) }
    }

    fn span(&mut self) -> Result<(u64, u64), ExchangeError> {
        let (from, end) = (u32::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?));
        if from <= end { Ok((from.into(), end.into())) } else { Err(ExchangeError) }
    }

    fn part(&mut self) -> Result<Part, ExchangeError> {
        let until_ms = self.number()?;
        let region = match u16::from_le_bytes(self.array()?) {
            OF_BRANCHES => Region::Branches(u128::from_le_bytes(self.array()?)),
            OF_DIGESTS => Region::Digests(u128::from_le_bytes(self.array()?)),
            count => Region::Slots((0..count).map(|_| self.slot()).collect::<Result<_, _>>()?),
        };
        Ok(Part { region, until_ms })
    }

    /// Parts of one kind to the end.
    fn all<T>(
        &mut self,
        part: impl Fn(&mut Self) -> Result<T, ExchangeError>,
    ) -> Result<Vec<T>, ExchangeError> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(part(self)?);
        }
        Ok(all)
    }
}
