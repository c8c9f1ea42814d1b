//! The wires: how a request is written and how far a reply goes. A reply is read only as far as it must be,
//! to check it and to find its end; a protocol's two directions are in one file.

mod memcached;
mod pipe;
mod resp;

use std::fmt;
use std::str::FromStr;

use crate::template::Template;

/// A protocol that a server can be asked to speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// Memcached's meta commands, which it pipelines best.
    Memcached,
    /// Turbopump's own: kept connections with framed replies, and what `nc` sends when each request has its
    /// own connection.
    Pipe,
    /// Redis's, version 2.
    Resp,
}

impl Protocol {
    /// Every protocol by its name.
    pub const ALL: [Protocol; 3] = [Protocol::Memcached, Protocol::Pipe, Protocol::Resp];

    /// How options and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Memcached => "memcached",
            Protocol::Pipe => "pipe",
            Protocol::Resp => "resp",
        }
    }

    /// Bytes of the longest key.
    pub(crate) fn key_size_max(self) -> usize {
        match self {
            Protocol::Memcached => 250,
            Protocol::Pipe | Protocol::Resp => 4096,
        }
    }

    pub(crate) fn wire(self, one_shot: bool) -> Wire {
        match self {
            Protocol::Memcached => Wire::Memcached,
            Protocol::Pipe if one_shot => Wire::PipeLine,
            Protocol::Pipe => Wire::PipeFramed,
            Protocol::Resp => Wire::Resp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
        known.ok_or_else(|| format!("{name} is no protocol: memcached, pipe or resp"))
    }
}

/// What the front of a reply says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Head {
    /// More bytes are needed.
    Partial,
    /// A value stands from `start` on, and `tail` bytes after it belong to the reply.
    Value {
        /// Where the value begins.
        start: usize,
        /// Bytes of the value.
        length: usize,
        /// Bytes after it.
        tail: usize,
    },
    /// The write is done; the reply has so many bytes.
    Stored(usize),
    /// There is nothing under the key; the reply has so many bytes.
    Missing(usize),
    /// The server refuses the request, in so many bytes.
    Error(usize),
    /// No reply of this protocol begins so.
    Foreign,
}

/// A head that is longer is none.
pub const HEAD_SIZE_MAX: usize = 4096;

/// A protocol as it is used on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wire {
    Memcached,
    PipeFramed,
    PipeLine,
    Resp,
}

impl Wire {
    /// How errors call it.
    pub fn name(self) -> &'static str {
        match self {
            Wire::Memcached => Protocol::Memcached.name(),
            Wire::PipeFramed | Wire::PipeLine => Protocol::Pipe.name(),
            Wire::Resp => Protocol::Resp.name(),
        }
    }

    /// What a connection sends first, if anything; the answer is one more reply.
    pub fn hello(self) -> Option<&'static [u8]> {
        (self == Wire::PipeFramed).then_some(pipe::HELLO)
    }

    /// Writes the template of a read.
    pub fn get(self, template: &mut Template) {
        match self {
            Wire::Memcached => memcached::get(template),
            Wire::PipeFramed | Wire::PipeLine => pipe::get(template),
            Wire::Resp => resp::get(template),
        }
    }

    /// Writes the template of a write.
    pub fn set(self, template: &mut Template) {
        match self {
            Wire::Memcached => memcached::set(template),
            Wire::PipeFramed => pipe::set_framed(template),
            Wire::PipeLine => pipe::set_line(template),
            Wire::Resp => resp::set(template),
        }
    }

    /// Reads the front of a reply that may still be arriving.
    pub fn head(self, reply: &[u8], read: bool) -> Head {
        match self {
            Wire::Memcached => memcached::head(reply, read),
            Wire::PipeFramed => pipe::head(reply, read),
            // A raw reply ends with its connection: until then it is not known what it is.
            Wire::PipeLine => Head::Partial,
            Wire::Resp => resp::head(reply),
        }
    }

    /// Reads the front of a reply that came to `total` bytes when its connection ended.
    pub fn last_head(self, reply: &[u8], total: usize, read: bool) -> Head {
        match self {
            Wire::PipeLine => pipe::raw(reply, total, read),
            _ => self.head(reply, read),
        }
    }
}

/// Where the line at the front ends, its newline excluded.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().take(HEAD_SIZE_MAX).position(|&byte| byte == b'\n')
}

/// The number at the front, and the digits it has.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut value, mut digits) = (0usize, 0);
    while let Some(digit) = bytes.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
    {
        value = value.checked_mul(10)?.checked_add(usize::from(digit))?;
        digits += 1;
    }
    (digits > 0).then_some((value, digits))
}

