//! Glob patterns as Redis has them: `*`, `?`, `[a-z]`, `[^a]` and `\` before a character taken literally.

/// Whether all of `text` matches `pattern`. At worst the product of the lengths, never exponential.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // The last `*` and where its match ends so far: the only place to come back to.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
        } else if let Some((star_at, end)) = star {
            star = Some((star_at, end + 1));
            (p, t) = (star_at + 1, end + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the pattern at `p`; returns where the pattern goes on.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// A class that is not closed ends with the pattern, as in Redis.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    while let Some(&low) = pattern.get(p).filter(|&&end| end != b']') {
        let escaped = low == b'\\' && p + 1 < pattern.len();
        if escaped {
            found |= pattern[p + 1] == byte;
            p += 2;
        } else if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() {
            let high = pattern[p + 2];
            found |= (low.min(high)..=low.max(high)).contains(&byte);
            p += 3;
        } else {
            found |= low == byte;
            p += 1;
        }
    }
    (found != negated).then_some((p + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::matches;

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
    }

    #[test]
    fn many_stars_are_not_exponential() {
        assert!(!matches(("a*".repeat(30) + "b").as_bytes(), "a".repeat(20_000).as_bytes()));
        assert!(!matches(("*a".repeat(30) + "b").as_bytes(), "a".repeat(5_000).as_bytes()));
    }
}
