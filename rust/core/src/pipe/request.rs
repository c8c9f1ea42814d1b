//! A request's header, both ways: what a client writes and the server reads.

use super::commands::{self, Spec};
use super::percent;
use crate::error::Refusal;

/// More parameters than any command takes: each is compared with those before it.
const PARAMS_MAX: usize = 16;

/// How the end of a request is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There is no value.
    None,
    /// The value ends at its newline.
    Line,
    /// The value has this many bytes.
    Length(usize),
    /// The value ends with the connection.
    Eof,
    /// It cannot be known.
    Unknown,
}

/// A header that has arrived.
#[derive(Debug)]
pub struct Request {
    /// The command; `None` when there is no such command.
    pub spec: Option<&'static Spec>,
    /// Parameters by name, decoded, without the ones below.
    pub params: Vec<(Vec<u8>, Vec<u8>)>,
    /// The number the client gave the request, to be repeated in the reply.
    pub id: Option<u64>,
    /// Whether the reply is to carry its length.
    pub frame: bool,
    /// How the end is known.
    pub framing: Framing,
    /// What is wrong with the header; the value is skipped and this answered.
    pub refusal: Option<Refusal>,
}

impl Request {
    /// Parses the header at the front of `line`, if it is whole, and tells its length.
    pub(super) fn parse(line: &[u8], last: bool) -> Option<(Self, usize)> {
        let mut pipes = line.iter().enumerate().filter(|(_, byte)| matches!(byte, b'|' | b'\n'));
        let first = pipes.next().filter(|(_, byte)| **byte == b'|');
        match (first, first.and_then(|_| pipes.next())) {
            (Some((first, _)), Some((second, b'|'))) => {
                Some((Self::read(&line[..first], &line[first + 1..second], false), second + 1))
            }
            // A line without both pipes: enough for a command without a value, as in `ping`.
            _ => match line.iter().position(|&byte| byte == b'\n') {
                Some(newline) => Some((Self::short(&line[..newline]), newline)),
                None => last.then(|| (Self::short(line), line.len())),
            },
        }
    }

    fn short(line: &[u8]) -> Self {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (command, params) = match line.iter().position(|&byte| byte == b'|') {
            Some(pipe) => (&line[..pipe], &line[pipe + 1..]),
            None => (line, &b""[..]),
        };
        Self::read(command, params, true)
    }

    fn read(command: &[u8], params: &[u8], short: bool) -> Self {
        let spec = commands::find(command.trim_ascii());
        let takes_value = spec.is_none_or(|spec| spec.takes_value);
        let framing = if takes_value { Framing::Line } else { Framing::None };
        let mut request =
            Request { spec, params: Vec::new(), id: None, frame: false, framing, refusal: None };
        if spec.is_none() {
            request.refusal = Some(Refusal::UnknownCommand(crate::error::printable(command)));
        } else if short && takes_value {
            let text = "a write is write|name=...|value: both | are needed";
            request.refusal = Some(Refusal::Syntax(text.into()));
        }
        if short {
            request.framing = Framing::None;
        }
        let mut seen: Vec<&[u8]> = Vec::new();
        for param in params.split(u8::is_ascii_whitespace).filter(|param| !param.is_empty()) {
            if seen.len() == PARAMS_MAX {
                let text = format!("no command takes more than {PARAMS_MAX} parameters");
                (request.framing, request.refusal) = (Framing::Unknown, Some(Refusal::Syntax(text)));
                break;
            }
            if let Err(refusal) = request.param(param, &mut seen) {
                request.refusal.get_or_insert(refusal);
            }
        }
        request
    }

    fn param<'p>(&mut self, param: &'p [u8], seen: &mut Vec<&'p [u8]>) -> Result<(), Refusal> {
        let shown = || crate::error::printable(param);
        let Some(equals) = param.iter().position(|&byte| byte == b'=') else {
            seen.push(param);
            return Err(Refusal::Syntax(format!("{:?} is not a parameter: write name=value", shown())));
        };
        let (name, value) = (&param[..equals], &param[equals + 1..]);
        let named = String::from_utf8_lossy(name);
        if seen.contains(&name) {
            // Two lengths: whichever is taken, another reader of these bytes would take the other.
            self.framing = if name == b"length" { Framing::Unknown } else { self.framing };
            return Err(Refusal::bad_param(&named, value, "give it once"));
        }
        seen.push(name);
        let Some(value) = percent::decode(value) else {
            // Invariant of the framing: a length is plain digits, so it cannot be the one that is unreadable.
            if name == b"length" {
                self.framing = Framing::Unknown;
            }
            return Err(Refusal::bad_param(&named, value, "% is followed by two hexadecimal digits"));
        };
        let number =
            || std::str::from_utf8(&value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        match name {
            b"length" if self.framing == Framing::None => {}
            b"length" if value == b"eof" => self.framing = Framing::Eof,
            b"length" => match number().and_then(|text| text.parse().ok()) {
                Some(length) => self.framing = Framing::Length(length),
                None => {
                    self.framing = Framing::Unknown;
                    return Err(Refusal::bad_param("length", &value, "a count of bytes, or eof"));
                }
            },
            b"id" => match number().and_then(|text| text.parse().ok()) {
                Some(id) => self.id = Some(id),
                None => return Err(Refusal::bad_param("id", &value, "a number below 2^64")),
            },
            b"frame" => self.frame = flag("frame", &value)?,
            _ => {
                let spec = self.spec.filter(|spec| !spec.params.iter().any(|known| known.as_bytes() == name));
                if let Some(spec) = spec {
                    let fix = format!("{} takes {}", spec.name, spec.params.join("=, ") + "=");
                    return Err(Refusal::Syntax(format!("there is no parameter {named:?}: {fix}")));
                }
                self.params.push((name.to_vec(), value));
            }
        }
        Ok(())
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

/// A parameter that is 0 or 1.
pub fn flag(name: &str, value: &[u8]) -> Result<bool, Refusal> {
    match value {
        b"1" => Ok(true),
        b"0" => Ok(false),
        _ => Err(Refusal::bad_param(name, value, "0 or 1")),
    }
}

/// Appends a request as a client sends it: `command|params|`, to be followed by the value, if any.
pub fn write_header(out: &mut Vec<u8>, command: &str, params: &[(&str, &[u8])]) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'|');
    for (index, (name, value)) in params.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        percent::encode_into(value, out);
    }
    out.push(b'|');
}
