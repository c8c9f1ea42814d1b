//! Glob patterns as Redis has them: `*`, `?`, `[a-z]`, `[^a]` and `\` before a character taken literally.
//!
//! A pattern is a row of sets of bytes, some with a `*` before them. All the places in it that the text may
//! have come to are the bits of a number, moved on together with each byte: so the work is the same whatever
//! the pattern, and no text makes it go back.
//!
//! Source: Baeza-Yates and Gonnet, "A new approach to text searching" (1992).

/// A pattern, made ready.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// For each byte, at which places the pattern takes it.
    takes: Box<[u64]>,
    /// Places where any text may come in between: a `*`.
    stays: Box<[u64]>,
    /// The place behind the last set.
    end: usize,
}

impl Pattern {
    /// Makes a pattern ready.
    pub fn new(pattern: &[u8]) -> Self {
        let mut sets = Vec::new();
        let mut stars = Vec::new();
        let mut p = 0;
        while p < pattern.len() {
            if pattern[p] == b'*' {
                stars.push(sets.len());
                p += 1;
            } else {
                let (set, next) = one(pattern, p);
                sets.push(set);
                p = next;
            }
        }
        let words = sets.len() / 64 + 1;
        let mut stays = vec![0; words];
        stars.iter().for_each(|place| stays[place / 64] |= 1 << (place % 64));
        Pattern { takes: takes(&sets, words), stays: stays.into(), end: sets.len() }
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self.stays.len() {
            1 => self.matches_short(text),
            _ => self.matches_long(text),
        }
    }

    /// About how many nanoseconds it took to make the pattern ready.
    pub fn made_ns(&self) -> u64 {
        (40 * self.end + 256 * self.stays.len()) as u64
    }

    /// About how many nanoseconds matching a text of this length takes at most.
    pub fn match_ns(&self, len: usize) -> u64 {
        (self.stays.len() * len) as u64
    }

    /// One word has all places: most patterns.
    fn matches_short(&self, text: &[u8]) -> bool {
        let (stays, end) = (self.stays[0], 1 << self.end);
        let mut places = 1;
        for &byte in text {
            if places & stays & end != 0 {
                return true;
            }
            places = (places & self.takes[usize::from(byte)]) << 1 | places & stays;
            if places == 0 {
                return false;
            }
        }
        places & end != 0
    }

    fn matches_long(&self, text: &[u8]) -> bool {
        let words = self.stays.len();
        let mut places = vec![0; words];
        places[0] = 1;
        for &byte in text {
            let takes = &self.takes[usize::from(byte) * words..][..words];
            let (mut carry, mut any) = (0, 0);
            for ((place, takes), stays) in places.iter_mut().zip(takes).zip(&self.stays) {
                let taken = *place & takes;
                *place = taken << 1 | carry | *place & stays;
                (carry, any) = (taken >> 63, any | *place);
            }
            if any == 0 {
                return false;
            }
        }
        places[self.end / 64] >> (self.end % 64) & 1 == 1
    }
}

/// A set of bytes.
type Set = [u64; 4];

/// For each byte, in `words` words, the places whose set has it.
fn takes(sets: &[Set], words: usize) -> Box<[u64]> {
    // Sets that have most bytes, as that of `?`, are put into every row: what they lack is less to take out.
    let is_most = |set: &Set| set.iter().map(|word| word.count_ones()).sum::<u32>() > 128;
    let mut row = vec![0; words];
    for place in (0..sets.len()).filter(|place| is_most(&sets[*place])) {
        row[place / 64] |= 1 << (place % 64);
    }
    let mut rows = row.repeat(256);
    for (place, set) in sets.iter().enumerate() {
        for (index, word) in set.iter().enumerate() {
            let mut left = if is_most(set) { !word } else { *word };
            while left != 0 {
                let byte = index * 64 + left.trailing_zeros() as usize;
                rows[byte * words + place / 64] ^= 1 << (place % 64);
                left &= left - 1;
            }
        }
    }
    rows.into()
}

