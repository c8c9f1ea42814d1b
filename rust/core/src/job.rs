//! Commands that touch many keys: done in steps, between which other clients are served.

use std::collections::VecDeque;

use crate::blob::Value;
use crate::context::Context;
use crate::error::Refusal;
use crate::output::Output;
use crate::pipe::{percent, response};
use crate::replica::Replica;
use crate::resp::many::Many;
use crate::resp::reply::Writer;
use crate::resp::scan::Args;
use crate::search::Search;

/// Keys looked at in a step: some tens of microseconds.
const STEP: usize = 256;

/// A piece of the reply to KEYS.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes of keys after which a part of a list ends: many nodes may send one at once.
const PART_BYTES: usize = 64 * 1024;

/// Lines of a framed listing that states no limit: it is made whole, and its cursor goes on.
const FRAMED_LIMIT: u64 = 1000;

/// A command under way.
#[derive(Debug)]
pub enum Job {
    /// KEYS.
    Keys(Box<Keys>),
    /// FLUSHDB: the cursor.
    Flush(u64),
    /// DEL, EXISTS, MGET, MSET and their like.
    Many(Many),
    /// `list` of one node that keeps all, and `local_list`.
    List(Box<Listing>),
    /// DBSIZE of a part of the keys: how many were counted.
    Count(Box<Search>, usize),
    /// What another node asks for a list of the whole cluster.
    Part(Box<Part>),
}

/// KEYS, half way.
#[derive(Debug)]
pub struct Keys {
    /// `None` when all keys have been looked at.
    search: Option<Search>,
    found: Found,
}

/// The reply to KEYS, which is made whole before it is sent.
#[derive(Debug, Default)]
pub struct Found {
    count: usize,
    /// What was found, as it will be answered, in pieces.
    pieces: VecDeque<Output>,
}

/// A listing, half way.
#[derive(Debug, Default)]
pub struct Listing {
    /// Whether lines are `(name)=>size`.
    pub sizes: bool,
    /// What the keys begin with.
    pub prefix: Vec<u8>,
    /// The most lines.
    pub limit: Option<u64>,
    /// Where to go on.
    pub cursor: u64,
    /// Whether the reply carries its length.
    pub frame: bool,
    /// The request's number.
    pub id: Option<u64>,
    /// Of a framed reply, what is listed.
    pub lines: Vec<u8>,
    /// How many lines there are.
    pub listed: u64,
}

/// What this node has to say of a list of the whole cluster, half way.
#[derive(Debug)]
pub struct Part {
    /// Which keys are meant.
    pub search: Search,
    /// How many keys are looked at, about.
    pub looks: u64,
    /// Only how many there are is asked.
    pub counts: bool,
    /// The request's number.
    pub id: Option<u64>,
    /// The keys, as `list` writes them.
    pub lines: Vec<u8>,
    /// How many there are.
    pub found: u64,
}

impl Job {
    /// KEYS.
    pub fn keys(search: Search) -> Self {
        Job::Keys(Box::new(Keys { search: Some(search), found: Found::default() }))
    }

    /// FLUSHDB.
    pub fn flush() -> Self {
        Job::Flush(0)
    }

    /// Does one step, writing what is ready; returns whether the job is done. `args` are the command's.
    pub fn step(&mut self, context: &mut Context<'_>, args: Args<'_>) -> bool {
        let (replica, now_ms) = (context.replica, context.now_ms);
        match self {
            Job::Keys(keys) => keys.step(replica, now_ms, &mut context.reply()),
            Job::Flush(cursor) => flush(cursor, replica, now_ms, &mut context.reply()),
            Job::Many(many) => many.step(context, args).unwrap_or_else(|refusal| {
                replica.counters().refusals.bump();
                context.reply().refusal(&refusal);
                true
            }),
            Job::List(listing) => listing.step(replica, now_ms, context.out),
            Job::Part(part) => part.step(replica, now_ms, context.out),
            Job::Count(search, found) => {
                search.step(replica, now_ms, usize::MAX, |_| *found += 1);
                let done = search.cursor == 0;
                if done {
                    context.reply().count(*found);
                }
                done
            }
        }
    }
}

impl Part {
    fn step(&mut self, replica: &Replica, now_ms: u64, out: &mut Output) -> bool {
        let some = self.looks.min(STEP as u64);
        self.search.step(replica, now_ms, some as usize, |key| {
            self.found += 1;
            if !self.counts {
                write_line(&mut self.lines, key, 0, false);
            }
        });
        self.looks -= some;
        let more = self.search.cursor != 0 && self.looks > 0 && self.lines.len() < PART_BYTES;
        if !more {
            let (cursor, found) = (self.search.cursor.to_string(), self.found.to_string());
            let params = [("cursor", cursor.as_str()), ("found", found.as_str())];
            response::Writer { out, frame: true, id: self.id }.body(&params, Value::Inline(&self.lines));
        }
        !more
    }
}

