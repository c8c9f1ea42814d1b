//! Reads RESP requests: arrays of bulk strings, or Redis's inline commands. Remembers where it was, so that
//! a request may come in any number of pieces; values from `BLOB_BYTES_MIN` on go straight into a blob.
//!
//! Source: the Redis serialization protocol specification, "Sending commands to a Redis server".

use std::sync::Arc;

use crate::blob::{BLOB_BYTES_MIN, Blob, BlobDraft};
use crate::config::Limits;
use crate::error::Refusal;
use crate::usage::Usage;

/// A bulk string's length and an array's count have at most this many digits.
const LENGTH_DIGITS_MAX: usize = 18;

/// Where an argument is.
#[derive(Clone, Debug)]
enum Span {
    Bytes(usize, usize),
    Blob(Arc<Blob>),
    /// Of an inline command, with its quotes resolved.
    Word(Box<[u8]>),
}

/// The arguments of one command, its name first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Args<'a> {
    buffer: &'a [u8],
    spans: &'a [Span],
}

/// One argument.
#[derive(Clone, Debug)]
pub enum Arg<'a> {
    /// A small one.
    Bytes(&'a [u8]),
    /// A large one.
    Blob(&'a Arc<Blob>),
}

impl<'a> Args<'a> {
    /// How many, with the command's name.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is not even a name.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`; an empty one beyond the end.
    pub fn arg(&self, index: usize) -> Arg<'a> {
        match self.spans.get(index) {
            Some(Span::Bytes(start, end)) => Arg::Bytes(&self.buffer[*start..*end]),
            Some(Span::Blob(blob)) => Arg::Blob(blob),
            Some(Span::Word(word)) => Arg::Bytes(word),
            None => Arg::Bytes(b""),
        }
    }

    /// The argument at `index`, where a large one makes no sense: of a large one, the first piece.
    pub fn bytes(&self, index: usize) -> &'a [u8] {
        match self.arg(index) {
            Arg::Bytes(bytes) => bytes,
            Arg::Blob(blob) => blob.piece(0),
        }
    }

    /// The arguments from `index` on.
    pub fn from(&self, index: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (index..args.len()).map(move |index| args.bytes(index))
    }
}

/// What comes is not RESP. The words are Redis's, which clients know.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotResp {
    /// An array's count is no number, or too large.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// A string's length is no number, or negative.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// Something other than a bulk string in a request.
    #[error("Protocol error: expected '$', got '{0}'")]
    Kind(char),
    /// A string is not followed by its line end.
    #[error("Protocol error: expected CRLF after a bulk string")]
    LineEnd,
    /// An inline command has no end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// The arguments, large ones aside, are more than a request may have.
    #[error("Protocol error: the request is too large: raise limits.max_request")]
    TooLarge,
    /// An inline command's quotes do not close.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
}

/// What scanning came to.
#[derive(Debug, Eq, PartialEq)]
pub enum Scanned {
    /// A whole request, which ends at this offset. It may have no arguments: then it is to be ignored.
    Request(usize),
    /// A whole request that must be refused, which ends at this offset.
    Refused(usize, Refusal),
    /// The buffer ends within a request.
    Partial,
    /// What comes is not RESP; where the next request begins is unknown.
    Broken(NotResp),
}

/// A request in the making.
#[derive(Debug, Default)]
pub struct Scan {
    spans: Vec<Span>,
    /// Arguments still to come; `None` before the array's header.
    missing: Option<usize>,
    /// What of the buffer is scanned.
    at: usize,
    /// How many of the spans were looked at by `lift`.
    lifted: usize,
    /// Bytes of the request, large arguments aside.
    size: usize,
    intake: Option<Intake>,
    refusal: Option<Refusal>,
}

/// A large argument on its way in.
#[derive(Debug)]
struct Intake {
    /// `None` when it is only skipped, to keep the framing.
    draft: Option<BlobDraft>,
    missing: usize,
    /// The line end behind it, as far as it is still to come.
    line_end: &'static [u8],
    /// It goes elsewhere, and not into the draft.
    diverted: bool,
}

