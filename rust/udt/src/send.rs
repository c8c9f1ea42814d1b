//! Messages that are sent: what waits, what is in flight, what is lost, and who may send how much.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Buf, Bytes};
use foldhash::{HashMap, HashMapExt};

use crate::coding::var_len;
use crate::config::Config;
use crate::error::SendError;
use crate::frame::{Frame, MessageFrame};
use crate::loss::SentFrame;
use crate::message::{Class, Event, MessageId, Options};
use crate::packet::Settings;
use crate::ranges::RangeSet;
use crate::scheduler::{Queue, Scheduler};
use crate::time::Time;

/// A piece that does not end its message is no smaller than this: crumbs cost more than they fill.
const PIECE_MIN: usize = 128;

/// A message that is not yet acknowledged in full.
#[derive(Debug)]
struct OutMessage {
    class: u8,
    group: Option<u32>,
    /// The message of its group that goes before it.
    after: Option<u64>,
    /// The one that goes after it, and must not begin before this one is sent: else its bytes could take the
    /// credit that this one needs to end.
    successor: Option<u64>,
    /// The message that must be sent before this one may begin.
    holder: Option<u64>,
    expires: Option<Time>,
    /// What may have to be sent again, by offset.
    chunks: VecDeque<(u64, Bytes)>,
    /// Bytes written so far.
    end: u64,
    /// Whether no more will be written.
    finished: bool,
    /// The first byte that was never sent.
    next: u64,
    /// Bytes that the peer takes.
    max: u64,
    fin_sent: bool,
    fin_acked: bool,
    lost: RangeSet,
    fin_lost: bool,
    acked: RangeSet,
    queued: [bool; 2],
}

impl OutMessage {
    fn has_new(&self) -> bool {
        self.holder.is_none()
            && (self.next < self.end.min(self.max)
                || (self.finished && !self.fin_sent && self.next == self.end))
    }

    fn has_lost(&self) -> bool {
        self.fin_lost || !self.lost.is_empty()
    }

    fn copy(&self, start: u64, end: u64, out: &mut Vec<u8>) {
        let from = self.chunks.partition_point(|(at, chunk)| at + chunk.len() as u64 <= start);
        for (at, chunk) in self.chunks.range(from..).take_while(|(at, _)| *at < end) {
            let head = start.saturating_sub(*at) as usize;
            let tail = chunk.len().min((end - at) as usize);
            out.extend_from_slice(&chunk[head..tail]);
        }
    }
}

/// Messages that are delivered in order. What is acknowledged may still wait at the peer for one that is not,
/// so the order holds until all are.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// The last one that was begun.
    last: u64,
    /// The last one that was not given up.
    tail: Option<u64>,
    /// How many are not acknowledged.
    open: u64,
}

/// A message that was given up.
#[derive(Debug)]
struct Dropped {
    /// Bytes of it that were sent.
    size: u64,
    after: Option<u64>,
    group: Option<u32>,
}

/// The sending half of a connection's messages.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages: HashMap<u64, OutMessage>,
    next_id: u64,
    groups: HashMap<u32, Group>,
    scheduler: Scheduler,
    expiries: BTreeSet<(Time, u64)>,
    /// Messages given up that the peer has not confirmed.
    drops: HashMap<u64, Dropped>,
    drops_due: VecDeque<u64>,
    /// Bytes kept.
    buffered: u64,
    buffer_max: u64,
    /// New bytes sent, and how many the peer takes.
    sent: u64,
    max_data: u64,
    max_messages: u64,
    message_window: u64,
    message_max: u64,
    /// Somebody was told that there is no room for bytes.
    refused_bytes: bool,
    /// Somebody was told that there is no room for a message.
    refused_message: bool,
}

