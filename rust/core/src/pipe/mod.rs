//! The pipe protocol, for `nc` and for turbopump's own clients: `command|name=value ...|bytes`. Both
//! directions of the wire are here; what the commands do is in `commands`.
//!
//! ```text
//! request := command "|" params "|" [ value ]
//! params  := name "=" value, separated by blanks; values are percent-encoded
//! value   := up to its newline; or exactly N bytes with length=N; or up to the half-close with length=eof
//! reply   := status line | raw bytes                              as it suits a shell
//!          | status "|" params " length=" N "|" bytes "\n"        with frame=1
//! ```

pub mod commands;
pub mod percent;
pub mod request;
pub mod response;

use std::sync::Arc;

use crate::blob::{BLOB_BYTES_MIN, BlobDraft};
use crate::config::Limits;
use crate::error::Refusal;
use crate::replica::Body;
use crate::usage::Usage;
use request::{Framing, Request};

/// What reading came to.
#[derive(Debug)]
pub enum Read {
    /// A whole request; it took the buffer up to this offset.
    Request(usize, Box<Request>, Body<'static>),
    /// A whole request that must be refused.
    Refused(usize, Box<Request>, Refusal),
    /// The buffer, up to this offset, is read, and ends within a request.
    Partial(usize),
    /// Where the next request begins is unknown: the connection ends after this refusal.
    Broken(Refusal),
}

/// Reads requests of one connection, which may come in any number of pieces.
#[derive(Debug, Default)]
pub struct Reader {
    /// The request whose value is on its way.
    request: Option<Box<Request>>,
    /// What of the buffer is known to hold no newline.
    searched: usize,
    /// A value that is too large to wait in the buffer.
    draft: Option<BlobDraft>,
    /// Bytes of a value with a length that are still to come.
    missing: usize,
    /// The value goes elsewhere, and not into the draft: how many bytes of it have come.
    diverted: Option<usize>,
}

impl Reader {
    /// Whether a request has begun.
    pub fn is_partial(&self) -> bool {
        self.request.is_some()
    }

    /// The request with a large value on its way in, how many bytes that will have if it says so, and how
    /// many have come.
    pub fn large(&self) -> Option<(&Request, Option<usize>, usize)> {
        let (request, draft) = (self.request.as_ref()?, self.draft.as_ref()?);
        let len = matches!(request.framing, Framing::Length(_)).then(|| self.length());
        Some((request, len, draft.len()))
    }

    /// Has that value go elsewhere: returns what has come of it. What `read` takes from now on is of the
    /// value, and in the request it is empty.
    pub fn divert(&mut self) -> Option<BlobDraft> {
        let draft = self.draft.take()?;
        self.diverted = Some(draft.len());
        Some(draft)
    }

    /// Reads one request from the front of `buffer`. `last` tells that nothing will follow the buffer,
    /// `alone` that this request is the connection's only one.
    pub fn read(
        &mut self,
        buffer: &[u8],
        last: bool,
        alone: bool,
        limits: &Limits,
        usage: &Arc<Usage>,
    ) -> Read {
        if self.request.is_some() {
            return self.value(buffer, 0, last, alone, limits);
        }
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let line = &buffer[blank..];
        if line.is_empty() {
            return Read::Partial(buffer.len());
        }
        let limit = header_max(limits);
        let head = &line[..line.len().min(limit)];
        let Some((request, length)) = Request::parse(head, last && head.len() == line.len()) else {
            let too_long = line.len() > limit;
            return if too_long {
                Read::Broken(Refusal::LineTooLong { limit })
            } else {
                Read::Partial(blank)
            };
        };
        let request = Box::new(request);
        let begun = match request.framing {
            Framing::Unknown => {
                return Read::Broken(request.refusal.unwrap_or_else(|| Refusal::Syntax("no framing".into())));
            }
            Framing::Length(length) => self.begin(Some(length), request, limits, usage),
            Framing::Eof => self.begin(None, request, limits, usage),
            Framing::None | Framing::Line => request,
        };
        self.request = Some(begun);
        self.value(buffer, blank + length, last, alone, limits)
    }

    /// Prepares for a value of `length` bytes, or up to the half-close.
    fn begin(
        &mut self,
        length: Option<usize>,
        mut request: Box<Request>,
        limits: &Limits,
        usage: &Arc<Usage>,
    ) -> Box<Request> {
        self.missing = length.unwrap_or(usize::MAX);
        if request.refusal.is_none() && length.is_some_and(|length| length > limits.value_max) {
            request.refusal = Some(Refusal::ValueTooLong { limit: limits.value_max });
        }
        if request.refusal.is_none() && self.missing >= BLOB_BYTES_MIN {
            match usage.check_room(length.unwrap_or(0) as u64) {
                Ok(()) => self.draft = Some(BlobDraft::new(length, usage)),
                Err(no_space) => request.refusal = Some(no_space.into()),
            }
        }
        request
    }

    fn value(&mut self, buffer: &[u8], at: usize, last: bool, alone: bool, limits: &Limits) -> Read {
        let rest = &buffer[at..];
        let framing = self.request.as_ref().map_or(Framing::None, |request| request.framing);
        match framing {
            Framing::None | Framing::Unknown => self.no_value(rest, at, last, alone, limits),
            Framing::Line => self.line(rest, at, last, alone, limits),
            Framing::Length(_) => self.sized(rest, at, last, alone),
            Framing::Eof => self.until_eof(rest, at, last, limits),
        }
    }

