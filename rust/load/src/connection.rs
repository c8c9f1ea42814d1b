//! A connection that carries many requests: what it owes and is owed, whatever way the bytes are cut.
//! Values are checked as they pass and not kept, so their size does not matter.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::address::{Address, PATIENCE};
use crate::error::LoadError;
use crate::measure::{Tally, Window, shown};
use crate::protocol::{HEAD_SIZE_MAX, Head, Wire};
use crate::traffic::{Request, Traffic};

/// Bytes read at once. A head and the key of a value, cut short, must fit.
const INBOX_SIZE: usize = 1 << 18;

/// What all connections of a stage share.
#[derive(Debug)]
pub struct Load<'c> {
    pub traffic: Traffic,
    pub window: Window<'c>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl<'c> Load<'c> {
    pub fn new(traffic: Traffic, window: Window<'c>) -> Self {
        Load { traffic, window, inbox: vec![0; INBOX_SIZE], outbox: Vec::new() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    request: Request,
    /// When its latency began.
    since: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Requests without an answer, oldest first.
    flights: VecDeque<Flight>,
    /// Bytes still to come of the reply that has begun.
    missing: usize,
    /// The front of a reply, too short to tell what it is.
    partial: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// Connects, and prepares the connection for many requests.
    pub fn open(address: &Address, text: &str, wire: Wire) -> Result<Self, LoadError> {
        let socket =
            address.connect().map_err(|source| LoadError::Connect { address: text.to_owned(), source })?;
        let connection = Connection {
            socket,
            flights: VecDeque::new(),
            missing: 0,
            partial: Vec::new(),
            unsent: Vec::new(),
        };
        if let Some(hello) = wire.hello() {
            connection.greet(hello, text, wire)?;
        }
        Ok(connection)
    }

    fn greet(&self, hello: &[u8], text: &str, wire: Wire) -> Result<(), LoadError> {
        let failed = |error: Errno| LoadError::Connect { address: text.to_owned(), source: error.into() };
        send(&self.socket, hello, SendFlags::NOSIGNAL).map_err(failed)?;
        let (mut reply, mut length) = ([0; HEAD_SIZE_MAX], 0);
        loop {
            let (_, received) =
                recv(&self.socket, &mut reply[length..], RecvFlags::empty()).map_err(failed)?;
            length += received;
            let refused = || shown(&reply[..length]).into_owned();
            match wire.head(&reply[..length], true) {
                Head::Value { start, length: body, tail } if start + body + tail == length => return Ok(()),
                Head::Error(_) => {
                    return Err(LoadError::Refused { what: "to keep a connection", reply: refused() });
                }
                Head::Value { .. } | Head::Partial if received > 0 && length < reply.len() => {}
                _ => return Err(LoadError::Broken { protocol: "pipe", reply: refused() }),
            }
        }
    }

    /// Sends requests that suit the run. Their latency begins at `since`, or else now.
    pub fn ask(&mut self, load: &mut Load<'_>, count: usize, since: Option<u64>) -> Result<(), LoadError> {
        load.outbox.clear();
        for _ in 0..count {
            let request = load.traffic.next(&mut load.outbox);
            self.flights.push_back(Flight { request, since: 0 });
        }
        let since = since.unwrap_or_else(|| load.window.clock.now());
        self.flights.iter_mut().rev().take(count).for_each(|flight| flight.since = since);
        self.send(load)
    }

    /// Sends the requests that write some keys.
    pub fn fill(&mut self, load: &mut Load<'_>, keys: std::ops::Range<u64>) -> Result<(), LoadError> {
        load.outbox.clear();
        let since = load.window.clock.now();
        for key in keys {
            let request = load.traffic.set(key, &mut load.outbox);
            self.flights.push_back(Flight { request, since });
        }
        self.send(load)
    }

    /// Whether replies are owed.
    pub fn is_waiting(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Whether the socket has not taken everything yet.
    pub fn is_sending(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// When the latencies of the requests without an answer began.
    pub fn waiting_since(&self) -> impl Iterator<Item = u64> {
        self.flights.iter().map(|flight| flight.since)
    }

    fn send(&mut self, load: &mut Load<'_>) -> Result<(), LoadError> {
        if self.is_sending() {
            self.unsent.extend_from_slice(&load.outbox);
            return self.flush();
        }
        let sent = self.offer(&load.outbox)?;
        if sent < load.outbox.len() {
            self.unsent.extend_from_slice(&load.outbox[sent..]);
        }
        Ok(())
    }

    /// Sends what was left over, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<(), LoadError> {
        while self.is_sending() {
            match self.offer(&self.unsent)? {
                0 => break,
                sent => drop(self.unsent.drain(..sent)),
            }
        }
        Ok(())
    }

    fn offer(&self, bytes: &[u8]) -> Result<usize, LoadError> {
        loop {
            match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                // What the server said before it left is still to be read; then reading tells that it left.
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(bytes.len()),
                Err(error) => return Err(LoadError::system("send")(error)),
            }
        }
    }

    /// Waits for something to receive, in the one way that costs least: by receiving. Returns the time.
    pub fn wait(&mut self, load: &mut Load<'_>) -> Result<(), LoadError> {
        if self.is_sending() {
            let mut watched = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::OUT)];
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            match poll(&mut watched, Some(&patience)) {
                Ok(_) | Err(Errno::INTR) => self.flush()?,
                Err(error) => return Err(LoadError::system("poll")(error)),
            }
            return self.receive(load, RecvFlags::DONTWAIT).map(|_| ());
        }
        self.receive(load, RecvFlags::empty()).map(|_| ())
    }

    /// Receives what there is; tells how many requests it answers.
    pub fn receive(&mut self, load: &mut Load<'_>, flags: RecvFlags) -> Result<usize, LoadError> {
        let kept = self.partial.len();
        load.inbox[..kept].copy_from_slice(&self.partial);
        match recv(&self.socket, &mut load.inbox[kept..], flags) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Err(load.window.closed()),
            Ok((_, received)) => self.take(load, kept + received),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(LoadError::system("recv")(error)),
        }
    }

    /// Takes replies off the front of the inbox.
    fn take(&mut self, load: &mut Load<'_>, length: usize) -> Result<usize, LoadError> {
        let Load { traffic, window, inbox, .. } = load;
        let (mut replies, mut answered, now) = (&inbox[..length], 0, window.clock.now());
        let (mut since, mut alike) = (0, 0); // those that went out together come back together
        window.heard(now);
        while let Some(flight) = self.flights.front() {
            if self.missing == 0 {
                let head = traffic.wire().head(replies, flight.request.read);
                match judge(head, replies, flight.request, traffic, &mut window.tally)? {
                    Some(length) => self.missing = length,
                    None => break,
                }
            }
            let taken = self.missing.min(replies.len());
            replies = &replies[taken..];
            self.missing -= taken;
            if self.missing > 0 {
                break;
            }
            if flight.since != since {
                window.tally.answered(now - since, alike);
                (since, alike) = (flight.since, 0);
            }
            (answered, alike) = (answered + 1, alike + 1);
            self.flights.pop_front();
        }
        window.tally.answered(now - since, alike);
        if self.flights.is_empty() && !replies.is_empty() {
            return Err(broken(traffic.wire(), replies));
        }
        self.partial.clear();
        self.partial.extend_from_slice(replies);
        Ok(answered)
    }
}

/// Counts what a reply says, and tells how long it is; `None` while too little of it is there.
pub fn judge(
    head: Head,
    reply: &[u8],
    request: Request,
    traffic: &mut Traffic,
    tally: &mut Tally,
) -> Result<Option<usize>, LoadError> {
    match head {
        Head::Partial => Ok(None),
        Head::Foreign => Err(broken(traffic.wire(), reply)),
        Head::Value { start, length, tail } => {
            let value = &reply[start..];
            if value.len() < length.min(traffic.checked_size()) {
                return Ok(None);
            }
            let right = request.read && traffic.is_right(request, length, &value[..value.len().min(length)]);
            tally.bad += u64::from(!right);
            Ok(Some(start + length + tail))
        }
        Head::Stored(length) => {
            tally.bad += u64::from(request.read);
            Ok(Some(length))
        }
        Head::Missing(length) => {
            tally.misses += 1;
            Ok(Some(length))
        }
        Head::Error(length) => {
            tally.error(&reply[..length.min(reply.len())]);
            Ok(Some(length))
        }
    }
}

fn broken(wire: Wire, reply: &[u8]) -> LoadError {
    LoadError::Broken { protocol: wire.name(), reply: shown(reply).into_owned() }
}
