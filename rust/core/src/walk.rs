//! A walk through the keys of the whole cluster, for who is asked and does not keep them all. Not a walk
//! through one store: that is `search`.
//!
//! Of the replicas of a key that are up one answers for it: this node if it keeps it. All members that are up
//! are asked for the next keys that they answer for, in the order of the store's cursor, which is the same on
//! all of them. What is before the place that all have reached is told, the rest is kept until they have come
//! further. Where a member is lost meanwhile, the walk goes on from there with those that are left.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::cluster::Outcome;
use crate::error::Refusal;
use crate::job::{Found, Listing};
use crate::outbox::Wire;
use crate::output::Output;
use crate::pipe::request::write_header;
use crate::pipe::{percent, response};
use crate::remote::{send, take_all};
use crate::replica::Replica;
use crate::resp::reply::Writer;
use crate::routes::{MemberIndex, Routes};
use crate::share::Share;
use crate::store::{CURSOR_END, Store};

/// Keys that a member looks at before it answers, at most: a millisecond of its time.
const LOOKS_MAX: u64 = 16_384;
/// And at first, where no limit is stated.
const LOOKS_FIRST: u64 = 1024;

/// What is asked of all keys.
#[derive(Debug)]
pub enum Question {
    /// `list`.
    List(Listing),
    /// SCAN.
    Scan(Scan),
    /// KEYS: what they match.
    Keys(Vec<u8>, Found),
    /// DBSIZE: how many were counted.
    Count(u64),
}

/// What SCAN asks for.
#[derive(Debug)]
pub struct Scan {
    /// Where to go on.
    pub cursor: u64,
    /// What the keys match.
    pub pattern: Option<Vec<u8>>,
    /// How many keys are looked at, about.
    pub count: u64,
    /// Keys of a kind that there is not are asked for.
    pub nothing: bool,
}

/// A walk, half way.
#[derive(Debug)]
pub struct Walk {
    question: Question,
    resp3: bool,
    share: Share,
    streams: Vec<Stream>,
    /// The number of the first member's request.
    first: u64,
    /// What is before this is told.
    at: u64,
    /// Keys that each member looks at for its next answer.
    looks: u64,
    /// Answers that are on their way.
    open: usize,
    /// A member was lost; why.
    lost: Option<Refusal>,
    /// How often one may be lost yet.
    tries: usize,
}

/// What a member answers, in order.
#[derive(Debug)]
struct Stream {
    member: MemberIndex,
    /// An answer, as far as it has come.
    reply: Vec<u8>,
    /// What is known and not told, each with its place.
    keys: VecDeque<(u64, Vec<u8>)>,
    /// How far they go.
    next: u64,
}

/// How a walk goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// More answers are to come.
    Waits,
    /// `go_on` is to be called once the client has taken what it is told.
    Yields,
    /// All is told.
    Over,
}

impl Walk {
    /// A walk that is to begin: `go_on` does it.
    pub fn new(question: Question, resp3: bool, routes: &Routes) -> Self {
        let cursor = match &question {
            Question::List(listing) => listing.cursor,
            Question::Scan(scan) => scan.cursor,
            Question::Keys(..) | Question::Count(_) => 0,
        };
        Walk {
            looks: wanted(&question, routes).unwrap_or(LOOKS_FIRST),
            question,
            resp3,
            share: Share::new(routes, None),
            streams: Vec::new(),
            first: 0,
            at: cursor.min(CURSOR_END),
            open: 0,
            lost: None,
            tries: routes.len(),
        }
    }

    /// Asks those members on whom the walk waits, or sends the next piece of a long reply.
    ///
    /// # Errors
    /// No replica of some keys is up.
    pub fn go_on(&mut self, replica: &Replica, out: &mut Output) -> Result<Step, Refusal> {
        if let (Question::Keys(_, found), true) = (&mut self.question, self.at == CURSOR_END) {
            let over = found.write(&mut Writer { out, resp3: self.resp3 });
            return Ok(if over { Step::Over } else { Step::Yields });
        }
        if self.open > 0 {
            return Ok(Step::Waits);
        }
        let Some(outbox) = replica.outbox() else { return Ok(Step::Waits) };
        if self.streams.is_empty() {
            self.begin(outbox.routes(), replica.store().is_behind())?;
        }
        self.first = outbox.number(self.streams.len() as u64);
        for (part, stream) in self.streams.iter().enumerate().filter(|(_, stream)| stream.is_due()) {
            let (numbers, request) = ((self.first, part as u32), VecDeque::from([self.request(stream.next)]));
            send(outbox, numbers, &[stream.member], true, Wire::PipeFramed, request);
            self.open += 1;
        }
        Ok(Step::Waits)
    }

