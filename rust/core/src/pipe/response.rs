//! A reply, both ways: what the server writes and a client reads.

use super::percent;
use crate::blob::Value;
use crate::error::Refusal;
use crate::feed::Change;
use crate::output::Output;

/// Writes the reply to one request.
#[derive(Debug)]
pub struct Writer<'o> {
    /// Where replies go.
    pub out: &'o mut Output,
    /// Whether the reply carries its length.
    pub frame: bool,
    /// The request's number.
    pub id: Option<u64>,
}

impl Writer<'_> {
    /// `ok` with what there is to say.
    pub fn status(&mut self, params: &[(&str, &str)]) {
        if self.frame {
            return self.body(params, Value::Inline(b""));
        }
        self.head("ok", params);
        self.out.push(b"\n");
    }

    /// A value, raw or framed.
    pub fn body(&mut self, params: &[(&str, &str)], value: Value<'_>) {
        if self.frame {
            self.framed("ok", params, value);
        } else {
            self.out.push_value(value);
        }
    }

    /// A change, in one line; framed, its key is what follows the header.
    pub fn event(&mut self, change: &Change) {
        let (revision, version, size) =
            (change.revision.to_string(), change.version.to_string(), change.size.to_string());
        let mut params =
            vec![("revision", revision.as_str()), ("kind", change.kind.name()), ("version", &version)];
        params.push(("size", &size));
        if self.frame {
            return self.framed("ok", &params, Value::Inline(&change.key));
        }
        self.head("event", &params);
        self.out.push(b" name=");
        self.out.push(&percent::encode(&change.key));
        self.out.push(b"\n");
    }

    /// An error, in one line.
    pub fn refusal(&mut self, refusal: &Refusal) {
        let text = refusal.to_string().replace(['\n', '\r'], " ");
        let params = [("code", refusal.code())];
        if self.frame {
            return self.framed("error", &params, Value::Inline(text.as_bytes()));
        }
        self.head("error", &params);
        self.out.push(b"|");
        self.out.push(text.as_bytes());
        self.out.push(b"\n");
    }

    fn framed(&mut self, status: &str, params: &[(&str, &str)], value: Value<'_>) {
        let (id, length) = (self.id.unwrap_or_default().to_string(), value.len().to_string());
        let id = self.id.is_some().then_some(("id", id.as_str()));
        let params: Vec<(&str, &str)> =
            id.into_iter().chain(params.iter().copied()).chain([("length", length.as_str())]).collect();
        self.head(status, &params);
        self.out.push(b"|");
        self.out.push_value(value);
        self.out.push(b"\n");
    }

    /// Values here are the server's own words: they hold nothing to escape.
    fn head(&mut self, status: &str, params: &[(&str, &str)]) {
        self.out.push(status.as_bytes());
        self.out.push(b"|");
        for (index, (name, value)) in params.iter().enumerate() {
            if index > 0 {
                self.out.push(b" ");
            }
            self.out.push(name.as_bytes());
            self.out.push(b"=");
            self.out.push(value.as_bytes());
        }
    }
}

/// A framed reply, as a client gets it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Response<'b> {
    /// Whether the status is `ok`.
    pub ok: bool,
    /// The request's number; 0 when it had none.
    pub id: u64,
    /// Parameters by name, without `id` and `length`.
    pub params: Vec<(String, String)>,
    /// What follows the header, where it came.
    pub body: &'b [u8],
}

/// The server broke the protocol: nothing more can be read from the connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the server's reply is not a framed reply of the pipe protocol: {0}")]
pub struct BrokenReply(&'static str);

/// Headers of replies are short; a longer one is none.
const HEADER_MAX: usize = 4096;

/// Reads one framed reply from the front of `buffer`, and tells how long it is; `None` while it is not
/// whole.
///
/// # Errors
/// What is there is no framed reply, or one longer than `reply_max`.
pub fn read(buffer: &[u8], reply_max: usize) -> Result<Option<(Response<'_>, usize)>, BrokenReply> {
    let mut pipes =
        buffer.iter().take(HEADER_MAX).enumerate().filter(|(_, byte)| **byte == b'|').map(|(at, _)| at);
    let (Some(first), Some(second)) = (pipes.next(), pipes.next()) else {
        return if buffer.len() < HEADER_MAX { Ok(None) } else { Err(BrokenReply("its header has no end")) };
    };
    let mut response = Response {
        ok: match &buffer[..first] {
            b"ok" => true,
            b"error" => false,
            _ => return Err(BrokenReply("it begins with neither ok nor error")),
        },
        ..Response::default()
    };
    let mut length: Option<usize> = None;
    for param in buffer[first + 1..second].split(|&byte| byte == b' ').filter(|param| !param.is_empty()) {
        let equals =
            param.iter().position(|&byte| byte == b'=').ok_or(BrokenReply("a parameter has no ="))?;
        let value =
            percent::decode(&param[equals + 1..]).ok_or(BrokenReply("a parameter is badly encoded"))?;
        let value = String::from_utf8(value).map_err(|_| BrokenReply("a parameter is not text"))?;
        match &param[..equals] {
            b"length" => length = value.parse().ok(),
            b"id" => response.id = value.parse().map_err(|_| BrokenReply("its id is not a number"))?,
            name => response.params.push((String::from_utf8_lossy(name).into_owned(), value)),
        }
    }
    let length = length.ok_or(BrokenReply("it has no length"))?;
    if length > reply_max {
        return Err(BrokenReply("it is longer than the client takes"));
    }
    let (start, end) = (second + 1, second + 1 + length);
    match buffer.get(end) {
        None => Ok(None),
        Some(b'\n') => {
            response.body = &buffer[start..end];
            Ok(Some((response, end + 1)))
        }
        Some(_) => Err(BrokenReply("no newline follows it")),
    }
}
