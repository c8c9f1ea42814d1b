//! Ours: the datagram engine, encrypted, with the driver that nodes have. Who waits polls, as a reactor does:
//! no other thread has to wake it. While nobody waits, a substitute receives and keeps the time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mio::{Events, Poll, Token};
use turbopump_engine::udp::Udp;
use turbopump_udt::config::Algorithm;
use turbopump_udt::error::SendError;
use turbopump_udt::{
    Class as Urgency, Config, ConnectionId, Event, Identity, MessageId, Options, PresharedKey, PrivateKey,
    PublicKey,
};

use super::{Class, Connection, Kind, Listener, Transport};

const SOCKET: Token = Token(0);
const TIMER: Token = Token(1);
/// Clients that a listener knows beforehand: it takes no strangers.
const CLIENTS: u32 = 1024;
const SERVER: u32 = u32::MAX;
/// The substitute takes over when nobody has waited for so long.
const UNATTENDED: Duration = Duration::from_millis(10);
/// Both ends are there before anybody connects.
const PATIENCE: Duration = Duration::from_secs(5);

/// The engine with one of its controllers.
pub struct Turbopump(pub Algorithm);

impl Turbopump {
    fn bind(&self, address: SocketAddrV4, key: u32, kind: Kind) -> io::Result<Arc<Session>> {
        let config = Config { congestion: self.0, handshake_max: PATIENCE, ..Config::default() };
        let psks = vec![(0, PresharedKey::new([7; 32]))];
        let mut udp = Udp::bind(address.into(), config, Identity { keys: vec![private(key)], psks })?;
        let poll = Poll::new()?;
        udp.register(poll.registry(), SOCKET, TIMER)?;
        let inner = Inner {
            udp,
            kind,
            peers: HashMap::new(),
            accepted: VecDeque::new(),
            failed: None,
            polled: false,
            waiting: 0,
            attended: true,
        };
        let session =
            Arc::new(Session { inner: Mutex::new(inner), changed: Condvar::new(), poll: Mutex::new(poll) });
        let substitute = Arc::clone(&session);
        thread::spawn(move || substitute.stand_in());
        Ok(session)
    }
}

fn private(number: u32) -> PrivateKey {
    let mut key = [1; 32];
    // Not its first bits: those of an X25519 key are always the same.
    key[4..8].copy_from_slice(&number.to_le_bytes());
    PrivateKey::new(key)
}

fn public(number: u32) -> PublicKey {
    private(number).public()
}

impl Transport for Turbopump {
    fn has_messages(&self) -> bool {
        true
    }

    fn listen(&self, address: SocketAddrV4, kind: Kind) -> io::Result<Box<dyn Listener>> {
        let session = self.bind(address, SERVER, kind)?;
        (0..CLIENTS).for_each(|client| session.lock().udp.endpoint().0.admit(public(client)));
        Ok(Box::new(Door(session)))
    }

    fn connect(&self, address: SocketAddrV4, kind: Kind) -> io::Result<Arc<dyn Connection>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let client = (std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed)) % CLIENTS;
        let session = self.bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), client, kind)?;
        let mut inner = session.lock();
        let (endpoint, now) = inner.udp.endpoint();
        let id = endpoint.connect(now, public(SERVER), address.into()).map_err(io::Error::other)?;
        inner.flush()?;
        inner = session
            .wait(inner, |inner| {
                let peer = inner.peer(id);
                peer.end()?;
                Ok(peer.connected.then_some(()))
            })?
            .0;
        drop(inner);
        Ok(Arc::new(Link { session, id }))
    }
}

/// A socket, and all that came for those who wait.
struct Session {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Of who polls, alone.
    poll: Mutex<Poll>,
}

struct Inner {
    udp: Udp,
    kind: Kind,
    peers: HashMap<ConnectionId, Peer>,
    accepted: VecDeque<ConnectionId>,
    failed: Option<String>,
    /// Somebody polls, for all.
    polled: bool,
    /// How many wait for that one.
    waiting: usize,
    /// Somebody who waits has polled since the substitute looked.
    attended: bool,
}

