//! One client's connection: its socket, its session, and what it is waiting for.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use turbopump_core::output::Output;
use turbopump_core::session::Session;

use crate::shared::ClientInfo;

/// Bytes sent to one client before the others have their turn.
const SEND_TURN: usize = 512 * 1024;

/// What the reactor is to do with a connection when it has its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Read and process.
    Reading,
    /// Process what is there already.
    Yielding,
    /// Nothing, until the cold command it asked is answered.
    Asked,
    /// Nothing, until the cluster says something about its command.
    Remote,
    /// Nothing, until the key it waits for appears.
    Waiting,
    /// Send what changes.
    Watching,
    /// Close.
    Closing,
    /// Read and forget so many bytes more, then close.
    Lingering(usize),
}

/// What sending came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// All of it is sent.
    All,
    /// The client must take some first.
    Blocked,
    /// There is more, but others come first.
    More,
    /// The client has left.
    Gone,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// So many bytes, and whether nothing will follow them.
    Bytes(usize, bool),
    /// Nothing now.
    Nothing,
    /// The client has left.
    Gone,
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: OwnedFd,
    /// The conversation.
    pub session: Session,
    /// Replies the client has not taken. While there are any, nothing of it is processed.
    pub unsent: Output,
    /// What it waits for.
    pub stage: Stage,
    /// The key of `Stage::Waiting`.
    pub key: Option<Vec<u8>>,
    /// When `Waiting` or `Lingering` ends, on the reactor's clock.
    pub deadline_ms: Option<u64>,
    /// There may be bytes to read: polling tells only when there are new ones.
    pub readable: bool,
    /// The client has half-closed: what is to be read now is the last.
    pub hangup: bool,
    /// Of `Stage::Watching`: there is more for it.
    pub behind: bool,
    /// Polled for reading.
    pub polled: bool,
    /// Polled for writing too.
    pub polled_write: bool,
    /// To be closed behind the answer it waits for.
    pub doomed: bool,
    /// In the list of those whose turn comes.
    pub queued: bool,
    /// Came over TCP.
    pub tcp: bool,
    /// When it connected.
    pub since_ms: u64,
    /// When it last sent something.
    pub heard_ms: u64,
}

impl Connection {
    /// A connection that has just been accepted: it has probably sent its request already.
    pub fn new(socket: OwnedFd, session: Session, tcp: bool, now_ms: u64) -> Self {
        Connection {
            socket,
            session,
            unsent: Output::default(),
            stage: Stage::Reading,
            key: None,
            deadline_ms: None,
            readable: true,
            hangup: false,
            behind: false,
            polled: false,
            polled_write: false,
            doomed: false,
            queued: false,
            tcp,
            since_ms: now_ms,
            heard_ms: now_ms,
        }
    }

    /// Reads once into `buffer`.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.readable = false;
                Received::Bytes(0, true)
            }
            Ok((count, _)) => {
                // Less than there was room for: all there is. Polling tells when there is more.
                let all = count < buffer.len();
                self.readable = !all;
                Received::Bytes(count, all && self.hangup)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Received::Nothing
            }
            Err(Errno::INTR) => Received::Nothing,
            Err(_) => Received::Gone,
        }
    }

    /// Sends what it can of what the client has not taken.
    pub fn send_unsent(&mut self) -> Sent {
        if self.unsent.is_empty() {
            return Sent::All;
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let sent = self.send(&mut unsent);
        self.unsent = unsent;
        sent
    }

    /// Sends what it can of `out`.
    pub fn send(&self, out: &mut Output) -> Sent {
        let mut left = SEND_TURN;
        while !out.is_empty() {
            if left == 0 {
                return Sent::More;
            }
            let front = out.front();
            let front = &front[..front.len().min(left)];
            match rustix::net::send(&self.socket, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    left -= count;
                    out.advance(count);
                }
                Err(Errno::AGAIN) => return Sent::Blocked,
                Err(Errno::INTR) => {}
                Err(_) => return Sent::Gone,
            }
        }
        Sent::All
    }

    /// Whether everything the client asked is answered and sent.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Reading && !self.readable && self.unsent.is_empty() && self.session.is_idle()
    }

    /// The connection, described.
    pub fn describe(&self, now_ms: u64) -> ClientInfo {
        let client = self.session.client();
        ClientInfo {
            id: client.id,
            fd: self.socket.as_raw_fd(),
            name: client.name.clone(),
            library: (client.library.clone(), client.library_version.clone()),
            protocol: self.session.protocol(),
            address: match rustix::net::getpeername(&self.socket) {
                Ok(Some(address)) if self.tcp => peer_text(address),
                _ => format!("unix:{}", client.id),
            },
            tcp: self.tcp,
            age_ms: now_ms.saturating_sub(self.since_ms),
            idle_ms: now_ms.saturating_sub(self.heard_ms),
            unsent: self.unsent.len(),
        }
    }
}

fn peer_text(address: rustix::net::SocketAddrAny) -> String {
    match std::net::SocketAddr::try_from(address) {
        Ok(address) => address.to_string(),
        Err(_) => String::new(),
    }
}

/// Connections by token: an index and, above it, how often the place was used, so that a late event for a
/// closed connection never reaches its successor.
#[derive(Debug, Default)]
pub struct Connections {
    places: Vec<(u32, Option<Box<Connection>>)>,
    free: Vec<u32>,
}

impl Connections {
    /// Finds a place; the connection is then `put` there.
    pub fn reserve(&mut self) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        u64::from(self.places[index as usize].0) << 32 | u64::from(index)
    }

    /// Puts a connection in its place.
    pub fn put(&mut self, token: u64, connection: Box<Connection>) {
        self.places[token as u32 as usize].1 = Some(connection);
    }

    /// Takes a connection out, to be put back or released.
    pub fn take(&mut self, token: u64) -> Option<Box<Connection>> {
        let (uses, connection) = self.places.get_mut(token as u32 as usize)?;
        if *uses == (token >> 32) as u32 { connection.take() } else { None }
    }

    /// The connection with this token.
    pub fn get_mut(&mut self, token: u64) -> Option<&mut Connection> {
        let (uses, connection) = self.places.get_mut(token as u32 as usize)?;
        if *uses == (token >> 32) as u32 { connection.as_deref_mut() } else { None }
    }

    /// Gives a place back.
    pub fn release(&mut self, token: u64) {
        let index = token as u32;
        let (uses, connection) = &mut self.places[index as usize];
        *connection = None;
        // The highest bit is left to the tokens of what is not a connection.
        *uses = uses.wrapping_add(1) & (u32::MAX >> 1);
        self.free.push(index);
    }

    /// All tokens.
    pub fn tokens(&self) -> Vec<u64> {
        let used = self.places.iter().enumerate().filter(|(_, (_, connection))| connection.is_some());
        used.map(|(index, (uses, _))| u64::from(*uses) << 32 | index as u64).collect()
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.places.iter().filter_map(|(_, connection)| connection.as_deref())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
