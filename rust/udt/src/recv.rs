//! Messages that arrive: reassembly within bounds, order within groups, and credit for the sender.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use crate::config::Config;
use crate::error::Violation;
use crate::frame::{Frame, MessageFrame};
use crate::loss::SentFrame;
use crate::message::{Class, Event, MessageId};
use crate::ranges::RangeSet;

/// A message of which something arrived.
#[derive(Debug, Default)]
struct InMessage {
    class: u8,
    /// Bytes that arrived; the first of them may have been passed on.
    received: RangeSet,
    /// What cannot be passed on yet, by offset.
    parts: BTreeMap<u64, Bytes>,
    /// Bytes passed on.
    delivered: u64,
    /// Bytes that their owner has dealt with.
    consumed: u64,
    /// One above the highest byte that arrived.
    highest: u64,
    size: Option<u64>,
    /// Bytes that the sender may send.
    max: u64,
    /// The message that goes first. Known with the first byte.
    after: Option<u64>,
    begun: bool,
    streaming: bool,
    /// The sender gave it up.
    dropped: bool,
    /// This side does not want it.
    refused: bool,
}

/// The receiving half of a connection's messages.
#[derive(Debug)]
pub(crate) struct Inbox {
    messages: HashMap<u64, InMessage>,
    finished: RangeSet,
    finished_count: u64,
    /// Who waits for whom: predecessor to successor.
    waiting: HashMap<u64, u64>,
    fragments: usize,
    /// Sum of all messages' highest offsets.
    received: u64,
    consumed: u64,
    granted: u64,
    granted_messages: u64,
    max_data_due: bool,
    max_messages_due: bool,
    max_message_data_due: HashSet<u64>,
    stops_due: VecDeque<u64>,
    window: u64,
    message_window: u64,
    messages_max: u64,
    message_max: u64,
    whole_max: u64,
    fragments_max: usize,
}

impl Inbox {
    pub fn new(config: &Config) -> Self {
        Inbox {
            messages: HashMap::new(),
            finished: RangeSet::default(),
            finished_count: 0,
            waiting: HashMap::new(),
            fragments: 0,
            received: 0,
            consumed: 0,
            granted: config.window,
            granted_messages: config.messages,
            max_data_due: false,
            max_messages_due: false,
            max_message_data_due: HashSet::new(),
            stops_due: VecDeque::new(),
            window: config.window,
            message_window: config.message_window,
            messages_max: config.messages,
            message_max: config.message_max,
            whole_max: config.whole_max(),
            fragments_max: config.fragments_max,
        }
    }

    /// Bytes that arrived and were not dealt with: what the window bounds.
    pub fn unconsumed(&self) -> u64 {
        self.received - self.consumed
    }