impl Outbox {
    pub fn new(config: &Config) -> Self {
        Outbox {
            messages: HashMap::new(),
            next_id: 0,
            groups: HashMap::new(),
            scheduler: Scheduler::default(),
            expiries: BTreeSet::new(),
            drops: HashMap::new(),
            drops_due: VecDeque::new(),
            buffered: 0,
            buffer_max: config.send_buffer,
            sent: 0,
            max_data: 0,
            max_messages: config.messages,
            message_window: config.message_window,
            message_max: config.message_max,
            refused_bytes: false,
            refused_message: false,
        }
    }

    /// The handshake told what the peer takes.
    pub fn set_limits(&mut self, settings: &Settings) {
        self.max_data = self.max_data.max(settings.window);
        self.message_window = settings.message_window;
        self.message_max = self.message_max.min(settings.message_max);
        self.max_messages = settings.messages;
        for (id, message) in &mut self.messages {
            message.max = settings.message_window;
            if *id < settings.messages && message.has_new() && !message.queued[1] {
                message.queued[1] = true;
                self.scheduler.push(Queue::Fresh, message.class, *id);
            }
        }
    }

    /// Bytes that wait to be sent or acknowledged.
    pub fn buffered(&self) -> u64 {
        self.buffered
    }

    /// The next moment at which a message is over its time.
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|(time, _)| *time)
    }

    /// Begins a message, if there is room for its first `bytes`.
    pub fn open_for(&mut self, now: Time, options: Options, bytes: u64) -> Result<MessageId, SendError> {
        let id = self.next_id;
        if bytes > self.message_max {
            return Err(SendError::TooLong(self.message_max));
        }
        let group = options.ordered_group.and_then(|group| self.groups.get(&group).copied());
        let holder = group.and_then(|group| group.tail);
        let holder = holder.filter(|tail| self.messages.get(tail).is_some_and(|message| !message.fin_sent));
        if id >= self.max_messages || bytes > self.room(options.class as u8, holder.is_some()) {
            self.refused_message = true;
            return Err(SendError::Full);
        }
        self.next_id += 1;
        let expires = options.ttl.map(|ttl| now + ttl);
        self.expiries.extend(expires.map(|time| (time, id)));
        if let Some(before) = holder.and_then(|holder| self.messages.get_mut(&holder)) {
            before.successor = Some(id);
        }
        if let Some(name) = options.ordered_group {
            let open = group.map_or(0, |group| group.open) + 1;
            self.groups.insert(name, Group { last: id, tail: Some(id), open });
        }
        let message = OutMessage {
            class: options.class as u8,
            group: options.ordered_group,
            after: group.map(|group| group.last),
            successor: None,
            holder,
            expires,
            chunks: VecDeque::new(),
            end: 0,
            finished: false,
            next: 0,
            max: self.message_window,
            fin_sent: false,
            fin_acked: false,
            lost: RangeSet::default(),
            fin_lost: false,
            acked: RangeSet::default(),
            queued: [false; 2],
        };
        self.messages.insert(id, message);
        Ok(MessageId(id))
    }

    /// Bytes that a message may add. Bulk leaves an eighth to those that must not wait for it, and what is
    /// held leaves half to its holder, which could not end otherwise.
    fn room(&self, class: u8, held: bool) -> u64 {
        let most = match held {
            true => self.buffer_max / 2,
            false if class == Class::Bulk as u8 => self.buffer_max / 8 * 7,
            false => self.buffer_max,
        };
        most.saturating_sub(self.buffered)
    }

    /// Takes bytes from the front of `data`, as many as there is room for. Returns how many.
    pub fn write(&mut self, id: MessageId, data: &mut Bytes) -> Result<usize, SendError> {
        let held = |message: &OutMessage| (message.class, message.holder.is_some());
        let (class, held) = self.messages.get(&id.0).map_or((0, false), held);
        let free = self.room(class, held);
        let message = self.messages.get_mut(&id.0).filter(|m| !m.finished).ok_or(SendError::NoSuchMessage)?;
        if message.end + data.len() as u64 > self.message_max {
            return Err(SendError::TooLong(self.message_max));
        }
        let taken = data.len().min(usize::try_from(free).unwrap_or(usize::MAX));
        self.refused_bytes |= taken < data.len();
        if taken > 0 {
            message.chunks.push_back((message.end, data.split_to(taken)));
            message.end += taken as u64;
            self.buffered += taken as u64;
            self.queue_new(id.0);
        }
        Ok(taken)
    }

    /// No more bytes follow.
    pub fn finish(&mut self, id: MessageId) -> Result<(), SendError> {
        let message = self.messages.get_mut(&id.0).filter(|m| !m.finished).ok_or(SendError::NoSuchMessage)?;
        message.finished = true;
        self.queue_new(id.0);
        Ok(())
    }

    /// Gives a message up. Returns whether there was one.
    pub fn cancel(&mut self, id: MessageId, events: &mut VecDeque<Event>) -> bool {
        let Some(message) = self.remove(id.0) else { return false };
        let dropped = Dropped { size: message.next, after: message.after, group: message.group };
        self.drops.insert(id.0, dropped);
        self.drops_due.push_back(id.0);
        if let Some(group) = message.group.and_then(|group| self.groups.get_mut(&group)) {
            group.tail = if group.tail == Some(id.0) { message.holder } else { group.tail };
        }
        // Whom it held, its own holder holds now.
        match message.holder.and_then(|holder| self.messages.get_mut(&holder)) {
            Some(holder) => {
                holder.successor = message.successor;
                if let Some(held) = message.successor.and_then(|id| self.messages.get_mut(&id)) {
                    held.holder = message.holder;
                }
            }
            None => self.release(message.successor),
        }
        self.tell_sendable(events);
        true
    }

    /// Gives up what is over its time.
    pub fn expire(&mut self, now: Time, events: &mut VecDeque<Event>) {
        while let Some((_, id)) = self.expiries.first().copied().filter(|(time, _)| *time <= now) {
            self.cancel(MessageId(id), events);
            events.push_back(Event::GivenUp { id: MessageId(id) });
        }
    }

    fn remove(&mut self, id: u64) -> Option<OutMessage> {
        let message = self.messages.remove(&id)?;
        self.buffered -= message.chunks.iter().map(|(_, chunk)| chunk.len() as u64).sum::<u64>();
        if let Some(time) = message.expires {
            self.expiries.remove(&(time, id));
        }
        Some(message)
    }

    /// One message of a group is acknowledged or given up.
    fn leave_group(&mut self, group: Option<u32>) {
        let Some(group) = group else { return };
        if let Some(open) = self.groups.get_mut(&group).map(|group| &mut group.open) {
            *open -= 1;
            if *open == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// The predecessor is sent: its successor may begin.
    fn release(&mut self, successor: Option<u64>) {
        if let Some(message) = successor.and_then(|id| self.messages.get_mut(&id)) {
            message.holder = None;
        }
        successor.into_iter().for_each(|id| self.queue_new(id));
    }

    fn queue_new(&mut self, id: u64) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if id < self.max_messages && message.has_new() && !message.queued[1] {
            message.queued[1] = true;
            self.scheduler.push(Queue::Fresh, message.class, id);
        }
    }

    /// Whether there is something to send.
    pub fn has_frames(&self) -> bool {
        !self.drops_due.is_empty() || !self.scheduler.is_empty(self.sent < self.max_data)
    }

    /// The next message given up.
    pub fn next_drop(&mut self) -> Option<(Frame<'static>, SentFrame)> {
        let id = self.drops_due.pop_front()?;
        let Dropped { size, after, .. } = *self.drops.get(&id)?;
        Some((Frame::Drop { id, size, after }, SentFrame::Drop { id }))
    }

    /// Appends the next piece of a message, in `room` bytes, and says whether it goes on to the packet's end
    /// and whether it was sent before.
    /// `None` if nothing fits or nothing is to be sent.
    pub fn write_piece(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        packet: usize,
    ) -> Option<(SentFrame, bool, bool)> {
        loop {
            let credit = self.max_data - self.sent;
            let (queue, id) = self.scheduler.pop(credit > 0, packet)?;
            let Some(message) = self.messages.get_mut(&id) else { continue };
            message.queued[queue as usize] = false;
            let piece = match queue {
                Queue::Lost => message.lost_piece(),
                Queue::Fresh => message.new_piece(credit),
            };
            let Some((start, end)) = piece else { continue };
            let Some((sent, bytes, to_end)) = message.write_piece(id, start, end, out, room) else {
                message.queued[queue as usize] = true;
                self.scheduler.push_front(queue, message.class, id);
                return None;
            };
            let class = message.class;
            self.scheduler.on_sent(class, bytes);
            self.note_sent(queue, id, &sent);
            return Some((sent, to_end, queue == Queue::Lost));
        }
    }

    fn note_sent(&mut self, queue: Queue, id: u64, sent: &SentFrame) {
        let (Some(message), SentFrame::Message { start, end, fin, .. }) = (self.messages.get_mut(&id), sent)
        else {
            return;
        };
        match queue {
            Queue::Lost => {
                message.lost.remove(&(*start..*end));
                message.fin_lost &= !fin;
            }
            Queue::Fresh => {
                self.sent += end - message.next;
                message.next = *end;
                message.fin_sent |= fin;
            }
        }
        let (again, class) = ([message.has_lost(), message.has_new()], message.class);
        for (at, queue) in [(0, Queue::Lost), (1, Queue::Fresh)] {
            if again[at] && !message.queued[at] {
                message.queued[at] = true;
                self.scheduler.push(queue, class, id);
            }
        }
        if message.fin_sent && queue == Queue::Fresh {
            let successor = message.successor;
            self.release(successor);
        }
    }

    /// A frame of ours arrived.
    pub fn on_acked(&mut self, frame: &SentFrame, events: &mut VecDeque<Event>) {
        match frame {
            SentFrame::Drop { id } => {
                let group = self.drops.remove(id).and_then(|dropped| dropped.group);
                self.leave_group(group);
            }
            SentFrame::Message { id, start, end, fin } => {
                let Some(message) = self.messages.get_mut(id) else { return };
                message.acked.insert(*start..*end);
                message.lost.remove(&(*start..*end));
                message.fin_acked |= fin;
                message.fin_lost &= !fin;
                let prefix = message.acked.first().filter(|range| range.start == 0).map_or(0, |r| r.end);
                while let Some((at, chunk)) = message.chunks.front() {
                    if at + chunk.len() as u64 > prefix {
                        break;
                    }
                    self.buffered -= chunk.len() as u64;
                    message.chunks.pop_front();
                }
                if message.fin_acked && prefix == message.end {
                    let group = self.remove(*id).and_then(|message| message.group);
                    self.leave_group(group);
                    events.push_back(Event::Acknowledged { id: MessageId(*id) });
                }
                self.tell_sendable(events);
            }
            _ => {}
        }
    }

    /// A frame of ours was lost, or is to be repeated.
    pub fn on_lost(&mut self, frame: &SentFrame) {
        match frame {
            SentFrame::Drop { id } if self.drops.contains_key(id) => self.drops_due.push_back(*id),
            SentFrame::Message { id, start, end, fin } => {
                let Some(message) = self.messages.get_mut(id) else { return };
                for missing in message.acked.missing(&(*start..*end)) {
                    message.lost.insert(missing);
                }
                message.fin_lost |= fin & !message.fin_acked;
                if message.has_lost() && !message.queued[0] {
                    message.queued[0] = true;
                    self.scheduler.push(Queue::Lost, message.class, *id);
                }
            }
            _ => {}
        }
    }

    /// Whether a message's frame is of a class below `classes`, and so small that it is worth a repeat.
    pub fn is_urgent(&self, frame: &SentFrame, classes: u8) -> bool {
        let SentFrame::Message { id, .. } = frame else { return false };
        self.messages.get(id).is_some_and(|message| message.class < classes)
    }

    /// The peer takes more bytes.
    pub fn on_max_data(&mut self, max: u64) {
        self.max_data = self.max_data.max(max);
    }

    /// The peer takes more bytes of a message.
    pub fn on_max_message_data(&mut self, id: u64, max: u64) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.max = message.max.max(max);
            self.queue_new(id);
        }
    }

    /// The peer takes more messages.
    pub fn on_max_messages(&mut self, max: u64, events: &mut VecDeque<Event>) {
        let before = self.max_messages;
        self.max_messages = before.max(max);
        for id in before..self.max_messages.min(self.next_id) {
            self.queue_new(id);
        }
        self.tell_sendable(events);
    }

    fn tell_sendable(&mut self, events: &mut VecDeque<Event>) {
        let message = self.refused_message && self.next_id < self.max_messages;
        if (self.refused_bytes || message) && self.buffered <= self.buffer_max / 2 {
            self.refused_bytes = false;
            self.refused_message &= !message;
            events.push_back(Event::Sendable);
        }
    }
}

