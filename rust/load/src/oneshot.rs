//! A connection for each request, as `nc -N` makes it: connect, send, half-close, read to the end. Latency is
//! all of that.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::address::{Address, PATIENCE};
use crate::connection::{Load, judge};
use crate::error::LoadError;
use crate::poll::Poll;
use crate::protocol::{HEAD_SIZE_MAX, Head};
use crate::traffic::Request;

/// Bytes read at once.
const CHUNK_SIZE: usize = 1 << 16;
/// What a reply that is cut short counts as.
const CUT_SHORT: &[u8] = b"(the connection ended within the reply)";

/// Makes connections.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub address: &'a Address,
    /// The address for people.
    pub text: &'a str,
    /// Bytes of a reply that are kept to be judged.
    pub front_size: usize,
}

/// A connection and its request.
#[derive(Debug)]
struct Call {
    socket: OwnedFd,
    request: Request,
    since: u64,
    front: Vec<u8>,
    total: usize,
}

impl Caller<'_> {
    fn call(&self, load: &mut Load<'_>, mut buffer: Vec<u8>) -> Result<Call, LoadError> {
        buffer.clear();
        let request = load.traffic.next(&mut buffer);
        let since = load.window.clock.now();
        let socket = self
            .address
            .connect()
            .map_err(|source| LoadError::Connect { address: self.text.to_owned(), source })?;
        self.send_all(load, &socket, &buffer)?;
        shutdown(&socket, Shutdown::Write).or_else(gone).map_err(LoadError::system("shutdown"))?;
        buffer.clear();
        Ok(Call { socket, request, since, front: buffer, total: 0 })
    }

    fn send_all(&self, load: &mut Load<'_>, socket: &OwnedFd, mut bytes: &[u8]) -> Result<(), LoadError> {
        while !bytes.is_empty() {
            match send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    load.window.is_over(load.window.clock.now())?;
                }
                // The server need not listen to the end to answer.
                Err(error) => return gone(error).map_err(LoadError::system("send")),
            }
        }
        Ok(())
    }
}

/// That the server has left is told by reading, after what it said.
fn gone(error: Errno) -> Result<(), Errno> {
    if matches!(error, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) { Ok(()) } else { Err(error) }
}

impl Call {
    /// Receives once; whether that was the end.
    fn receive(&mut self, chunk: &mut [u8], flags: RecvFlags, front_size: usize) -> Result<bool, LoadError> {
        match recv(&self.socket, &mut *chunk, flags) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(true),
            Ok((_, received)) => {
                let kept = received.min(front_size.saturating_sub(self.front.len()));
                self.front.extend_from_slice(&chunk[..kept]);
                self.total += received;
                Ok(false)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(LoadError::system("recv")(error)),
        }
    }

    /// Judges the reply. Gives back the buffer.
    fn finish(self, load: &mut Load<'_>) -> Result<Vec<u8>, LoadError> {
        let Load { traffic, window, .. } = load;
        let now = window.clock.now();
        window.heard(now);
        let head = traffic.wire().last_head(&self.front, self.total, self.request.read);
        let nothing = self.total == 0 && head == Head::Foreign;
        let head = if nothing { Head::Partial } else { head };
        match judge(head, &self.front, self.request, traffic, &mut window.tally)? {
            Some(length) => window.tally.bad += u64::from(length != self.total),
            None => window.tally.error(CUT_SHORT),
        }
        window.tally.answered(now - self.since, 1);
        Ok(self.front)
    }
}

/// One connection at a time.
pub fn one(load: &mut Load<'_>, caller: Caller<'_>) -> Result<(), LoadError> {
    let (mut chunk, mut buffer) = (vec![0; CHUNK_SIZE], Vec::new());
    loop {
        let mut call = caller.call(load, buffer)?;
        while !call.receive(&mut chunk, RecvFlags::empty(), caller.front_size)? {
            // The reply may come in time; the run may be over before it does.
            if call.total == 0 && load.window.is_over(load.window.clock.now())? {
                return Ok(());
            }
        }
        buffer = call.finish(load)?;
        if load.window.is_over(load.window.clock.now())? {
            return Ok(());
        }
    }
}

/// Many connections at a time.
pub fn many(load: &mut Load<'_>, caller: Caller<'_>, count: usize) -> Result<(), LoadError> {
    let (mut chunk, mut poll) = (vec![0; CHUNK_SIZE], Poll::new()?);
    let mut calls: Vec<Option<Call>> = Vec::with_capacity(count);
    for number in 0..count {
        let call = caller.call(load, Vec::new())?;
        poll.add(&call.socket, number)?;
        calls.push(Some(call));
    }
    loop {
        for index in 0..poll.wait(PATIENCE)? {
            let number = poll.ready(index);
            // Invariant: a number is added to the poll with the call in its place.
            let Some(call) = &mut calls[number] else { continue };
            if !call.receive(&mut chunk, RecvFlags::DONTWAIT, caller.front_size)? {
                continue;
            }
            let Some(call) = calls[number].take() else { continue };
            let buffer = call.finish(load)?;
            let call = caller.call(load, buffer)?;
            poll.add(&call.socket, number)?;
            calls[number] = Some(call);
        }
        let now = load.window.clock.now();
        if load.window.is_over(now)? {
            return Ok(());
        }
    }
}

impl<'a> Caller<'a> {
    pub fn new(address: &'a Address, text: &'a str, checked_size: usize) -> Self {
        Caller { address, text, front_size: HEAD_SIZE_MAX + checked_size }
    }
}