    /// A command without a value ends with its line; one that is alone, already with its second pipe, for who
    /// sends no newline and waits for the answer.
    fn no_value(&mut self, rest: &[u8], at: usize, last: bool, alone: bool, limits: &Limits) -> Read {
        match rest {
            [] if alone || last => self.done(at, Body::Lent(b"")),
            [] => Read::Partial(at),
            [b'\n', ..] => self.done(at + 1, Body::Lent(b"")),
            [b'\r', b'\n', ..] => self.done(at + 2, Body::Lent(b"")),
            [b'\r'] if !alone && !last => Read::Partial(at),
            [b'\r'] => self.done(at + 1, Body::Lent(b"")),
            _ => {
                let text = "this command takes no value: end the line after the second |";
                let refusal = Refusal::Syntax(text.into());
                let Some(request) = self.request.as_mut().filter(|_| !alone) else {
                    return Read::Broken(refusal);
                };
                request.refusal.get_or_insert(refusal);
                request.framing = Framing::Line;
                self.line(rest, at, last, alone, limits)
            }
        }
    }

    fn line(&mut self, rest: &[u8], at: usize, last: bool, alone: bool, limits: &Limits) -> Read {
        let found = rest.iter().skip(self.searched).position(|&byte| byte == b'\n');
        let newline = found.map(|found| found + self.searched);
        self.searched = 0;
        let line = &rest[..newline.unwrap_or(rest.len())];
        let too_long = line.len() > limits.line_max;
        if too_long && alone {
            return Read::Broken(Refusal::LineTooLong { limit: limits.line_max });
        }
        // Invariant: `value` is only reached with a request.
        let Some(request) = &mut self.request else { return Read::Partial(at) };
        if too_long {
            request.refusal.get_or_insert(Refusal::LineTooLong { limit: limits.line_max });
        }
        let end = at + newline.map_or(rest.len(), |newline| newline + 1);
        if newline.is_none() && !last {
            // What is refused need not be kept until its line ends.
            let skip = request.refusal.is_some();
            self.searched = if skip { 0 } else { rest.len() };
            return Read::Partial(if skip { end } else { at });
        }
        if newline.is_none() {
            // A client that died half way looks the same: better nothing than half a value.
            let text = "the connection ended before the line of the value did: end it with a newline, or say \
                        length=eof; nothing was written";
            return Read::Broken(Refusal::BadLength(text.into()));
        }
        if alone && end < at + rest.len() {
            return Read::Broken(Refusal::Multiline);
        }
        self.done(end, Body::Owned(line.to_vec()))
    }

    fn sized(&mut self, rest: &[u8], at: usize, last: bool, alone: bool) -> Read {
        let refused = self.request.as_ref().is_some_and(|request| request.refusal.is_some());
        let large = self.draft.is_some() || self.diverted.is_some() || refused;
        let taken = self.missing.min(rest.len());
        if taken < self.missing && last {
            let (total, missing) = (self.length(), self.missing - taken);
            return Read::Broken(Refusal::BadLength(format!(
                "the connection ended {missing} bytes before the {total} of length=: nothing was written"
            )));
        }
        if !large && taken < self.missing {
            return Read::Partial(at);
        }
        self.missing -= taken;
        if let Some(Err(no_space)) = self.draft.as_mut().map(|draft| draft.extend(&rest[..taken])) {
            // The rest of it is only skipped, to keep the framing.
            self.draft = None;
            self.request.iter_mut().for_each(|request| request.refusal = Some(no_space.into()));
        }
        if self.missing > 0 {
            return Read::Partial(at + taken);
        }
        let after = &rest[taken..];
        if alone && !matches!(after, [] | [b'\n'] | [b'\r'] | [b'\r', b'\n']) {
            let total = self.length();
            return Read::Broken(Refusal::BadLength(format!(
                "more than the {total} bytes of length= came: nothing was written"
            )));
        }
        let body = match self.draft.take() {
            Some(draft) => Body::Shared(Arc::new(draft.finish())),
            None if self.diverted.is_some() => Body::Lent(b""),
            None => Body::Owned(rest[..taken].to_vec()),
        };
        self.done(at + taken, body)
    }

    fn until_eof(&mut self, rest: &[u8], at: usize, last: bool, limits: &Limits) -> Read {
        if let Some(come) = &mut self.diverted {
            *come += rest.len();
            if *come > limits.value_max {
                return Read::Broken(Refusal::ValueTooLong { limit: limits.value_max });
            }
        }
        if let Some(draft) = &mut self.draft {
            let taken = if draft.len() + rest.len() > limits.value_max {
                Err(Refusal::ValueTooLong { limit: limits.value_max })
            } else {
                draft.extend(rest).map_err(Refusal::from)
            };
            if let Err(refusal) = taken {
                // What follows has no end but the connection's.
                self.draft = None;
                return Read::Broken(refusal);
            }
        }
        if !last {
            return Read::Partial(at + rest.len());
        }
        let body = self.draft.take().map(|draft| Body::Shared(Arc::new(draft.finish())));
        self.done(at + rest.len(), body.unwrap_or(Body::Lent(b"")))
    }

    fn length(&self) -> usize {
        match self.request.as_ref().map(|request| request.framing) {
            Some(Framing::Length(length)) => length,
            _ => 0,
        }
    }

    fn done(&mut self, end: usize, body: Body<'static>) -> Read {
        // Invariant: `value` is only reached with a request.
        let Some(mut request) = self.request.take() else { return Read::Partial(end) };
        self.diverted = None;
        match request.refusal.take() {
            Some(refusal) => Read::Refused(end, request, refusal),
            None => Read::Request(end, request, body),
        }
    }
}

/// A header is a command, a key and a few short parameters; a key of escapes takes three bytes a byte.
fn header_max(limits: &Limits) -> usize {
    3 * limits.key_max + 4096
}
