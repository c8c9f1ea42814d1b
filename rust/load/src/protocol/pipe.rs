//! Turbopump's own protocol: kept connections with framed replies, and lines as `nc` sends them.

use super::{HEAD_SIZE_MAX, Head, number, unfinished};
use crate::template::Template;

/// Asks for a connection that carries many requests, with replies that tell their length.
pub const HELLO: &[u8] = b"keep|frame=1|\n";

pub fn get(template: &mut Template) {
    template.text("read|name=").key().text("|\n");
}

pub fn set_framed(template: &mut Template) {
    let value_size = template.value_size();
    template.text("write|name=").key().text(format!(" length={value_size}|")).value().text("\n");
}

pub fn set_line(template: &mut Template) {
    template.text("write|name=").key().text("|").value().text("\n");
}

/// The head of a framed reply: `ok|name=value ... length=L|` and L bytes and a newline.
pub fn head(reply: &[u8], read: bool) -> Head {
    let mut pipes =
        reply.iter().take(HEAD_SIZE_MAX).enumerate().filter(|(_, byte)| matches!(byte, b'|' | b'\n'));
    let (first, second) = match (pipes.next(), pipes.next()) {
        (Some((first, b'|')), Some((second, b'|'))) => (first, second),
        (None, _) | (Some((_, b'|')), None) if matches!(reply, [] | [b'o' | b'e', ..]) => {
            return unfinished(reply);
        }
        _ => return Head::Foreign,
    };
    let (mut length, mut missing) = (None, false);
    for param in reply[first + 1..second].split(|&byte| byte == b' ') {
        if let Some(digits) = param.strip_prefix(b"length=") {
            length = number(digits).map(|(length, _)| length);
        }
        missing |= param == b"code=not_found";
    }
    let Some(length) = length else { return Head::Foreign };
    let end = second + 1 + length + 1;
    match &reply[..first] {
        b"ok" if read => Head::Value { start: second + 1, length, tail: 1 },
        b"ok" => Head::Stored(end),
        b"error" if missing && read => Head::Missing(end),
        b"error" => Head::Error(end),
        _ => Head::Foreign,
    }
}

/// An unframed reply: a value as it is, or one line.
pub fn raw(reply: &[u8], total: usize, read: bool) -> Head {
    if reply.starts_with(b"error|code=not_found|") && read {
        Head::Missing(total)
    } else if reply.starts_with(b"error|") {
        Head::Error(total)
    } else if read {
        Head::Value { start: 0, length: total, tail: 0 }
    } else if reply.starts_with(b"ok|") {
        Head::Stored(total)
    } else {
        Head::Foreign
    }
}
