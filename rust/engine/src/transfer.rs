//! Files from one box to another over the datagram engine: a tool to try it with, and to measure it by. Not
//! how replicas talk.
//!
//! A file is one message: two bytes with the length of its name, the name, then the bytes. The answer is a
//! message of one byte, 0, or of 1 and the reason why the file was not kept.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use mio::{Events, Poll, Token};
use turbopump_udt::error::{CloseReason, ConnectError, SendError};
use turbopump_udt::{
    Class, Config, Connection, ConnectionId, ConnectionStats, Event, Identity, MessageId, Options,
    PresharedKey, PrivateKey, PublicKey,
};

use crate::udp::Udp;

const SOCKET: Token = Token(0);
const TIMER: Token = Token(1);
/// How often who watches is told.
const PROGRESS: Duration = Duration::from_millis(100);
/// Bytes read from a file at a time.
const BLOCK: usize = 1 << 20;
/// Bytes of a name: what file systems allow.
const NAME_MAX: usize = 255;
/// Bytes of a reason that is told to the other side.
const REASON_MAX: usize = 256;

/// A file was not transferred. What had come of it is removed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A file or the socket.
    #[error("{0}: {1}")]
    System(String, io::Error),
    /// No connection was begun.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the answer came.
    #[error("the connection is over: {0}")]
    Closed(CloseReason),
    /// The connection takes nothing.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The other side did not keep the file.
    #[error("the other side did not keep it: {0}")]
    Refused(String),
    /// A name that no file can have there.
    #[error("{0:?} is no name for a file on the other side: rename it")]
    Name(String),
    /// Who watches has had enough.
    #[error("stopped")]
    Stopped,
}

fn system<E: Into<io::Error>>(what: impl ToString) -> impl FnOnce(E) -> TransferError {
    move |error| TransferError::System(what.to_string(), error.into())
}

/// What both sides need to find and trust each other.
#[derive(Clone, Debug)]
pub struct Keys {
    /// This side's X25519 key.
    pub private: PrivateKey,
    /// The other side's.
    pub peer: PublicKey,
    /// What both share.
    pub shared: PresharedKey,
}

impl Keys {
    fn identity(&self) -> Identity {
        Identity { keys: vec![self.private.clone()], psks: vec![(0, self.shared.clone())] }
    }
}

/// How far a file is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Its name.
    pub name: String,
    /// Bytes that are over there, as far as this side knows.
    pub bytes: u64,
    /// Whether it is there whole.
    pub done: bool,
    /// Since it began.
    pub elapsed: Duration,
    /// The connection's figures.
    pub stats: ConnectionStats,
}