/// What a large argument took of what has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fed {
    /// Bytes, with those of its line end.
    pub taken: usize,
    /// Bytes of the value that go elsewhere.
    pub diverted: usize,
}

impl Scan {
    /// Whether a request has begun.
    pub fn is_partial(&self) -> bool {
        self.missing.is_some()
    }

    /// Whether the bytes that come now belong to a large argument: to be given to `feed`.
    pub fn is_feeding(&self) -> bool {
        self.intake.is_some()
    }

    /// What of the buffer is scanned: where a whole request ends, and all that is needed of it while
    /// `is_feeding`.
    pub fn scanned(&self) -> usize {
        self.at
    }

    /// The request that `scan` found in `buffer`.
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> Args<'a> {
        Args { buffer, spans: &self.spans }
    }

    /// Forgets the request, to begin the next.
    pub fn reset(&mut self) {
        self.spans.clear();
        self.spans.shrink_to(64);
        (self.missing, self.at, self.lifted, self.size, self.refusal) = (None, 0, 0, 0, None);
    }

    /// Of a large argument that is on its way in: how many bytes it will have, and how many arguments the
    /// request.
    pub fn large(&self) -> Option<(usize, usize)> {
        let draft = self.intake.as_ref().map(|intake| (intake.missing, intake.draft.as_ref()));
        let (missing, draft) = draft.and_then(|(missing, draft)| Some((missing, draft?)))?;
        Some((draft.len() + missing, self.spans.len() + 1 + self.missing.unwrap_or(0)))
    }

    /// Has that argument go elsewhere: returns what has come of it, and `feed` tells what comes. In the
    /// request it is empty.
    pub fn divert(&mut self) -> Option<BlobDraft> {
        let intake = self.intake.as_mut()?;
        let draft = intake.draft.take()?;
        intake.diverted = true;
        Some(draft)
    }

    /// Feeds what has come to a large argument; returns what it took. The rest goes to the buffer.
    ///
    /// # Errors
    /// What comes is not RESP.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, NotResp> {
        let Some(intake) = &mut self.intake else { return Ok(Fed::default()) };
        let taken = intake.missing.min(input.len());
        let diverted = if intake.diverted { taken } else { 0 };
        intake.missing -= taken;
        if let Some(Err(no_space)) = intake.draft.as_mut().map(|draft| draft.extend(&input[..taken])) {
            intake.draft = None;
            self.refusal = Some(no_space.into());
        }
        let end = &input[taken..];
        let count = if intake.missing == 0 { intake.line_end.len().min(end.len()) } else { 0 };
        if end[..count] != intake.line_end[..count] {
            return Err(NotResp::LineEnd);
        }
        intake.line_end = &intake.line_end[count..];
        if intake.missing == 0 && intake.line_end.is_empty() {
            let draft = self.intake.take().and_then(|intake| intake.draft);
            self.spans.push(draft.map_or(Span::Bytes(0, 0), |draft| Span::Blob(Arc::new(draft.finish()))));
        }
        Ok(Fed { taken: taken + count, diverted })
    }

    /// Scans `buffer`, which begins where the request does and only grows until the request is whole.
    /// When a large argument begins, `is_feeding` says so: the buffer has been fed, is to be cut at
    /// `scanned`, and what comes next goes to `feed`.
    pub fn scan(&mut self, buffer: &[u8], limits: &Limits, usage: &Arc<Usage>) -> Scanned {
        let inline = self.missing.is_none() && buffer.first().is_some_and(|&byte| byte != b'*');
        let scanned = if inline { self.inline(buffer, limits) } else { self.array(buffer, limits, usage) };
        scanned.unwrap_or_else(Scanned::Broken)
    }

    fn array(&mut self, buffer: &[u8], limits: &Limits, usage: &Arc<Usage>) -> Result<Scanned, NotResp> {
        if self.missing.is_none() {
            let Some((count, after)) = length(buffer, 0, b'*')? else { return Ok(Scanned::Partial) };
            if count > limits.args_max as i64 {
                return Err(NotResp::Count);
            }
            (self.missing, self.at) = (Some(count.max(0) as usize), after);
        }
        while let Some(missing @ 1..) = self.missing {
            let Some((len, start)) = length(buffer, self.at, b'$')? else { return Ok(Scanned::Partial) };
            let len = usize::try_from(len).map_err(|_| NotResp::Length)?;
            let size = self.size + (start - self.at) + if len < BLOB_BYTES_MIN { len } else { 0 };
            if size > limits.request_max {
                return Err(NotResp::TooLarge);
            }
            if len > limits.value_max {
                self.refusal = Some(Refusal::ValueTooLong { limit: limits.value_max });
            }
            let Some(line_end) = buffer.get(start + len..start + len + 2) else {
                if len >= BLOB_BYTES_MIN {
                    self.begin_intake(len, usage);
                    self.size = size;
                    (self.missing, self.at) = (Some(missing - 1), start);
                    self.feed(&buffer[start..])?;
                }
                return Ok(Scanned::Partial);
            };
            if line_end != b"\r\n" {
                return Err(NotResp::LineEnd);
            }
            self.spans.push(Span::Bytes(start, start + len));
            self.size = size;
            (self.missing, self.at) = (Some(missing - 1), start + len + 2);
        }
        Ok(self.whole(self.at))
    }

    fn whole(&mut self, end: usize) -> Scanned {
        match self.refusal.take() {
            Some(refusal) => Scanned::Refused(end, refusal),
            None => Scanned::Request(end),
        }
    }

    fn begin_intake(&mut self, len: usize, usage: &Arc<Usage>) {
        if self.refusal.is_none() {
            self.refusal = usage.check_room(len as u64).err().map(Refusal::from);
        }
        let draft = self.refusal.is_none().then(|| BlobDraft::new(Some(len), usage));
        self.intake = Some(Intake { draft, missing: len, line_end: b"\r\n", diverted: false });
    }

    /// Takes large arguments that came whole out of the buffer, which is kept until the request is whole: so
    /// it holds small ones only, and large ones are in the store's account.
    pub fn lift(&mut self, buffer: &mut Vec<u8>, usage: &Arc<Usage>) {
        let mut removed = 0;
        for index in std::mem::replace(&mut self.lifted, self.spans.len())..self.spans.len() {
            let Span::Bytes(start, end) = self.spans[index] else { continue };
            let (start, end) = (start - removed, end - removed);
            self.spans[index] = Span::Bytes(start, end);
            if end - start >= BLOB_BYTES_MIN {
                // A request that is refused already is not run: nothing of it need be kept.
                self.spans[index] = Span::Bytes(0, 0);
                if self.refusal.is_none() {
                    match Blob::new(&buffer[start..end], usage) {
                        Ok(blob) => self.spans[index] = Span::Blob(Arc::new(blob)),
                        Err(no_space) => self.refusal = Some(no_space.into()),
                    }
                }
                buffer.drain(start..end);
                removed += end - start;
            }
        }
        self.at -= removed;
    }

    fn inline(&mut self, buffer: &[u8], limits: &Limits) -> Result<Scanned, NotResp> {
        let most = &buffer[..buffer.len().min(limits.line_max + 1)];
        let found = most.iter().skip(self.at).position(|&byte| byte == b'\n');
        let Some(end) = found.map(|found| found + self.at) else {
            self.at = most.len();
            let too_long = buffer.len() > limits.line_max;
            return if too_long { Err(NotResp::InlineTooLong) } else { Ok(Scanned::Partial) };
        };
        let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
        self.spans = words(line)?;
        self.at = end + 1;
        Ok(self.whole(end + 1))
    }
}