fn add(set: &mut Set, byte: u8) {
    set[usize::from(byte / 64)] |= 1 << (byte % 64);
}

/// The set at `p`, and where the pattern goes on.
fn one(pattern: &[u8], p: usize) -> (Set, usize) {
    let mut set = [0; 4];
    match pattern[p] {
        b'?' => ([u64::MAX; 4], p + 1),
        b'[' => class(pattern, p + 1),
        b'\\' if p + 1 < pattern.len() => {
            add(&mut set, pattern[p + 1]);
            (set, p + 2)
        }
        literal => {
            add(&mut set, literal);
            (set, p + 1)
        }
    }
}

/// A class that is not closed ends with the pattern, as in Redis.
fn class(pattern: &[u8], mut p: usize) -> (Set, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut set = [0; 4];
    while let Some(&low) = pattern.get(p).filter(|&&end| end != b']') {
        if low == b'\\' && p + 1 < pattern.len() {
            add(&mut set, pattern[p + 1]);
            p += 2;
        } else if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() {
            // As Redis on most machines, whose characters have a sign: those from 128 on come first.
            let (low, high) = (low as i8, pattern[p + 2] as i8);
            (low.min(high)..=low.max(high)).for_each(|byte| add(&mut set, byte as u8));
            p += 3;
        } else {
            add(&mut set, low);
            p += 1;
        }
    }
    if negated {
        set.iter_mut().for_each(|word| *word = !*word);
    }
    (set, (p + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        Pattern::new(pattern).matches(text)
    }

    #[test]
    fn as_redis_documents() {
        let yes = [
            ("h?llo", "hello"),
            ("h*llo", "hllo"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hbllo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("", ""),
            ("*", ""),
            ("**a", "bca"),
            (r"a\*b", "a*b"),
            ("a[b", "ab"),
            (r"[\]]", "]"),
            ("*a*b*c", "xxaxxbxxc"),
        ];
        let no = [
            ("h?llo", "hllo"),
            ("h[ae]llo", "hillo"),
            ("h[^e]llo", "hello"),
            ("", "a"),
            (r"a\*b", "axb"),
            ("a", "ab"),
        ];
        assert!(yes.iter().all(|(pattern, text)| matches(pattern.as_bytes(), text.as_bytes())));
        assert!(no.iter().all(|(pattern, text)| !matches(pattern.as_bytes(), text.as_bytes())));
        assert!(matches(b"[c-\xffa", b"A") && !matches(b"[c-\xffa", b"d"));
    }

    /// The rule itself, without regard to time.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| plainly(rest, &text[skipped..])),
            ([], _) | (_, []) => false,
            ([_, ..], [byte, after @ ..]) => {
                let (set, next) = one(pattern, 0);
                set[usize::from(byte / 64)] >> (byte % 64) & 1 == 1 && plainly(&pattern[next..], after)
            }
        }
    }

    proptest! {
        #[test]
        fn short_and_long_patterns_match_by_the_same_rule(
            pattern in "[ab*?]{0,8}", text in "[ab]{0,9}", padding in 50usize..150,
        ) {
            let expected = plainly(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected);
            let padding = "x".repeat(padding);
            for (pattern, text) in [
                (format!("{padding}{pattern}"), format!("{padding}{text}")),
                (format!("{pattern}{padding}"), format!("{text}{padding}")),
            ] {
                prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected);
            }
        }
    }

    #[test]
    fn no_pattern_takes_longer_than_its_length_says() {
        for pattern in ["a*", "*a", "*?", "*[^b]"] {
            let pattern = pattern.repeat(1_000) + "b";
            assert!(!matches(pattern.as_bytes(), "a".repeat(20_000).as_bytes()));
        }
        assert!(matches("*".repeat(4_000).as_bytes(), "a".repeat(4_000).as_bytes()));
    }
}
