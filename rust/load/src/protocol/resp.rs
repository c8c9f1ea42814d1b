//! Redis's protocol, version 2: GET and SET, as arrays of bulk strings.

use super::{Head, line_end, number, unfinished};
use crate::template::Template;

pub fn get(template: &mut Template) {
    let key_size = template.key_size();
    template.text(format!("*2\r\n$3\r\nGET\r\n${key_size}\r\n")).key().text("\r\n");
}

pub fn set(template: &mut Template) {
    let (key_size, value_size) = (template.key_size(), template.value_size());
    template.text(format!("*3\r\n$3\r\nSET\r\n${key_size}\r\n")).key();
    template.text(format!("\r\n${value_size}\r\n")).value().text("\r\n");
}

pub fn head(reply: &[u8]) -> Head {
    match reply {
        [] | [b'$'] => Head::Partial,
        [b'$', b'-', ..] => line(reply, |line| if line == b"$-1\r" { Some(Head::Missing) } else { None }),
        [b'$', rest @ ..] => value(rest),
        [b'+', ..] => line(reply, |_| Some(Head::Stored)),
        [b'-', ..] => line(reply, |_| Some(Head::Error)),
        [b'_', ..] => line(reply, |_| Some(Head::Missing)),
        _ => Head::Foreign,
    }
}

/// What nearly all replies are: a length, a line's end, a value.
fn value(rest: &[u8]) -> Head {
    let Some((length, digits)) = number(rest) else { return Head::Foreign };
    match &rest[digits..] {
        [] | [b'\r'] => Head::Partial,
        [b'\r', b'\n', ..] => Head::Value { start: digits + 3, length, tail: 2 },
        _ => Head::Foreign,
    }
}

fn line(reply: &[u8], kind: impl Fn(&[u8]) -> Option<fn(usize) -> Head>) -> Head {
    let Some(end) = line_end(reply) else { return unfinished(reply) };
    kind(&reply[..end]).map_or(Head::Foreign, |head| head(end + 1))
}