/// What came from one peer.
#[derive(Default)]
struct Peer {
    connected: bool,
    closed: Option<String>,
    /// Bytes of streams, in order.
    stream: VecDeque<(MessageId, Bytes)>,
    messages: VecDeque<(MessageId, Bytes)>,
    /// Messages that come in pieces.
    partial: HashMap<MessageId, BytesMut>,
}

impl Peer {
    fn end(&self) -> io::Result<()> {
        match &self.closed {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked has said so; the others end with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something: polls, unless somebody does.
    fn wait<'s, T>(
        &'s self,
        mut inner: MutexGuard<'s, Inner>,
        mut look: impl FnMut(&mut Inner) -> io::Result<Option<T>>,
    ) -> io::Result<(MutexGuard<'s, Inner>, T)> {
        loop {
            if let Some(found) = look(&mut inner)? {
                return Ok((inner, found));
            }
            if let Some(failure) = &inner.failed {
                return Err(io::Error::other(failure.clone()));
            }
            inner.attended = true;
            if inner.polled {
                inner.waiting += 1;
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                inner.waiting -= 1;
            } else {
                inner = self.poll(inner);
            }
        }
    }

    /// Takes what comes, and does what is due.
    fn poll<'s>(&'s self, mut inner: MutexGuard<'s, Inner>) -> MutexGuard<'s, Inner> {
        inner.polled = true;
        drop(inner);
        let mut poll = self.poll.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Events::with_capacity(16);
        let polled = poll.poll(&mut events, None);
        drop(poll);
        let mut inner = self.lock();
        for event in &events {
            match event.token() {
                SOCKET => inner.udp.handle_socket(event),
                _ => inner.udp.handle_timer(),
            }
        }
        let interrupted = polled.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
        let done = if interrupted { Ok(()) } else { polled }.and_then(|()| inner.turn());
        inner.failed = done.err().map(|error| error.to_string());
        inner.polled = false;
        if inner.waiting > 0 {
            self.changed.notify_all();
        }
        inner
    }

    /// The substitute: polls while nobody waits who would.
    fn stand_in(&self) {
        let mut inner = self.lock();
        while inner.failed.is_none() {
            if inner.polled || std::mem::take(&mut inner.attended) {
                drop(inner);
                thread::park_timeout(UNATTENDED);
                inner = self.lock();
            } else {
                inner = self.poll(inner);
            }
        }
        drop(inner);
        self.changed.notify_all();
    }
}

impl Inner {
    fn peer(&mut self, id: ConnectionId) -> &mut Peer {
        self.peers.entry(id).or_default()
    }

    /// Sends and receives all there is, and sorts what came.
    fn turn(&mut self) -> io::Result<()> {
        self.repeat(Udp::turn)
    }

    /// Sends all there is. Who polls receives: what another one takes away, polling does not tell.
    fn flush(&mut self) -> io::Result<()> {
        self.repeat(Udp::flush)?;
        self.udp.arm(None)
    }

