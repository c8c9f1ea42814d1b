//! The one UDP socket of a node, with the endpoint whose datagrams go through it: reads and sends in batches
//! and keeps the endpoint's time. Not what messages mean.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use turbopump_udt::{Config, Ecn, Endpoint, Identity, Time, Transmit};

/// Sends before others have their turn: each is up to 64 KiB.
const SEND_TURN: usize = 16;
/// Datagrams that the kernel may join into one (GRO), and the longest that there is.
const BUFFER: usize = 65_536;
/// Buffers for one read, after which others have their turn.
const BUFFERS: usize = 4;
/// What the kernel keeps of what is sent and received: some milliseconds of a fast path. It gives less if
/// its own limits are lower.
const SOCKET_BUFFER: usize = 4 << 20;

/// A UDP socket and its endpoint.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    endpoint: Endpoint,
    timer: OwnedFd,
    /// When the timer goes off.
    armed: Option<Time>,
    received: Vec<u8>,
    out: Vec<u8>,
    /// What of `out` the socket has not taken.
    unsent: Option<(Transmit, usize)>,
    /// There may be datagrams to read: polling tells only when there are new ones.
    readable: bool,
    /// Where the socket is polled, its token, and whether polling tells when it takes more, too.
    polled: Option<(Registry, Token, bool)>,
    /// Datagrams that the system refused to send: they count as lost on the way.
    refused: u64,
}

/// Nanoseconds of the system's monotonic clock, which timers go by too.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