/// Sends a file. Blocks until it is over there; meanwhile `watch` is called in this thread, and may end it by
/// returning false.
///
/// # Errors
/// The file cannot be read, nobody answers, or the other side does not keep it.
pub fn send(
    keys: &Keys,
    to: SocketAddr,
    path: &Path,
    config: Config,
    watch: &mut dyn FnMut(&Progress) -> bool,
) -> Result<Progress, TransferError> {
    let file = File::open(path).map_err(system(path.display()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = checked_name(&name)?.to_owned();
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let mut line = Line::bind(any, config, keys.identity())?;
    let (endpoint, now) = line.udp.endpoint();
    let id = endpoint.connect(now, keys.peer, to)?;
    let mut sending = Sending { id, file, message: None, rest: head(&name), read_all: false, taken: 0 };
    let (begun, head_bytes) = (Instant::now(), sending.rest.len() as u64);
    let mut told = Instant::now();
    loop {
        line.wait()?;
        let answer = sending.advance(&mut line)?;
        let (endpoint, _) = line.udp.endpoint();
        let stats = endpoint.connection(id).map(Connection::stats).unwrap_or_default();
        let waiting = stats.send_buffered + head_bytes;
        let progress = Progress {
            name: name.clone(),
            bytes: sending.taken.saturating_sub(if answer.is_some() { head_bytes } else { waiting }),
            done: answer.is_some(),
            elapsed: begun.elapsed(),
            stats,
        };
        if let Some(answer) = answer {
            line.close(id, b"done")?;
            answer?;
            return Ok(progress);
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            if !watch(&progress) {
                line.close(id, b"stopped")?;
                return Err(TransferError::Stopped);
            }
        }
    }
}

fn head(name: &str) -> Bytes {
    let length = (name.len() as u16).to_be_bytes(); // `checked_name`: it fits
    [&length, name.as_bytes()].concat().into()
}

/// A name that makes a file in the directory meant, and nowhere else.
fn checked_name(name: &str) -> Result<&str, TransferError> {
    let plain =
        !name.is_empty() && name.len() <= NAME_MAX && !name.contains(['/', '\0']) && !name.starts_with('.');
    if plain { Ok(name) } else { Err(TransferError::Name(name.to_owned())) }
}

/// A file on its way out.
struct Sending {
    id: ConnectionId,
    file: File,
    message: Option<MessageId>,
    rest: Bytes,
    read_all: bool,
    taken: u64,
}

impl Sending {
    /// Hands on as much as is taken. Returns what the other side says at the end.
    fn advance(&mut self, line: &mut Line) -> Result<Option<Result<(), TransferError>>, TransferError> {
        let (endpoint, now) = line.udp.endpoint();
        while let Some((_, event)) = endpoint.poll_event() {
            let Some(connection) = endpoint.connection_mut(now, self.id) else { continue };
            match event {
                Event::Connected => self.message = Some(connection.open(Options::new(Class::Bulk))?),
                Event::Message { data, .. } => return Ok(Some(answer(&data))),
                Event::Closed(reason) => return Err(TransferError::Closed(reason)),
                _ => {}
            }
        }
        let (Some(message), Some(connection)) = (self.message, endpoint.connection_mut(now, self.id)) else {
            return Ok(None);
        };
        while !self.read_all {
            if self.rest.is_empty() {
                self.rest = block(&mut self.file).map_err(system("the file"))?;
                if self.rest.is_empty() {
                    self.read_all = true;
                    connection.finish(message)?;
                    break;
                }
            }
            match connection.write(message, &mut self.rest) {
                Ok(taken) => self.taken += taken as u64,
                // The other side does not want the rest: its answer says why.
                Err(SendError::NoSuchMessage) => self.read_all = true,
                Err(error) => return Err(error.into()),
            }
            if !self.rest.is_empty() {
                break;
            }
        }
        Ok(None)
    }
}

fn answer(data: &[u8]) -> Result<(), TransferError> {
    match data {
        [0] => Ok(()),
        [_, reason @ ..] => Err(TransferError::Refused(String::from_utf8_lossy(reason).into_owned())),
        [] => Err(TransferError::Refused("for no reason".into())),
    }
}

fn block(file: &mut File) -> io::Result<Bytes> {
    let mut block = Vec::with_capacity(BLOCK);
    file.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block.into())
}

/// Receives files into a directory until `watch`, which is called in this thread about ten times a second and
/// when a file is there, returns false. `bound` is told the address first.
///
/// # Errors
/// The socket cannot be used. What is wrong with a file is told to who sends it.
pub fn serve(
    keys: &Keys,
    address: SocketAddr,
    directory: &Path,
    config: Config,
    bound: &mut dyn FnMut(SocketAddr),
    watch: &mut dyn FnMut(&Progress) -> bool,
) -> Result<(), TransferError> {
    let mut line = Line::bind(address, config, keys.identity())?;
    line.udp.endpoint().0.admit(keys.peer);
    bound(line.udp.local_address().map_err(system(address))?);
    let mut arriving: HashMap<(ConnectionId, MessageId), Arriving> = HashMap::new();
    let (mut told, mut current) = (Instant::now(), Progress::default());
    loop {
        line.wait()?;
        let (endpoint, now) = line.udp.endpoint();
        let mut finished = Vec::new();
        while let Some((id, event)) = endpoint.poll_event() {
            if let Event::Closed(_) = event {
                arriving.retain(|(connection, _), _| *connection != id);
                continue;
            }
            let Some(connection) = endpoint.connection_mut(now, id) else { continue };
            match event {
                Event::MessageStart { id: message, .. } => {
                    arriving.insert((id, message), Arriving::new(directory));
                }
                Event::MessageData { id: message, data } => {
                    connection.consumed(message, data.len() as u64);
                    if let Some(file) = arriving.get_mut(&(id, message)) {
                        file.take(data);
                    }
                }
                Event::MessageEnd { id: message } => finished.push((id, arriving.remove(&(id, message)))),
                Event::MessageDropped { id: message } => drop(arriving.remove(&(id, message))),
                Event::Message { id: message, data, .. } => {
                    connection.consumed(message, data.len() as u64);
                    let mut file = Arriving::new(directory);
                    file.take(data);
                    finished.push((id, Some(file)));
                }
                _ => {}
            }
        }
        for (id, file) in finished.into_iter().filter_map(|(id, file)| Some((id, file?))) {
            let (progress, answer) = file.finish();
            let Some(connection) = endpoint.connection_mut(now, id) else { continue };
            // A queue that is full means a sender that takes no answers: it has none then.
            let _ = connection.send(Options::new(Class::Reply), answer);
            let stats = connection.stats();
            if let Some(progress) = progress
                && !watch(&Progress { stats, done: true, ..progress })
            {
                return Ok(());
            }
        }
        if let Some(((id, _), file)) = arriving.iter().next() {
            let stats = endpoint.connection(*id).map(Connection::stats).unwrap_or_default();
            current = Progress { stats, ..file.progress() };
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            if !watch(&current) {
                return Ok(());
            }
            current = Progress::default();
        }
    }
}

/// A file on its way in: under another name until it is whole, and removed if it never is.
struct Arriving {
    directory: PathBuf,
    begun: Instant,
    head: BytesMut,
    file: Option<(String, File)>,
    bytes: u64,
    problem: Option<String>,
}

impl Arriving {
    fn new(directory: &Path) -> Self {
        Arriving {
            directory: directory.to_owned(),
            begun: Instant::now(),
            head: BytesMut::new(),
            file: None,
            bytes: 0,
            problem: None,
        }
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.directory.join(format!(".{name}.partial"))
    }

    fn take(&mut self, mut data: Bytes) {
        if self.problem.is_some() {
            return;
        }
        if self.file.is_none() {
            self.head.extend_from_slice(&data);
            let Some(length) =
                self.head.get(..2).map(|head| usize::from(head[0]) << 8 | usize::from(head[1]))
            else {
                return;
            };
            if self.head.len() < 2 + length {
                return;
            }
            let mut head = std::mem::take(&mut self.head).freeze();
            head.advance(2);
            let name = String::from_utf8_lossy(&head.split_to(length)).into_owned();
            data = head;
            self.problem = self.create(&name).err().map(|error| error.to_string());
        }
        if let Some((_, file)) = &mut self.file {
            self.bytes += data.len() as u64;
            self.problem = file.write_all(&data).err().map(|error| error.to_string());
        }
    }

    fn create(&mut self, name: &str) -> Result<(), TransferError> {
        let name = checked_name(name)?;
        if self.directory.join(name).exists() {
            return Err(TransferError::Refused(format!("there is a {name} already")));
        }
        let partial = self.partial(name);
        let file = File::options().write(true).create_new(true).open(&partial).map_err(system(name))?;
        self.file = Some((name.to_owned(), file));
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress {
            name: self.file.as_ref().map(|(name, _)| name.clone()).unwrap_or_default(),
            bytes: self.bytes,
            elapsed: self.begun.elapsed(),
            ..Progress::default()
        }
    }

    /// Keeps the file under its name, now that it is whole. Returns what became of it, and the answer.
    fn finish(mut self) -> (Option<Progress>, Bytes) {
        let progress = self.progress();
        let kept = match (self.problem.take(), self.file.take()) {
            (Some(problem), file) => {
                self.file = file;
                Err(problem)
            }
            (None, None) => Err("the message ends within its name".into()),
            (None, Some((name, file))) => self.keep(&name, &file).map_err(|error| error.to_string()),
        };
        match kept {
            Ok(()) => (Some(progress), Bytes::from_static(&[0])),
            Err(reason) => {
                let reason = &reason.as_bytes()[..reason.len().min(REASON_MAX)];
                (None, [&[1], reason].concat().into())
            }
        }
    }

    fn keep(&self, name: &str, file: &File) -> io::Result<()> {
        let partial = self.partial(name);
        // A link, unlike a new name, never replaces what has come in the meantime.
        let kept = file.sync_all().and_then(|()| fs::hard_link(&partial, self.directory.join(name)));
        fs::remove_file(&partial)?;
        kept
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some((name, _)) = &self.file {
            // It may be gone already; then there is nothing to do.
            let _ = fs::remove_file(self.partial(name));
        }
    }
}

/// The socket and what waits for it.
struct Line {
    udp: Udp,
    poll: Poll,
    events: Events,
}

impl Line {
    fn bind(address: SocketAddr, config: Config, identity: Identity) -> Result<Self, TransferError> {
        let mut udp = Udp::bind(address, config, identity).map_err(system(address))?;
        let poll = Poll::new().map_err(system("epoll"))?;
        udp.register(poll.registry(), SOCKET, TIMER).map_err(system("epoll"))?;
        Ok(Line { udp, poll, events: Events::with_capacity(16) })
    }

    /// Sends and receives what there is, and waits if there is nothing to do; not for long, so that who
    /// watches is told.
    fn wait(&mut self) -> Result<(), TransferError> {
        if self.udp.turn().map_err(system("the socket"))? {
            return Ok(());
        }
        match self.poll.poll(&mut self.events, Some(PROGRESS)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(system("epoll"))?,
        }
        for event in &self.events {
            match event.token() {
                SOCKET => self.udp.handle_socket(event),
                _ => self.udp.handle_timer(),
            }
        }
        Ok(())
    }

    fn close(&mut self, id: ConnectionId, reason: &[u8]) -> Result<(), TransferError> {
        let (endpoint, now) = self.udp.endpoint();
        if let Some(connection) = endpoint.connection_mut(now, id) {
            connection.close(0, reason);
        }
        while self.udp.turn().map_err(system("the socket"))? {}
        Ok(())
    }
}
