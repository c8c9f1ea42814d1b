//! Memcached's meta commands: `mg` with the value, and `ms`.

use super::{Head, line_end, number, unfinished};
use crate::template::Template;

pub fn get(template: &mut Template) {
    template.text("mg ").key().text(" v\r\n");
}

pub fn set(template: &mut Template) {
    let value_size = template.value_size();
    template.text("ms ").key().text(format!(" {value_size}\r\n")).value().text("\r\n");
}

pub fn head(reply: &[u8], read: bool) -> Head {
    let Some(end) = line_end(reply) else { return unfinished(reply) };
    let length = end + 1;
    match reply {
        [b'V', b'A', b' ', rest @ ..] if read => match number(rest) {
            Some((value, _)) => Head::Value { start: length, length: value, tail: 2 },
            None => Head::Foreign,
        },
        [b'E', b'N', b'\r', ..] if read => Head::Missing(length),
        [b'H', b'D', b'\r' | b' ', ..] if !read => Head::Stored(length),
        [b'N', b'S' | b'F', ..] => Head::Error(length),
        _ if reply[..end].windows(5).any(|word| word == b"ERROR") => Head::Error(length),
        _ => Head::Foreign,
    }
}
