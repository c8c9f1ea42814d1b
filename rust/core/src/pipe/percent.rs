//! Percent-encoding, so that keys may hold blanks, pipes, newlines or any byte.
//!
//! Source: RFC 3986, section 2.1.

/// Whether a byte stands for itself in a parameter.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'|' | b'%' | b'=')
}

/// Appends `bytes` with everything escaped that would end a parameter.
pub fn encode_into(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// `bytes` with everything escaped that would end a parameter.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    encode_into(bytes, &mut out);
    out
}

/// The bytes that `text` stands for; `None` when a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, after @ ..] = after else { return None };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        out.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = after;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_go_there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let encoded = encode(&bytes);
            prop_assert!(encoded.iter().all(|byte| byte.is_ascii_graphic() && !b"|=".contains(byte)));
            prop_assert_eq!(decode(&encoded), Some(bytes));
        }
    }

    #[test]
    fn bad_escapes_are_refused() {
        for bad in ["%", "%2", "%zz", "a%2", "%%20"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(decode(b"a%7cb=%0a"), Some(b"a|b=\n".to_vec()));
    }
}
