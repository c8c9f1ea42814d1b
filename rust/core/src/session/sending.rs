//! A large value on its way from a client to the node that keeps its key: it goes there as it comes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Flow, Stage, World};
use crate::blob::{Blob, BlobDraft};
use crate::client::Client;
use crate::cluster::{Outcome, pieces};
use crate::error::Refusal;
use crate::outbox::Order;
use crate::pipe::Reader;
use crate::pipe::request::{Framing, Request};
use crate::remote::{Remote, Step, args_of};
use crate::replica::Replica;
use crate::resp::scan::{Args, Scan};

/// A request of which the rest is still to come.
#[derive(Debug)]
pub(super) struct Sending {
    remote: Remote,
    /// The number of the request.
    id: u64,
    /// In Redis's protocol, which argument the value is.
    place: usize,
    /// Bytes of the value that were sent.
    sent: u64,
    /// Bytes that may be.
    room: u64,
    /// What was said of it already.
    early: VecDeque<Outcome>,
    /// Why nothing more of it is sent.
    refused: Option<Refusal>,
}

impl Sending {
    /// These bytes of a request of the pipe protocol were read, and more are to come: sends them, or begins
    /// to, if its value is to go so.
    pub fn go_on_pipe(
        of: &mut Option<Box<Self>>,
        reader: &mut Reader,
        value: &[u8],
        client: &Client,
        world: &World<'_>,
    ) {
        match of {
            Some(sending) => sending.push(value, world.replica),
            None => *of = Self::begin_pipe(reader, client, world),
        }
    }

    fn begin_pipe(reader: &mut Reader, client: &Client, world: &World<'_>) -> Option<Box<Self>> {
        let (request, len, come) = reader.large()?;
        if len.unwrap_or(come) <= world.replica.limits().relayed_max {
            return None;
        }
        let outbox = world.replica.outbox()?;
        world.begin(client, Some(request));
        let opened = Remote::open_pipe(request, len, client, (world.replica, outbox))?;
        Some(Self::begin(opened, 0, reader.divert()?, world.replica))
    }

    /// A request of Redis's protocol, whose head is in `buffer`, has come to a large value: begins to send
    /// it, if that is to go so.
    pub fn go_on_resp(
        of: &mut Option<Box<Self>>,
        scan: &mut Scan,
        buffer: &[u8],
        client: &Client,
        world: &World<'_>,
    ) {
        if of.is_none() {
            *of = Self::begin_resp(scan, buffer, client, world);
        }
    }

    fn begin_resp(scan: &mut Scan, buffer: &[u8], client: &Client, world: &World<'_>) -> Option<Box<Self>> {
        let (len, count) = scan.large()?;
        if len <= world.replica.limits().relayed_max {
            return None;
        }
        let (outbox, args) = (world.replica.outbox()?, scan.args(buffer));
        world.begin(client, None);
        let (opened, place) = (Remote::open_resp(args, (len, count), client, outbox)?, args.len());
        Some(Self::begin(opened, place, scan.divert()?, world.replica))
    }

    fn begin((remote, id): (Remote, u64), place: usize, come: BlobDraft, replica: &Replica) -> Box<Self> {
        let room = replica.limits().relayed_max as u64;
        let (early, refused) = (VecDeque::new(), None);
        let mut sending = Sending { remote, id, place, sent: 0, room, early, refused };
        sending.send(come.finish(), replica);
        Box::new(sending)
    }

    /// The number of the request, as of several.
    pub fn number(&self) -> Range<u64> {
        self.id..self.id + 1
    }

    /// Whether more of the value may be read; one that is sent no more is read to its end.
    pub fn has_room(&self) -> bool {
        self.is_over() || self.sent < self.room
    }

    fn is_over(&self) -> bool {
        self.refused.is_some() || !self.early.is_empty()
    }

    /// Sends the next bytes of the value.
    pub fn push(&mut self, bytes: &[u8], replica: &Replica) {
        if self.is_over() || bytes.is_empty() {
            return;
        }
        // In the account of the node for as long as they are here.
        match Blob::new(bytes, replica.store().usage()) {
            Ok(blob) => self.send(blob, replica),
            Err(no_space) => {
                self.refused = Some(no_space.into());
                self.give_up(replica);
            }
        }
    }

    fn send(&mut self, blob: Blob, replica: &Replica) {
        self.sent += blob.len() as u64;
        self.order(pieces(&Arc::new(blob)).collect(), false, replica);
    }

    fn order(&self, pieces: Vec<Bytes>, last: bool, replica: &Replica) {
        if let Some(outbox) = replica.outbox() {
            outbox.push(Order::More { id: self.id, pieces, last });
        }
    }

    /// The cluster says something of it.
    pub fn hear(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Room(upto) => self.room = self.room.max(upto),
            outcome => self.early.push_back(outcome),
        }
    }

    /// What was sent of it is of no use.
    pub fn give_up(&self, replica: &Replica) {
        if let Some(outbox) = replica.outbox() {
            outbox.push(Order::Leave(self.number()));
        }
    }

    /// The request is whole, and ends with these bytes of its value.
    pub fn end_pipe(
        mut self: Box<Self>,
        request: &Request,
        value: &[u8],
        stage: &mut Stage,
        world: &mut World<'_>,
    ) -> Flow {
        self.push(value, world.replica);
        let end: &[u8] = if request.framing == Framing::Eof { b"" } else { b"\n" };
        self.end(vec![Bytes::copy_from_slice(end)], stage, world)
    }

    /// The request is whole: some arguments are behind the value.
    pub fn end_resp(self: Box<Self>, args: Args<'_>, stage: &mut Stage, world: &mut World<'_>) -> Flow {
        let behind: Vec<_> = (self.place + 1..args.len()).map(|index| args.arg(index)).collect();
        self.end(args_of(b"\r\n".to_vec(), &behind).into(), stage, world)
    }

    /// Returns `Read` if it is answered already.
    fn end(mut self: Box<Self>, end: Vec<Bytes>, stage: &mut Stage, world: &mut World<'_>) -> Flow {
        if let Some(refusal) = &self.refused {
            self.remote.refuse(refusal, world.out);
            return Flow::Read;
        }
        if self.early.is_empty() {
            self.order(end, true, world.replica);
        }
        for outcome in std::mem::take(&mut self.early) {
            match self.remote.take(outcome, world.out, world.replica) {
                Step::Waits => {}
                Step::Broken => return Flow::Close,
                // A write is neither run here nor told in pieces.
                Step::Answered | Step::Yields | Step::RunResp | Step::RunPipe(..) => return Flow::Read,
            }
        }
        *stage = Stage::Remote(Box::new(self.remote));
        Flow::Remote
    }
}