    /// Finds out who answers for which keys from here on.
    fn begin(&mut self, routes: &Routes, behind: bool) -> Result<(), Refusal> {
        self.share = Share::new(routes, Some(routes.me()));
        // What this node, which came back blank, may lack, others tell if they can.
        let others = self.share.without(routes.me());
        if behind && others.missing(routes).is_empty() {
            self.share = others;
        }
        let missing = self.share.missing(routes);
        if !missing.is_empty() {
            return Err(Refusal::Unavailable(format!(
                "none of the nodes that keep some of the keys answers ({}): try again, or ask each node for \
                 local_list",
                missing.join(", ")
            )));
        }
        let next = self.at;
        let stream = |member| Stream { member, reply: Vec::new(), keys: VecDeque::new(), next };
        self.streams = self.share.members().map(stream).collect();
        if let Question::Count(count) = &mut self.question {
            *count = 0;
        }
        Ok(())
    }

    /// What a member is asked.
    fn request(&self, from: u64) -> Bytes {
        let ((first, up), from, looks) = (self.share.encode(), from.to_string(), self.looks.to_string());
        let mut params: Vec<(&str, &[u8])> = vec![("first", first.as_bytes()), ("up", up.as_bytes())];
        params.extend([("cursor", from.as_bytes()), ("looks", looks.as_bytes())]);
        match &self.question {
            Question::List(listing) => params.push(("prefix", &listing.prefix)),
            Question::Scan(scan) => params.extend(scan.pattern.as_ref().map(|it| ("match", it.as_slice()))),
            Question::Keys(pattern, _) => params.push(("match", pattern)),
            Question::Count(_) => params.push(("counts", b"1")),
        }
        let mut bytes = Vec::new();
        write_header(&mut bytes, "share", &params);
        bytes.push(b'\n');
        bytes.into()
    }

    /// The numbers of the requests that other nodes run for it.
    pub fn forwards(&self) -> Range<u64> {
        self.first..self.first + self.streams.len() as u64
    }

    /// Takes what the cluster says.
    ///
    /// # Errors
    /// What is to be answered instead, or behind what is told already.
    pub fn take(&mut self, outcome: Outcome, replica: &Replica, out: &mut Output) -> Result<Step, Refusal> {
        match outcome {
            Outcome::Piece(part, bytes, last) => {
                if let Some(stream) = self.streams.get_mut(part as usize) {
                    take_all(replica, self.first + u64::from(part), stream.reply.len(), bytes.len());
                    stream.reply.extend_from_slice(&bytes);
                }
                self.open -= usize::from(last);
            }
            Outcome::PartRefused(_, refusal) => {
                self.lost = Some(refusal);
                self.open -= 1;
            }
            Outcome::Refused(refusal) => return Err(refusal),
            Outcome::Done | Outcome::Room(_) => return Ok(Step::Waits),
        }
        if self.open > 0 {
            return Ok(Step::Waits);
        }
        if let Some(refusal) = self.lost.take() {
            self.tries = self.tries.checked_sub(1).ok_or(refusal)?;
            self.streams.clear();
            return Ok(Step::Yields);
        }
        for stream in &mut self.streams {
            let found = stream.read(replica.store())?;
            if let Question::Count(count) = &mut self.question {
                *count += found;
            }
        }
        self.tell(replica, out)
    }

