//! What two sets differ in, from messages as long as the difference: a rateless invertible Bloom lookup
//! table. Not whose sets they are: items are 64-bit numbers, spread evenly by a keyed hash.
//!
//! Each item is in the first cell and in ever fewer of the following ones. A cell has the XOR of its items,
//! the XOR of their checks, and their count. Cells of two sets, subtracted, are the cells of the difference;
//! one that holds a single item gives it away, which makes others hold one item fewer. Any number of cells
//! can be tried.
//!
//! Source: Yang, Gilad and Alizadeh, "Practical rateless set reconciliation" (SIGCOMM 2024).

/// Bytes of a cell on its way.
pub const CELL_BYTES: usize = 18;

/// A cell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cell {
    sum: u64,
    check: u64,
    count: i16,
}

impl Cell {
    fn add(&mut self, item: u64, check: u64, count: i16) {
        self.sum ^= item;
        self.check ^= check;
        self.count = self.count.wrapping_add(count);
    }

    fn is_empty(&self) -> bool {
        *self == Cell::default()
    }

    /// The item, if there is a single one, and which of the sets has it.
    fn single(&self) -> Option<(u64, i16)> {
        (self.count.unsigned_abs() == 1 && self.check == check(self.sum)).then_some((self.sum, self.count))
    }

    /// Appends the cell as it travels.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.check.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
    }

    /// The cell in these bytes.
    pub fn decode(bytes: &[u8; CELL_BYTES]) -> Self {
        let number = |at: usize| -> u64 { (0..8).rev().fold(0, |n, i| n << 8 | u64::from(bytes[at + i])) };
        Cell { sum: number(0), check: number(8), count: i16::from_le_bytes([bytes[16], bytes[17]]) }
    }
}

/// Another number for an item, which nobody finds who looks for items whose XOR is a third one.
fn check(item: u64) -> u64 {
    mix(item ^ 0x6A09_E667_F3BC_C908)
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the argument.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The cells that an item is in, ascending. The one after cell `i` is at `j` or beyond with a probability of
/// about `((i + 1.5) / (j + 1.5)) ^ 2`, so that cell `i` has a share of `1 / (1 + i / 2)` of all items.
#[derive(Clone, Copy, Debug)]
struct Places {
    next: u64,
    state: u64,
}

impl Places {
    fn of(item: u64) -> Self {
        Places { next: 0, state: mix(item) | 1 }
    }

    fn next_below(&mut self, end: u64) -> Option<u64> {
        if self.next >= end {
            return None;
        }
        let place = self.next;
        self.state = self.state.wrapping_mul(0xDA94_2042_E4DD_58B5);
        // Uniform in (0, 1], from the high bits, which are the better ones.
        let chance = ((self.state >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let from = place as f64 + 1.5;
        let step = from * (1.0 / chance.sqrt() - 1.0);
        // Far enough beyond any sketch there is.
        self.next = place + step.min(1e15) as u64 + 1;
        Some(place)
    }
}

/// The first cells of a set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sketch {
    cells: Vec<Cell>,
}

impl Sketch {
    /// So many cells of the empty set.
    pub fn new(len: u64) -> Self {
        Sketch { cells: vec![Cell::default(); len as usize] }
    }

    /// Adds an item that is not in the set.
    pub fn add(&mut self, item: u64) {
        let (len, check) = (self.len(), check(item));
        let mut places = Places::of(item);
        while let Some(place) = places.next_below(len) {
            self.cells[place as usize].add(item, check, 1);
        }
    }

    /// How many cells there are.
    pub fn len(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Appends cells that follow.
    pub fn extend(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.cells.extend(cells);
    }

    /// What this set has and `other` has not, and the other way round; `None` if the cells do not suffice.
    pub fn difference(&self, other: &Sketch) -> Option<(Vec<u64>, Vec<u64>)> {
        let end = self.len().min(other.len());
        let mut cells: Vec<Cell> = self.cells.clone();
        for (cell, theirs) in cells.iter_mut().zip(&other.cells) {
            cell.sum ^= theirs.sum;
            cell.check ^= theirs.check;
            cell.count = cell.count.wrapping_sub(theirs.count);
        }
        cells.truncate(end as usize);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut look: Vec<usize> = (0..cells.len()).collect();
        while let Some(index) = look.pop() {
            let Some((item, count)) = cells[index].single() else { continue };
            if count > 0 {
                ours.push(item)
            } else {
                theirs.push(item)
            }
            if ours.len() + theirs.len() > 2 * cells.len() {
                return None; // cells that were made up
            }
            let (check, mut places) = (check(item), Places::of(item));
            while let Some(place) = places.next_below(end) {
                cells[place as usize].add(item, check, -count);
                look.push(place as usize);
            }
        }
        cells.iter().all(Cell::is_empty).then_some((ours, theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sketch(items: &BTreeSet<u64>, end: u64) -> Sketch {
        let mut sketch = Sketch::new(end);
        items.iter().for_each(|item| sketch.add(mix(*item)));
        sketch
    }

    proptest! {
        #[test]
        fn the_difference_is_found_or_more_cells_are_asked_for(
            a in proptest::collection::btree_set(any::<u64>(), 0..60),
            b in proptest::collection::btree_set(any::<u64>(), 0..60),
            both in proptest::collection::btree_set(any::<u64>(), 0..200),
        ) {
            let a: BTreeSet<u64> = a.union(&both).copied().collect();
            let b: BTreeSet<u64> = b.union(&both).copied().collect();
            let mut end = 64;
            let (mut ours, mut theirs) = loop {
                if let Some(found) = sketch(&a, end).difference(&sketch(&b, end)) {
                    break found;
                }
                end *= 2;
                prop_assert!(end <= 1024);
            };
            ours.sort_unstable();
            theirs.sort_unstable();
            let only = |x: &BTreeSet<u64>, y: &BTreeSet<u64>| {
                let mut only: Vec<u64> = x.difference(y).map(|item| mix(*item)).collect();
                only.sort_unstable();
                only
            };
            prop_assert_eq!((ours, theirs), (only(&a, &b), only(&b, &a)));
        }

        #[test]
        fn cells_that_are_made_up_do_no_harm(
            bytes in proptest::collection::vec(any::<[u8; CELL_BYTES]>(), 0..64),
        ) {
            let mut theirs = Sketch::new(0);
            theirs.extend(bytes.iter().map(Cell::decode));
            let found = Sketch::new(theirs.len()).difference(&theirs);
            prop_assert!(found.is_none_or(|(ours, theirs)| ours.len() + theirs.len() <= 128));
        }
    }

    #[test]
    fn twenty_differences_fit_into_one_datagram() {
        let fails = |trial: &u64| {
            let items: BTreeSet<u64> = (0..20).map(|i| trial * 1000 + i).collect();
            sketch(&items, 64).difference(&Sketch::new(64)).is_none_or(|(ours, _)| ours.len() != 20)
        };
        assert!((0..200).filter(fails).count() <= 2);
    }

    #[test]
    fn a_cell_goes_there_and_back() {
        let cell = Cell { sum: 1 << 63 | 5, check: 77, count: -3 };
        let mut bytes = Vec::new();
        cell.encode(&mut bytes);
        assert_eq!(bytes.try_into().map(|bytes| Cell::decode(&bytes)), Ok(cell));
    }
}