impl Keys {
    fn step(&mut self, replica: &Replica, now_ms: u64, reply: &mut Writer<'_>) -> bool {
        let Some(search) = &mut self.search else { return self.found.write(reply) };
        search.step(replica, now_ms, usize::MAX, |key| self.found.add(key));
        if let Err(refusal) = self.found.check(replica) {
            reply.refusal(&refusal);
            return true;
        }
        if search.cursor != 0 {
            return false;
        }
        self.search = None;
        self.found.begin(reply)
    }
}

impl Found {
    /// Adds a key.
    pub fn add(&mut self, key: &[u8]) {
        self.count += 1;
        if self.pieces.back().is_none_or(|piece| piece.len() >= PIECE_BYTES) {
            self.pieces.push_back(Output::default());
        }
        // A key is written alike in both versions of the protocol.
        let piece = self.pieces.back_mut();
        piece.into_iter().for_each(|out| Writer { out, resp3: false }.bulk(key));
    }

    /// # Errors
    /// There are more than KEYS may answer.
    pub fn check(&self, replica: &Replica) -> Result<(), Refusal> {
        let limit = replica.limits().keys_max;
        if self.count > limit {
            let text = format!("more than {limit} keys match: use SCAN, or raise limits.max_keys");
            return Err(Refusal::Syntax(text));
        }
        Ok(())
    }

    /// Begins the reply; returns whether that is all of it.
    pub fn begin(&self, reply: &mut Writer<'_>) -> bool {
        reply.array(self.count);
        self.pieces.is_empty()
    }

    /// Goes on with it; returns whether it ends.
    pub fn write(&mut self, reply: &mut Writer<'_>) -> bool {
        self.pieces.pop_front().iter().for_each(|piece| reply.out.push(piece.front()));
        self.pieces.is_empty()
    }
}

fn flush(cursor: &mut u64, replica: &Replica, now_ms: u64, reply: &mut Writer<'_>) -> bool {
    match replica.clear_some(*cursor, STEP, now_ms) {
        Ok((0, _)) => reply.ok(),
        Ok((next, _)) => {
            *cursor = next;
            return false;
        }
        Err(refusal) => reply.refusal(&refusal),
    }
    true
}

impl Listing {
    fn step(&mut self, replica: &Replica, now_ms: u64, out: &mut Output) -> bool {
        let step = self.left().min(STEP as u64) as usize;
        if step > 0 {
            self.cursor = replica.store().scan(self.cursor, step, |key, view| {
                let value = view.live(now_ms).filter(|_| key.starts_with(&self.prefix));
                if let Some(value) = value {
                    write_line(&mut self.lines, key, value.len(), self.sizes);
                    self.listed += 1;
                }
            });
        }
        self.write(replica, out)
    }

    /// How many lines may come yet.
    pub fn left(&self) -> u64 {
        let limit = self.limit.or(self.frame.then_some(FRAMED_LIMIT));
        limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.listed))
    }

    /// Adds a line.
    pub fn add(&mut self, key: &[u8]) {
        write_line(&mut self.lines, key, 0, false);
        self.listed += 1;
    }

    /// Writes the lines there are, and the end of the reply if it comes here; returns whether it does.
    pub fn write(&mut self, replica: &Replica, out: &mut Output) -> bool {
        // A framed reply is made whole, so it ends early rather than grow: its cursor goes on.
        let full = self.frame && self.lines.len() >= replica.limits().output_max;
        let done = self.cursor == 0 || full || self.left() == 0;
        if self.frame {
            if done {
                self.reply(out);
            }
            return done;
        }
        out.push(&self.lines);
        self.lines.clear();
        if done && self.cursor != 0 {
            out.push(format!("next|cursor={}\n", self.cursor).as_bytes());
        }
        done
    }

    fn reply(&self, out: &mut Output) {
        let cursor = self.cursor.to_string();
        let params = [("cursor", cursor.as_str())];
        let params = if self.cursor == 0 { &[][..] } else { &params[..] };
        response::Writer { out, frame: true, id: self.id }.body(params, Value::Inline(&self.lines));
    }
}

/// A key as `list` shows it, or as the first turbopump's `local_list` did.
fn write_line(lines: &mut Vec<u8>, key: &[u8], size: usize, sizes: bool) {
    if sizes {
        lines.push(b'(');
        percent::encode_into(key, lines);
        lines.extend_from_slice(format!(")=>{size}").as_bytes());
    } else {
        percent::encode_into(key, lines);
    }
    lines.push(b'\n');
}