    /// Tells what is known for certain to come next.
    fn tell(&mut self, replica: &Replica, out: &mut Output) -> Result<Step, Refusal> {
        self.at = self.streams.iter().map(|stream| stream.next).min().unwrap_or(CURSOR_END);
        let mut keys = Vec::new();
        for stream in &mut self.streams {
            let before = stream.keys.partition_point(|(place, _)| *place < self.at);
            keys.extend(stream.keys.drain(..before));
        }
        let (mut reply, told) = (Writer { out, resp3: self.resp3 }, keys.len() as u64);
        let cursor = if self.at == CURSOR_END { 0 } else { self.at };
        let over = match &mut self.question {
            Question::List(listing) => {
                listing.cursor = cursor;
                add(listing, keys);
                listing.write(replica, reply.out)
            }
            Question::Scan(scan) => {
                reply.array(2);
                reply.bulk(cursor.to_string().as_bytes());
                reply.array(if scan.nothing { 0 } else { keys.len() });
                keys.iter().filter(|_| !scan.nothing).for_each(|(_, key)| reply.bulk(key));
                true
            }
            Question::Keys(_, found) => {
                keys.iter().for_each(|(_, key)| found.add(key));
                found.check(replica)?;
                cursor == 0 && found.begin(&mut reply)
            }
            Question::Count(count) => {
                reply.int(*count as i64);
                true
            }
        };
        if over {
            return Ok(Step::Over);
        }
        if let Some(outbox) = replica.outbox() {
            let wanted = wanted(&self.question, outbox.routes()).filter(|_| told >= self.looks / 4);
            // Where little is found, more is looked at.
            self.looks = wanted.unwrap_or(self.looks * 2).min(LOOKS_MAX);
        }
        Ok(Step::Yields)
    }
}

impl Stream {
    fn is_due(&self) -> bool {
        self.keys.is_empty() && self.next < CURSOR_END
    }

    /// Reads an answer, if one has come; returns how many keys there are.
    fn read(&mut self, store: &Store) -> Result<u64, Refusal> {
        if self.reply.is_empty() {
            return Ok(0);
        }
        let broken = || Refusal::Internal("another node's list cannot be read".into());
        let reply = std::mem::take(&mut self.reply);
        let (answer, _) = response::read(&reply, usize::MAX).ok().flatten().ok_or_else(broken)?;
        if !answer.ok {
            let code = answer.params.into_iter().find(|(name, _)| name == "code").map(|(_, code)| code);
            let message = String::from_utf8_lossy(answer.body).into_owned();
            return Err(Refusal::Told { code: code.unwrap_or_default(), message });
        }
        let number = |name: &str| -> Option<u64> {
            answer.params.iter().find(|(known, _)| known == name)?.1.parse().ok()
        };
        let (cursor, found) = number("cursor").zip(number("found")).ok_or_else(broken)?;
        let next = if cursor == 0 { CURSOR_END } else { cursor };
        for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let key = percent::decode(line).ok_or_else(broken)?;
            let place = store.position(&key);
            // What comes in another order would be lost between two answers.
            if !(self.next..next).contains(&place) {
                return Err(broken());
            }
            self.keys.push_back((place, key));
        }
        if next <= self.next {
            return Err(broken());
        }
        self.next = next;
        Ok(found)
    }
}

/// Adds the keys that still fit; the cursor is then before the first that does not.
fn add(listing: &mut Listing, mut keys: Vec<(u64, Vec<u8>)>) {
    keys.sort_unstable();
    let mut last = None;
    for (place, key) in keys {
        // Keys of one place stay together: the cursor cannot tell them apart.
        if listing.left() == 0 && last != Some(place) {
            listing.cursor = place;
            return;
        }
        listing.add(&key);
        last = Some(place);
    }
}

/// How many keys each member looks at so that together they find what is asked for, if that is limited.
fn wanted(question: &Question, routes: &Routes) -> Option<u64> {
    let keys = match question {
        Question::List(listing) => Some(listing.left()).filter(|left| *left < LOOKS_MAX)?,
        Question::Scan(scan) => scan.count,
        Question::Keys(..) => return None,
        Question::Count(_) => return Some(u64::MAX),
    };
    // Each looks at keys for which another replica answers, too; and a list should rarely be asked for twice.
    let slack = if matches!(question, Question::List(_)) { keys / 8 + 16 } else { 1 };
    Some(keys * routes.copies_min() as u64 / routes.len() as u64 + slack)
}