impl Udp {
    /// An endpoint of its own on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// The system refuses the socket or the timer, or has no randomness.
    pub fn bind(address: SocketAddr, config: Config, identity: Identity) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        // Less is slower, not wrong.
        let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
        let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let mut seed = [0; 32];
        let mut filled = 0;
        while filled < seed.len() {
            filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        let unix = clock_gettime(ClockId::Realtime);
        let unix_nanos = unix.tv_sec as u64 * 1_000_000_000 + unix.tv_nsec as u64;
        Ok(Udp {
            endpoint: Endpoint::new(now(), config, identity, seed, unix_nanos),
            socket,
            state,
            timer,
            armed: None,
            received: vec![0; BUFFERS * BUFFER],
            out: Vec::with_capacity(BUFFER),
            unsent: None,
            readable: true,
            polled: None,
            refused: 0,
        })
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Has polling tell of datagrams under one token and of time under the other.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn register(&mut self, registry: &Registry, socket: Token, timer: Token) -> io::Result<()> {
        self.polled = Some((registry.try_clone()?, socket, false));
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), socket, Interest::READABLE)?;
        registry.register(&mut SourceFd(&self.timer.as_raw_fd()), timer, Interest::READABLE)
    }

    /// The endpoint, to use, and what time it is. Call `turn` afterwards.
    pub fn endpoint(&mut self) -> (&mut Endpoint, Time) {
        (&mut self.endpoint, now())
    }

    /// Datagrams that the system refused to send.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Polling told of the socket.
    pub fn handle_socket(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable();
    }

    /// Polling told of the timer.
    pub fn handle_timer(&mut self) {
        let mut expirations = [0; 8];
        // The count does not matter; a timer that was set anew meanwhile has none.
        let _ = rustix::io::read(&self.timer, &mut expirations);
        self.armed = None;
    }

    /// Reads, lets time pass, sends, and sets the timer. Returns whether it is to be called again before the
    /// next wait: it gives others their turn after some work.
    ///
    /// # Errors
    /// The socket or the timer is broken, which leaves nothing to be done.
    pub fn turn(&mut self) -> io::Result<bool> {
        let more = self.read()?;
        let unsent = self.flush()?;
        if !unsent {
            self.arm(None)?;
        }
        Ok(unsent || more)
    }

    /// Lets time pass and sends: the second part of a turn.
    ///
    /// # Errors
    /// As `turn`.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.endpoint.handle_timeout(now());
        let more = self.send();
        // A socket that always tells when it takes more wakes its owner after all that it sends.
        let write = self.unsent.is_some();
        if let Some((registry, token, _)) = self.polled.as_ref().filter(|(_, _, polled)| *polled != write) {
            let interest = if write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            registry.reregister(&mut SourceFd(&self.socket.as_raw_fd()), *token, interest)?;
            self.polled.iter_mut().for_each(|(_, _, polled)| *polled = write);
        }
        Ok(more)
    }

    /// Reads: the first part of a turn. Returns whether there is more.
    ///
    /// # Errors
    /// As `turn`.
    pub fn read(&mut self) -> io::Result<bool> {
        if !self.readable {
            return Ok(false);
        }
        let mut metas = [RecvMeta::default(); BUFFERS];
        let mut slices = self.received.chunks_mut(BUFFER);
        let mut buffers: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(slices.next().unwrap_or_default()));
        let count = match self.state.recv((&self.socket).into(), &mut buffers, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // The answer to an earlier datagram: nobody listens there. The endpoint finds out by itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        // Less than there was room for: all there is. Polling tells when there is more.
        self.readable = count == BUFFERS;
        let now = now();
        for (meta, buffer) in metas[..count].iter().zip(self.received.chunks_mut(BUFFER)) {
            let ecn = match meta.ecn {
                None => Ecn::NotEct,
                Some(EcnCodepoint::Ect0) => Ecn::Ect0,
                Some(EcnCodepoint::Ect1) => Ecn::Ect1,
                Some(EcnCodepoint::Ce) => Ecn::Ce,
            };
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                self.endpoint.handle_datagram(now, meta.addr, ecn, datagram);
            }
        }
        Ok(self.readable)
    }

    /// Sends until the endpoint has nothing more for now, the socket takes no more, or it is others' turn.
    fn send(&mut self) -> bool {
        for _ in 0..SEND_TURN {
            let now = now();
            let next = self.unsent.take();
            let Some((transmit, from)) =
                next.or_else(|| Some((self.endpoint.poll_transmit(now, &mut self.out)?, 0)))
            else {
                return false;
            };
            self.unsent = self.send_batch(transmit, from);
            if self.unsent.is_some() {
                return false; // polling tells when the socket takes more
            }
        }
        true
    }

    /// Sends a batch from an offset on, in pieces if the system takes no batches. Returns what is left if the
    /// socket takes no more.
    fn send_batch(&mut self, transmit: Transmit, mut from: usize) -> Option<(Transmit, usize)> {
        while from < transmit.len {
            let most = transmit.segment_size * self.state.max_gso_segments();
            let contents = &self.out[from..transmit.len.min(from + most)];
            let datagrams = quinn_udp::Transmit {
                destination: transmit.to,
                ecn: match transmit.ecn {
                    Ecn::NotEct => None,
                    Ecn::Ect0 => Some(EcnCodepoint::Ect0),
                    Ecn::Ect1 => Some(EcnCodepoint::Ect1),
                    Ecn::Ce => Some(EcnCodepoint::Ce),
                },
                contents,
                segment_size: (contents.len() > transmit.segment_size).then_some(transmit.segment_size),
                src_ip: None,
            };
            match self.state.try_send((&self.socket).into(), &datagrams) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some((transmit, from)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Too large for the path, or no way there now: as if it had been lost.
                Err(_) => self.refused += contents.len().div_ceil(transmit.segment_size.max(1)) as u64,
            }
            from += contents.len();
        }
        None
    }

    /// Sets the timer, the last part of a turn, at the latest for `at`.
    ///
    /// # Errors
    /// As `turn`.
    pub fn arm(&mut self, at: Option<Time>) -> io::Result<()> {
        let due = self.endpoint.poll_timeout().into_iter().chain(at).min();
        // A timer that goes off early costs a turn; one that is set anew for each packet costs more.
        if due.is_none() || self.armed.is_some_and(|armed| Some(armed) <= due) {
            return Ok(());
        }
        let nanos = due.map_or(0, Time::as_nanos);
        let at = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        self.armed = due;
        Ok(())
    }
}