    /// Takes a piece of a message.
    pub fn on_message(
        &mut self,
        frame: &MessageFrame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Violation> {
        let (id, end) = (frame.id, frame.offset + frame.data.len() as u64);
        if self.finished.contains(id) {
            return Ok(());
        }
        if id >= self.granted_messages || end > self.message_max {
            return Err(Violation::FlowControl);
        }
        let max = self.message_window;
        let message = self.messages.entry(id).or_insert_with(|| InMessage { max, ..InMessage::default() });
        if message.dropped {
            return Ok(());
        }
        let beyond = message.size.is_some_and(|size| end > size || (frame.fin && end != size));
        if beyond || (frame.fin && message.highest > end) {
            return Err(Violation::FinalSize);
        }
        if frame.fin {
            message.size = Some(end);
        }
        let new = end.saturating_sub(message.highest);
        if end > message.max || self.received + new > self.granted {
            return Err(Violation::FlowControl);
        }
        self.received += new;
        message.highest += new;
        message.class = frame.class;
        if frame.offset == 0 {
            (message.begun, message.after) = (true, frame.after);
        }
        if message.refused {
            self.consumed += new;
            message.dropped = message.size == Some(message.highest);
            self.note_credit();
            self.deliver(id, events);
            return Ok(());
        }
        for missing in message.received.missing(&(frame.offset..end)) {
            let from = (missing.start - frame.offset) as usize;
            let data = &frame.data[from..from + (missing.end - missing.start) as usize];
            message.parts.insert(missing.start, Bytes::copy_from_slice(data));
            message.received.insert(missing);
            self.fragments += 1;
        }
        self.deliver(id, events);
        if self.fragments > self.fragments_max { Err(Violation::Fragments) } else { Ok(()) }
    }

    /// The sender gives a message up after `size` bytes.
    pub fn on_drop(
        &mut self,
        id: u64,
        size: u64,
        after: Option<u64>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Violation> {
        if self.finished.contains(id) {
            return Ok(());
        }
        if id >= self.granted_messages {
            return Err(Violation::FlowControl);
        }
        let message = self.messages.entry(id).or_default();
        if message.dropped {
            return Ok(());
        }
        if size < message.highest {
            return Err(Violation::FinalSize);
        }
        let new = size - message.highest;
        if self.received + new > self.granted {
            return Err(Violation::FlowControl);
        }
        self.received += new;
        // What was passed on is its owner's to deal with; the rest nobody will.
        self.consumed += if message.refused { new } else { size - message.delivered };
        message.highest = size;
        self.fragments -= message.parts.len();
        message.parts.clear();
        (message.dropped, message.begun, message.after) = (true, true, after);
        self.note_credit();
        self.deliver(id, events);
        Ok(())
    }

    /// Passes on what can be, of this message and of those that waited for it.
    fn deliver(&mut self, id: u64, events: &mut VecDeque<Event>) {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            let Some(message) = self.messages.get_mut(&id) else { continue };
            if !message.begun {
                continue;
            }
            if let Some(after) = message.after.filter(|after| !self.finished.contains(*after)) {
                self.waiting.insert(after, id);
                continue;
            }
            let parts = message.parts.len();
            let finished = message.pass_on(id, self.whole_max, events);
            if finished {
                self.messages.remove(&id);
                self.fragments -= parts;
                self.finished.insert(id..id + 1);
                self.finished_count += 1;
                self.max_message_data_due.remove(&id);
                self.note_credit();
                next = self.waiting.remove(&id);
            } else {
                self.fragments -= parts - message.parts.len();
            }
        }
    }

    /// The owner has dealt with bytes of a message.
    pub fn consumed(&mut self, id: MessageId, bytes: u64) {
        self.consumed += bytes;
        if let Some(message) = self.messages.get_mut(&id.0) {
            message.consumed += bytes;
            let max = message.consumed + self.message_window;
            if message.size.is_none() && max - message.max >= self.message_window / 4 {
                message.max = max;
                self.max_message_data_due.insert(id.0);
            }
        }
        self.note_credit();
    }

    /// The owner does not want the rest of a message.
    pub fn refuse(&mut self, id: MessageId, events: &mut VecDeque<Event>) {
        let Some(message) = self.messages.get_mut(&id.0) else { return };
        if !message.refused && !message.dropped {
            message.refused = true;
            self.fragments -= message.parts.len();
            message.parts.clear();
            self.consumed += message.highest - message.delivered;
            self.stops_due.push_back(id.0);
            message.dropped = message.size == Some(message.highest);
            self.note_credit();
            // What is refused causes no event, whoever waited for it may.
            self.deliver(id.0, events);
        }
    }

    fn note_credit(&mut self) {
        debug_assert!(self.consumed <= self.received, "no more is consumed than came");
        let grant = self.consumed + self.window;
        if grant - self.granted >= self.window / 4 {
            self.granted = grant;
            self.max_data_due = true;
        }
        let messages = self.finished_count + self.messages_max;
        if messages - self.granted_messages >= (self.messages_max / 4).max(1) {
            self.granted_messages = messages;
            self.max_messages_due = true;
        }
    }

    /// Whether there is credit or a refusal to tell the sender.
    pub fn has_frames(&self) -> bool {
        self.max_data_due
            || self.max_messages_due
            || !self.max_message_data_due.is_empty()
            || !self.stops_due.is_empty()
    }

    /// The next frame for the sender.
    pub fn next_frame(&mut self) -> Option<(Frame<'static>, SentFrame)> {
        if std::mem::take(&mut self.max_data_due) {
            return Some((Frame::MaxData(self.granted), SentFrame::MaxData));
        }
        if std::mem::take(&mut self.max_messages_due) {
            return Some((Frame::MaxMessages(self.granted_messages), SentFrame::MaxMessages));
        }
        if let Some(id) = self.stops_due.pop_front() {
            return Some((Frame::Stop { id }, SentFrame::Stop { id }));
        }
        let id = self.max_message_data_due.iter().next().copied()?;
        self.max_message_data_due.remove(&id);
        let max = self.messages.get(&id)?.max;
        Some((Frame::MaxMessageData { id, max }, SentFrame::MaxMessageData { id }))
    }

    /// A frame of ours was lost: what it said is said again, if it still matters.
    pub fn on_lost(&mut self, frame: &SentFrame) {
        match frame {
            SentFrame::MaxData => self.max_data_due = true,
            SentFrame::MaxMessages => self.max_messages_due = true,
            SentFrame::MaxMessageData { id } if self.messages.contains_key(id) => {
                self.max_message_data_due.insert(*id);
            }
            SentFrame::Stop { id } if self.messages.contains_key(id) => self.stops_due.push_back(*id),
            _ => {}
        }
    }
}

impl InMessage {
    /// Tells the owner what there is to tell; true when that was the last of it.
    fn pass_on(&mut self, id: u64, whole_max: u64, events: &mut VecDeque<Event>) -> bool {
        let number = MessageId(id);
        if self.dropped {
            if self.streaming && !self.refused {
                events.push_back(Event::MessageDropped { id: number });
            }
            return true;
        }
        let contiguous = self.received.first().filter(|range| range.start == 0).map_or(0, |range| range.end);
        let complete = self.size == Some(contiguous);
        if !self.streaming && complete && contiguous <= whole_max {
            let data = self.concatenate(contiguous);
            events.push_back(Event::Message { id: number, class: Class::from_bits(self.class), data });
            return true;
        }
        if !self.streaming && contiguous > whole_max {
            self.streaming = true;
            events.push_back(Event::MessageStart { id: number, class: Class::from_bits(self.class) });
        }
        if !self.streaming {
            return false;
        }
        while let Some(part) = self.parts.first_entry().filter(|part| *part.key() == self.delivered) {
            let data = part.remove();
            self.delivered += data.len() as u64;
            events.push_back(Event::MessageData { id: number, data });
        }
        if complete {
            events.push_back(Event::MessageEnd { id: number });
        }
        complete
    }

    fn concatenate(&mut self, len: u64) -> Bytes {
        let mut parts = std::mem::take(&mut self.parts).into_values();
        if parts.len() <= 1 {
            return parts.next().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(len as usize);
        parts.for_each(|part| whole.extend_from_slice(&part));
        whole.freeze()
    }
}