/// The keys of the whole requests at the front of `buffer`, as far as they are plain: only a hint. With each,
/// where its request ends.
pub fn look_ahead(buffer: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (count, mut next) = length(buffer, at, b'*').ok()??;
        let mut key = &buffer[..0];
        for index in 0..count {
            let (len, start) = length(buffer, next, b'$').ok()??;
            next = start + usize::try_from(len).ok()? + 2;
            if index == 1 {
                key = buffer.get(start..next - 2)?;
            }
        }
        at = next;
        (next <= buffer.len()).then_some((key, next))
    })
}

/// Splits an inline command at blanks. A quote may open anywhere in a word, and a blank must follow where it
/// closes; `"..."` knows escapes, `'...'` only `\'`.
fn words(line: &[u8]) -> Result<Vec<Span>, NotResp> {
    let (mut words, mut rest) = (Vec::new(), line.trim_ascii_start());
    while !rest.is_empty() {
        let mut word = Vec::new();
        while let [byte, after @ ..] = rest {
            rest = after;
            match *byte {
                quote @ (b'"' | b'\'') => {
                    rest = quoted(quote, rest, &mut word)?;
                    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                        return Err(NotResp::Quotes);
                    }
                    break;
                }
                byte if byte.is_ascii_whitespace() => break,
                byte => word.push(byte),
            }
        }
        words.push(Span::Word(word.into()));
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// Reads up to the closing quote; returns what is behind it.
fn quoted<'l>(quote: u8, mut rest: &'l [u8], word: &mut Vec<u8>) -> Result<&'l [u8], NotResp> {
    loop {
        let (byte, after) = match *rest {
            [] => return Err(NotResp::Quotes),
            [byte, ref after @ ..] if byte == quote => return Ok(after),
            [b'\\', b'x', high, low, ref after @ ..] if quote == b'"' && is_hex(high) && is_hex(low) => {
                (hex(high) << 4 | hex(low), after)
            }
            [b'\\', escaped, ref after @ ..] if quote == b'"' => (unescaped(escaped), after),
            [b'\\', b'\'', ref after @ ..] => (b'\'', after),
            [byte, ref after @ ..] => (byte, after),
        };
        word.push(byte);
        rest = after;
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// The number in a header line `<kind><number>\r\n` at `at`, and where the next line begins.
fn length(buffer: &[u8], at: usize, kind: u8) -> Result<Option<(i64, usize)>, NotResp> {
    let Some((&first, digits)) = buffer.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
    if first != kind {
        return Err(NotResp::Kind(char::from(first)));
    }
    let bad = || if kind == b'*' { NotResp::Count } else { NotResp::Length };
    let (negative, digits) = match digits.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, digits),
    };
    let mut value = 0i64;
    for (count, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if count < LENGTH_DIGITS_MAX => {
                value = value * 10 + i64::from(byte - b'0');
            }
            b'\r' if count > 0 => {
                let end = at + 1 + usize::from(negative) + count + 1;
                return match buffer.get(end) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((if negative { -value } else { value }, end + 1))),
                    Some(_) => Err(bad()),
                };
            }
            _ => return Err(bad()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspaces;

    /// Scans the whole of `wire` in pieces of `step` bytes; returns each request's arguments.
    fn requests(wire: &[u8], step: usize, memory_max: u64) -> Vec<Result<Vec<Vec<u8>>, String>> {
        let limits = Limits { value_max: 100_000, args_max: 10, line_max: 64, ..Limits::default() };
        let usage = Arc::new(Usage::new(memory_max, &Keyspaces::default()));
        let (mut scan, mut buffer, mut found) = (Scan::default(), Vec::new(), Vec::new());
        for mut piece in wire.chunks(step) {
            if scan.is_feeding() {
                match scan.feed(piece) {
                    Ok(fed) => piece = &piece[fed.taken..],
                    Err(broken) => return [found, vec![Err(broken.to_string())]].concat(),
                }
            }
            buffer.extend_from_slice(piece);
            while !scan.is_feeding() && !buffer.is_empty() | scan.is_partial() {
                let (end, request) = match scan.scan(&buffer, &limits, &usage) {
                    Scanned::Partial => break,
                    Scanned::Broken(broken) => return [found, vec![Err(broken.to_string())]].concat(),
                    Scanned::Refused(end, refusal) => (end, Err(refusal.code().to_string())),
                    Scanned::Request(end) => {
                        let args = scan.args(&buffer);
                        let arg = |index| match args.arg(index) {
                            Arg::Bytes(bytes) => bytes.to_vec(),
                            Arg::Blob(blob) => blob.chunks().flatten().copied().collect(),
                        };
                        (end, Ok((0..args.len()).map(arg).collect()))
                    }
                };
                found.push(request);
                scan.reset();
                buffer.drain(..end);
            }
            if scan.is_feeding() {
                buffer.truncate(scan.scanned());
            }
        }
        assert_eq!(usage.total().bytes(), 0, "every reservation is given back");
        found
    }

    fn bulk(value: &[u8]) -> Vec<u8> {
        [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
    }

    #[test]
    fn any_split_gives_the_same_requests() {
        let large: Vec<u8> = (0..99_999u32).map(|i| (i % 251) as u8).collect();
        let wire = [
            b"PING\r\n*1\r\n$4\r\nPING\r\n*-1\r\n*0\r\n".to_vec(),
            b"*3\r\n$3\r\nSET\r\n".to_vec(),
            bulk(b"a\r\nb"),
            bulk(&large),
            b"*4\r\n$4\r\nMSET\r\n".to_vec(),
            bulk(b"k"),
            bulk(&large),
            bulk(b""),
            b"set \"a \\n\" 'b' c\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec(),
        ]
        .concat();
        let whole = requests(&wire, usize::MAX, 0);
        assert_eq!(whole.len(), 8);
        assert_eq!(whole[4], Ok(vec![b"SET".to_vec(), b"a\r\nb".to_vec(), large.clone()]));
        assert_eq!(whole[6], Ok(vec![b"set".to_vec(), b"a \n".to_vec(), b"b".to_vec(), b"c".to_vec()]));
        for step in [1, 2, 3, 7, 1000, 65_536] {
            assert_eq!(requests(&wire, step, 0), whole, "in pieces of {step}");
        }
    }

    #[test]
    fn too_large_a_value_is_refused_and_skipped() {
        let wire = [
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n".to_vec(),
            bulk(&[7; 100_001]),
            b"*1\r\n$4\r\nPING\r\n".to_vec(),
        ]
        .concat();
        for step in [1000, usize::MAX] {
            let found = requests(&wire, step, 0);
            assert_eq!(found, [Err("value_too_long".to_string()), Ok(vec![b"PING".to_vec()])]);
        }
        let found = requests(&wire.replace_len(), 1000, 50_000);
        assert_eq!(found, [Err("no_space".to_string()), Ok(vec![b"PING".to_vec()])]);
    }

    trait ReplaceLen {
        fn replace_len(&self) -> Vec<u8>;
    }

    impl ReplaceLen for Vec<u8> {
        fn replace_len(&self) -> Vec<u8> {
            [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n".to_vec(), bulk(&[7; 90_000]), b"*1\r\n$4\r\nPING\r\n".to_vec()]
                .concat()
        }
    }

    #[test]
    fn nonsense_is_told_apart() {
        let bad: [&[u8]; 9] = [
            b"*11\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n$1\r\nab\r\n",
            b"*x\r\n",
            b"*1\r\n$9999999999999999999\r\n",
            b"set \"a\n",
            b"set 'a'b\n",
            b"*1\rx",
        ];
        for wire in bad {
            for step in [1, usize::MAX] {
                let last = requests(wire, step, 0).pop();
                assert!(matches!(&last, Some(Err(text)) if text.starts_with("Protocol error")), "{last:?}");
            }
        }
        assert!(requests(&[b'x'; 65], 10, 0).pop().is_some_and(|found| found.is_err()));
        assert_eq!(requests(&[b'x'; 64], 10, 0), []);
    }
}