    fn repeat(&mut self, act: impl Fn(&mut Udp) -> io::Result<bool>) -> io::Result<()> {
        loop {
            let more = act(&mut self.udp)?;
            while let Some((id, event)) = self.udp.endpoint().0.poll_event() {
                self.handle(id, event);
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, id: ConnectionId, event: Event) {
        let peer = self.peers.entry(id).or_default();
        match event {
            Event::Connected => {
                peer.connected = true;
                self.accepted.push_back(id);
            }
            Event::Closed(reason) => peer.closed = Some(reason.to_string()),
            Event::Message { id, data, .. } | Event::MessageData { id, data }
                if self.kind == Kind::Stream =>
            {
                peer.stream.push_back((id, data));
            }
            Event::Message { id, data, .. } => peer.messages.push_back((id, data)),
            Event::MessageData { id, data } => peer.partial.entry(id).or_default().extend_from_slice(&data),
            Event::MessageEnd { id } => {
                let whole = peer.partial.remove(&id).map(|whole| (id, whole.freeze()));
                peer.messages.extend(whole);
            }
            _ => {}
        }
    }

    fn consumed(&mut self, id: ConnectionId, message: MessageId, bytes: usize) -> io::Result<()> {
        let (endpoint, now) = self.udp.endpoint();
        if let Some(connection) = endpoint.connection_mut(now, id) {
            connection.consumed(message, bytes as u64);
        }
        self.flush()
    }
}

struct Door(Arc<Session>);

impl Listener for Door {
    fn accept(&self) -> io::Result<Arc<dyn Connection>> {
        let id = self.0.wait(self.0.lock(), |inner| Ok(inner.accepted.pop_front()))?.1;
        Ok(Arc::new(Link { session: Arc::clone(&self.0), id }))
    }
}

/// One connection.
struct Link {
    session: Arc<Session>,
    id: ConnectionId,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut inner = self.session.lock();
        let (endpoint, now) = inner.udp.endpoint();
        if let Some(connection) = endpoint.connection_mut(now, self.id) {
            connection.close(0, b"done");
        }
        // What cannot be sent any more is found out by the peer, in time.
        let _ = inner.flush();
    }
}

impl Link {
    /// Does something to the connection as soon as it has room for it.
    fn when_room<T>(
        &self,
        mut act: impl FnMut(&mut turbopump_udt::Connection) -> Result<Option<T>, SendError>,
    ) -> io::Result<T> {
        let (mut inner, done) = self.session.wait(self.session.lock(), |inner| {
            inner.peer(self.id).end()?;
            let (endpoint, now) = inner.udp.endpoint();
            let connection = endpoint.connection_mut(now, self.id).ok_or(io::ErrorKind::NotConnected)?;
            match act(connection) {
                Ok(done) => Ok(done),
                Err(SendError::Full) => Ok(None),
                Err(error) => Err(io::Error::other(error)),
            }
        })?;
        inner.flush()?;
        Ok(done)
    }
}

impl Connection for Link {
    /// A stream is messages that keep their order.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let options = Options { ordered_group: Some(0), ..Options::new(Urgency::Bulk) };
        let part = Bytes::copy_from_slice(bytes);
        self.when_room(|connection| connection.send(options, part.clone()).map(Some))?;
        Ok(bytes.len())
    }

    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let (mut inner, (message, length)) = self.session.wait(self.session.lock(), |inner| {
            let peer = inner.peer(self.id);
            let Some((message, data)) = peer.stream.front_mut() else {
                return Ok(peer.closed.is_some().then_some((MessageId(0), 0)));
            };
            let part = data.split_to(data.len().min(into.len()));
            into[..part.len()].copy_from_slice(&part);
            let taken = (*message, part.len());
            if data.is_empty() {
                peer.stream.pop_front();
            }
            Ok(Some(taken))
        })?;
        inner.consumed(self.id, message, length)?;
        Ok(length)
    }

    fn send_message(&self, message: &[u8], class: Class) -> io::Result<()> {
        let urgency = match class {
            Class::Urgent => Urgency::Request,
            Class::Bulk => Urgency::Bulk,
        };
        let message = Bytes::copy_from_slice(message);
        self.when_room(|connection| connection.send(Options::new(urgency), message.clone()).map(Some))
            .map(drop)
    }

    fn receive_message(&self, into: &mut [u8]) -> io::Result<usize> {
        let (mut inner, (id, data)) = self.session.wait(self.session.lock(), |inner| {
            let peer = inner.peer(self.id);
            let end = || peer.closed.is_some().then_some((MessageId(0), Bytes::new()));
            Ok(peer.messages.pop_front().or_else(end))
        })?;
        let room = into.get_mut(..data.len()).ok_or(io::ErrorKind::InvalidInput)?;
        room.copy_from_slice(&data);
        inner.consumed(self.id, id, data.len())?;
        Ok(data.len())
    }
}
