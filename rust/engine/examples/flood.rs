//! Floods a node's UDP socket with made-up handshakes from one address, and tells what the thread that owns
//! the socket makes of it: `cargo run --release --example flood [PER_SECOND] [SECONDS]`.
//!
//! The processor's time is that of the node's thread alone, with what the kernel does for it: waking and
//! reading. What the loopback costs its sender is the sender's. Sent one at a time, handshakes wake the node
//! for almost each, which is the most that they can cost; sent in segments, they come joined, as from a
//! network card that joins them. Beside it stands what a thread takes that reads and drops them and does
//! nothing else: no node can be below. `cargo bench -p turbopump-udt` has what is this project's share of it.
#![allow(clippy::print_stdout, reason = "an example reports by printing")]

use std::error::Error;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::time::{ClockId, clock_gettime};
use turbopump_engine::udp::Udp;
use turbopump_udt::{Config, Endpoint, EndpointStats, Identity, PresharedKey, PrivateKey, Time};

/// As a node has them.
const BUFFERS: usize = 4;
const BUFFER: usize = 65_536;
/// Handshakes in a segmented datagram of 64 KiB.
const JOINED: u64 = 50;

type Failure = Box<dyn Error + Send + Sync>;

fn identity(key: u8) -> Identity {
    Identity { keys: vec![PrivateKey::new([key; 32])], psks: vec![(0, PresharedKey::new([7; 32]))] }
}

/// Seconds of processor time of this thread.
fn busy() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Serves until the flood is over. Returns the seconds that this thread was busy, and what it counted.
fn serve(mut udp: Udp, over: &AtomicBool) -> Result<(f64, EndpointStats), Failure> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(16));
    udp.register(poll.registry(), Token(0), Token(1))?;
    let began = busy();
    while !over.load(Ordering::Relaxed) {
        if udp.turn()? {
            continue;
        }
        poll.poll(&mut events, Some(Duration::from_millis(50)))?;
        for event in &events {
            match event.token() {
                Token(0) => udp.handle_socket(event),
                _ => udp.handle_timer(),
            }
        }
    }
    let (endpoint, _) = udp.endpoint();
    assert!(endpoint.connections().next().is_none(), "nothing is kept");
    Ok((busy() - began, endpoint.stats()))
}

/// Reads and drops until the flood is over, with as many buffers as a node. Returns the seconds that this
/// thread was busy.
fn drop_all(socket: &UdpSocket, over: &AtomicBool) -> Result<f64, Failure> {
    let state = UdpSocketState::new(socket.into())?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(16));
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(0), Interest::READABLE)?;
    let mut received = vec![0; BUFFERS * BUFFER];
    let began = busy();
    while !over.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(Duration::from_millis(50)))?;
        let mut count = if events.is_empty() { 0 } else { BUFFERS };
        while count == BUFFERS {
            let mut slices = received.chunks_mut(BUFFER);
            let mut buffers: [IoSliceMut<'_>; BUFFERS] =
                std::array::from_fn(|_| IoSliceMut::new(slices.next().unwrap_or_default()));
            count = state.recv(socket.into(), &mut buffers, &mut [RecvMeta::default(); BUFFERS]).unwrap_or(0);
        }
    }
    Ok(busy() - began)
}

/// What a core is busy with a flood, in percent, for who does nothing but read it.
fn floor(init: &[u8], joined: u64, per_second: u64, seconds: u64) -> Result<f64, Failure> {
    let (socket, over) = (UdpSocket::bind("127.0.0.1:0")?, AtomicBool::new(false));
    let to = socket.local_addr()?;
    let busy = thread::scope(|scope| {
        let server = scope.spawn(|| drop_all(&socket, &over));
        let sent = flood(init, joined, to, per_second, seconds);
        over.store(true, Ordering::Relaxed);
        sent.and_then(|_| server.join().map_err(|_| "the thread panicked")?)
    })?;
    Ok(100.0 * busy / seconds as f64)
}

/// A handshake of a stranger, who knows the node's key or does not.
fn handshake(to: SocketAddr, knows: bool) -> Result<Vec<u8>, Failure> {
    let mut stranger = Endpoint::new(Time::ZERO, Config::default(), identity(1), [1; 32], 1 << 60);
    stranger.connect(Time::ZERO, PrivateKey::new([2; 32]).public(), to)?;
    let mut init = Vec::new();
    stranger.poll_transmit(Time::ZERO, &mut init).ok_or("a connection begins with an INIT")?;
    init[150] ^= u8::from(!knows);
    Ok(init)
}

/// Sends so many a second, as many at once as are joined. Returns how many.
fn flood(init: &[u8], joined: u64, to: SocketAddr, per_second: u64, seconds: u64) -> Result<u64, Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let state = UdpSocketState::new((&socket).into())?;
    let contents = init.repeat(joined as usize);
    let segment_size = (joined > 1).then_some(init.len());
    let transmit = Transmit { destination: to, ecn: None, contents: &contents, segment_size, src_ip: None };
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let due = began.elapsed().as_micros() as u64 * per_second / 1_000_000;
        while sent + joined <= due {
            match state.try_send((&socket).into(), &transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => other?,
            }
            sent += joined;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    Ok(sent)
}

fn main() -> Result<(), Failure> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let per_second = numbers.first().copied().unwrap_or(100_000);
    let seconds = numbers.get(1).copied().unwrap_or(5);
    for (knows, joined) in [(false, 1), (true, 1), (false, JOINED), (true, JOINED)] {
        let udp = Udp::bind(([127, 0, 0, 1], 0).into(), Config::default(), identity(2))?;
        let to = udp.local_address()?;
        let (init, over) = (handshake(to, knows)?, AtomicBool::new(false));
        let (sent, served) = thread::scope(|scope| {
            let server = scope.spawn(|| serve(udp, &over));
            let sent = flood(&init, joined, to, per_second, seconds);
            over.store(true, Ordering::Relaxed);
            (sent, server.join())
        });
        let (busy, stats) = served.map_err(|_| "the node's thread panicked")??;
        let (sent, share) = (sent? / seconds, 100.0 * busy / seconds as f64);
        let who = if knows { "who knows the node's key" } else { "who does not know its key" };
        let floor = floor(&init, joined, per_second, seconds)?;
        let shares = format!("{share:.1}% of a core, {floor:.1}% to read alone");
        println!("{sent}/s, {joined} at once, of a stranger {who}: {shares}; {stats:?}");
    }
    Ok(())
}
