//! Writes RESP replies, version 2 or 3 as the client asked.
//!
//! Source: the Redis serialization protocol specification, "RESP protocol description".

use super::scan::Arg;
use crate::blob::{BlobRef, Value};
use crate::error::Refusal;
use crate::output::Output;
use crate::reply::Reply;

/// Appends replies to a client's output.
#[derive(Debug)]
pub struct Writer<'o> {
    /// Where replies go.
    pub out: &'o mut Output,
    /// Whether the client speaks RESP3.
    pub resp3: bool,
}

impl Writer<'_> {
    /// `+OK`
    pub fn ok(&mut self) {
        self.out.push(b"+OK\r\n");
    }

    /// A short status.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An integer.
    pub fn int(&mut self, value: i64) {
        self.out.push(b":");
        self.out.push_int(value);
        self.out.push(b"\r\n");
    }

    /// A count.
    pub fn count(&mut self, value: usize) {
        self.int(value as i64);
    }

    /// No value.
    pub fn null(&mut self) {
        self.out.push(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// A string of bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.value(Value::Inline(bytes));
    }

    /// An argument, given back.
    pub fn arg(&mut self, arg: &Arg<'_>) {
        match arg {
            Arg::Bytes(bytes) => self.bulk(bytes),
            Arg::Blob(blob) => self.value(Value::Blob(BlobRef::from(*blob))),
        }
    }

    /// A stored value.
    pub fn value(&mut self, value: Value<'_>) {
        self.out.push(b"$");
        self.out.push_int(value.len() as i64);
        self.out.push(b"\r\n");
        self.out.push_value(value);
        self.out.push(b"\r\n");
    }

    /// The head of an array of `len` replies.
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// The head of `len` pairs of replies.
    pub fn map(&mut self, len: usize) {
        if self.resp3 { self.header(b'%', len) } else { self.header(b'*', len * 2) }
    }

    /// The head of a set of `len` replies.
    pub fn set(&mut self, len: usize) {
        self.header(if self.resp3 { b'~' } else { b'*' }, len);
    }

    /// An error: a word in capitals, then what happened and what to do. Line ends in it become blanks.
    pub fn error(&mut self, text: &str) {
        let plain: String = text.chars().map(|c| if c == '\r' || c == '\n' { ' ' } else { c }).collect();
        self.line(b'-', plain.as_bytes());
    }

    /// A refusal, with the first word Redis's clients know where there is one.
    pub fn refusal(&mut self, refusal: &Refusal) {
        let word = match refusal.code() {
            "no_space" => "OOM",
            "auth_required" => return self.error("NOAUTH Authentication required."),
            "denied" => "NOPERM",
            "immutable" => "IMMUTABLE",
            "busy" => "BUSY",
            "unavailable" => "NOREPLICAS",
            "moved" => "MOVED",
            _ => "ERR",
        };
        self.error(&format!("{word} {refusal}"));
    }

    /// An answer that was made elsewhere.
    pub fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Nil => self.null(),
            Reply::Ok => self.ok(),
            Reply::Int(value) => self.int(*value),
            Reply::Text(text) => self.bulk(text.as_bytes()),
            Reply::Bytes(bytes) => self.bulk(bytes),
            Reply::List(items) => {
                self.array(items.len());
                items.iter().for_each(|item| self.reply(item));
            }
            Reply::Map(pairs) => {
                self.map(pairs.len());
                for (name, value) in pairs {
                    self.bulk(name.as_bytes());
                    self.reply(value);
                }
            }
            Reply::Refused(refusal) => self.refusal(refusal),
        }
    }

    fn header(&mut self, kind: u8, len: usize) {
        self.out.push(&[kind]);
        self.out.push_int(len as i64);
        self.out.push(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(&[kind]);
        self.out.push(text);
        self.out.push(b"\r\n");
    }
}