/// What an unfinished head comes to.
fn unfinished(bytes: &[u8]) -> Head {
    if bytes.len() < HEAD_SIZE_MAX { Head::Partial } else { Head::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every front of `reply` is partial, and all of it is `expected`, whatever follows.
    fn arrives(wire: Wire, read: bool, reply: &str, expected: Head) {
        let header = match expected {
            _ if wire == Wire::PipeFramed => reply.rfind('|').unwrap() + 1,
            Head::Value { start, .. } => start,
            Head::Stored(length) | Head::Missing(length) | Head::Error(length) => length.min(reply.len()),
            Head::Partial | Head::Foreign => 1,
        };
        for end in 0..header {
            assert_eq!(wire.head(&reply.as_bytes()[..end], read), Head::Partial, "{reply:?} to {end}");
        }
        for more in ["", "ok|", "\r\n"] {
            assert_eq!(wire.head(format!("{reply}{more}").as_bytes(), read), expected, "{reply:?}");
        }
    }

    fn value(start: usize, length: usize, tail: usize) -> Head {
        Head::Value { start, length, tail }
    }

    #[test]
    fn resp_replies_byte_by_byte() {
        arrives(Wire::Resp, true, "$3\r\n", value(4, 3, 2));
        arrives(Wire::Resp, true, "$1073741824\r\n", value(13, 1 << 30, 2));
        arrives(Wire::Resp, true, "$-1\r\n", Head::Missing(5));
        arrives(Wire::Resp, true, "_\r\n", Head::Missing(3));
        arrives(Wire::Resp, false, "+OK\r\n", Head::Stored(5));
        arrives(Wire::Resp, false, "-ERR no\r\n", Head::Error(9));
        for foreign in ["ok|", "*1\r\n", "$x\r\n", "$99999999999999999999\r\n", "VA 3\r\n"] {
            assert_eq!(Wire::Resp.head(foreign.as_bytes(), true), Head::Foreign, "{foreign}");
        }
    }

    #[test]
    fn memcached_replies_byte_by_byte() {
        arrives(Wire::Memcached, true, "VA 100\r\n", value(8, 100, 2));
        arrives(Wire::Memcached, true, "VA 100 s100 t-1\r\n", value(17, 100, 2));
        arrives(Wire::Memcached, true, "EN\r\n", Head::Missing(4));
        arrives(Wire::Memcached, false, "HD\r\n", Head::Stored(4));
        arrives(Wire::Memcached, false, "NS \r\n", Head::Error(5));
        arrives(Wire::Memcached, false, "SERVER_ERROR out of memory\r\n", Head::Error(28));
        for foreign in ["+OK\r\n", "VA x\r\n", "ok|length=0|\n"] {
            assert_eq!(Wire::Memcached.head(foreign.as_bytes(), true), Head::Foreign, "{foreign}");
        }
    }

    #[test]
    fn framed_replies_byte_by_byte() {
        arrives(Wire::PipeFramed, true, "ok|version=1-2 length=100|", value(26, 100, 1));
        arrives(Wire::PipeFramed, true, "ok|length=0|", value(12, 0, 1));
        arrives(Wire::PipeFramed, false, "ok|version=1-2 length=0|\n", Head::Stored(25));
        arrives(Wire::PipeFramed, true, "error|code=not_found length=7|nothing\n", Head::Missing(38));
        arrives(Wire::PipeFramed, true, "error|code=busy length=4|wait\n", Head::Error(30));
        for foreign in ["+OK\r\n", "ok|length=x|", "ok|version=1|", "okay|length=1|", "$3\r\n|"] {
            assert_eq!(Wire::PipeFramed.head(foreign.as_bytes(), true), Head::Foreign, "{foreign}");
        }
    }

    #[test]
    fn raw_replies_end_with_their_connection() {
        let raw = |reply: &str, read| Wire::PipeLine.last_head(reply.as_bytes(), reply.len(), read);
        assert_eq!(Wire::PipeLine.head(b"ok|version=1-2\n", false), Head::Partial);
        assert_eq!(raw("key:000000000042abc", true), value(0, 19, 0));
        assert_eq!(raw("ok|version=1-2\n", false), Head::Stored(15));
        assert_eq!(raw("error|code=not_found|nothing under it\n", true), Head::Missing(38));
        assert_eq!(raw("error|code=busy|wait\n", true), Head::Error(21));
        assert_eq!(raw("what", false), Head::Foreign);
    }

    #[test]
    fn a_head_has_an_end() {
        for (wire, front) in [(Wire::Memcached, "VA 1"), (Wire::PipeFramed, "ok|a"), (Wire::Resp, "+OK ")] {
            let endless = format!("{front}{}", "1".repeat(HEAD_SIZE_MAX));
            assert_eq!(wire.head(endless.as_bytes(), true), Head::Foreign, "{wire:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert!("http".parse::<Protocol>().is_err());
    }
}
