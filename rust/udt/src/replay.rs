//! Which packet numbers were opened already: a window of 8192 bits, as Linux WireGuard's.

/// Numbers behind the highest that are still told apart.
pub(crate) const WINDOW: u64 = 8192;
const WORDS: usize = (WINDOW / 64) as usize + 1;

/// A sliding bitmap (RFC 6479): one word more than the window, so that it never needs to be shifted.
pub(crate) struct ReplayWindow {
    /// One above the highest number.
    next: u64,
    words: Box<[u64; WORDS]>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        ReplayWindow { next: 0, words: Box::new([0; WORDS]) }
    }
}

impl ReplayWindow {
    /// Whether the number may still be taken: look before opening, `insert` after the tag has matched.
    pub fn is_new(&self, number: u64) -> bool {
        if number >= self.next {
            return true;
        }
        self.next - number <= WINDOW && self.words[slot(number)] & bit(number) == 0
    }

    /// Marks the number as seen. Returns whether it is higher than all before.
    pub fn insert(&mut self, number: u64) -> bool {
        let highest = number >= self.next;
        if highest {
            let from = if self.next == 0 { 0 } else { (self.next - 1) / 64 + 1 };
            for word in (from..=number / 64).take(WORDS) {
                self.words[(word % WORDS as u64) as usize] = 0;
            }
            if number / 64 - from.min(number / 64) >= WORDS as u64 {
                self.words.fill(0);
            }
            self.next = number + 1;
        }
        self.words[slot(number)] |= bit(number);
        highest
    }
}

fn slot(number: u64) -> usize {
    (number / 64 % WORDS as u64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        /// The law: a number is taken once, and only within the window.
        #[test]
        fn each_number_is_taken_once(
            steps in prop::collection::vec((0_u64..4, 0_u64..20_000), 1..400),
        ) {
            let (mut window, mut seen, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
            for (kind, step) in steps {
                let number = match kind {
                    0 => highest + 1,
                    1 => highest + step,
                    2 => highest.saturating_sub(step % 100),
                    _ => highest.saturating_sub(step),
                };
                let wanted = number + WINDOW > highest && !seen.contains(&number);
                prop_assert_eq!(window.is_new(number), wanted, "{} of {}", number, highest);
                if wanted {
                    window.insert(number);
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }
}