impl OutMessage {
    fn lost_piece(&self) -> Option<(u64, u64)> {
        let fin_only = self.fin_lost.then_some((self.end, self.end));
        self.lost.first().map(|range| (range.start, range.end)).or(fin_only)
    }

    fn new_piece(&self, credit: u64) -> Option<(u64, u64)> {
        self.has_new().then(|| (self.next, self.end.min(self.max).min(self.next + credit)))
    }

    /// Appends as much of the bytes as fits. Returns what was sent, and the bytes that it took.
    fn write_piece(
        &self,
        id: u64,
        start: u64,
        end: u64,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Option<(SentFrame, usize, bool)> {
        let after = self.after.filter(|_| start == 0);
        let mut frame = MessageFrame { id, offset: start, class: self.class, fin: false, after, data: &[] };
        let space = room.checked_sub(frame.head_len())?;
        let wanted = end - start;
        let length_len = var_len(wanted.min(space as u64));
        let (end, length) = if wanted + length_len as u64 <= space as u64 {
            (end, Some(wanted as usize))
        } else {
            if space < PIECE_MIN {
                return None;
            }
            (end.min(start + space as u64), None)
        };
        frame.fin = self.finished && end == self.end;
        let before = out.len();
        frame.write_head(out, length);
        self.copy(start, end, out);
        Some((SentFrame::Message { id, start, end, fin: frame.fin }, out.len() - before, length.is_none()))
    }
}

/// Best-effort datagrams that wait to be sent. The oldest go when there are too many.
#[derive(Debug)]
pub(crate) struct DatagramQueue {
    queue: VecDeque<Bytes>,
    bytes: usize,
    max: usize,
}

impl DatagramQueue {
    pub fn new(max: usize) -> Self {
        DatagramQueue { queue: VecDeque::new(), bytes: 0, max }
    }

    /// Takes a datagram; returns how many were dropped for it.
    pub fn push(&mut self, datagram: Bytes) -> usize {
        self.bytes += datagram.remaining();
        self.queue.push_back(datagram);
        let mut dropped = 0;
        while self.bytes > self.max {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.bytes -= oldest.len();
            dropped += 1;
        }
        dropped
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next one, if it fits into `room` bytes with its head. One that never fits is dropped.
    pub fn pop(&mut self, room: usize, most: usize) -> Option<Bytes> {
        while let Some(next) = self.queue.front() {
            let needed = 1 + var_len(next.len() as u64) + next.len();
            if needed > room && needed <= most {
                return None;
            }
            let datagram = self.queue.pop_front()?;
            self.bytes -= datagram.len();
            if needed <= room {
                return Some(datagram);
            }
        }
        None
    }
}
