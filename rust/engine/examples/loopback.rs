//! Sends a stream from one endpoint to another over this machine's loopback, and tells how fast and at what
//! cost: `cargo run --release --example loopback [GB]`.
#![allow(clippy::print_stdout, reason = "an example reports by printing")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use mio::{Events, Poll, Token};
use turbopump_engine::udp::Udp;
use turbopump_udt::{Class, Config, Event, Identity, Options, PresharedKey, PrivateKey, PublicKey};

type Failure = Box<dyn Error + Send + Sync>;

fn identity(key: u8) -> Identity {
    Identity { keys: vec![PrivateKey::new([key; 32])], psks: vec![(0, PresharedKey::new([7; 32]))] }
}

fn public(key: u8) -> PublicKey {
    PrivateKey::new([key; 32]).public()
}

fn wait(udp: &mut Udp, poll: &mut Poll, events: &mut Events) -> Result<(), Failure> {
    if udp.turn()? {
        return Ok(());
    }
    poll.poll(events, None)?;
    for event in events.iter() {
        match event.token() {
            Token(0) => udp.handle_socket(event),
            _ => udp.handle_timer(),
        }
    }
    Ok(())
}

fn receive(mut udp: Udp, total: u64) -> Result<(), Failure> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(16));
    udp.register(poll.registry(), Token(0), Token(1))?;
    udp.endpoint().0.admit(public(1));
    let (mut got, mut start) = (0u64, Instant::now());
    loop {
        wait(&mut udp, &mut poll, &mut events)?;
        let (endpoint, now) = udp.endpoint();
        while let Some((id, event)) = endpoint.poll_event() {
            match event {
                Event::Connected => start = Instant::now(),
                Event::MessageData { id: message, data } => {
                    got += data.len() as u64;
                    if let Some(connection) = endpoint.connection_mut(now, id) {
                        connection.consumed(message, data.len() as u64);
                    }
                }
                Event::MessageEnd { .. } => {
                    let seconds = start.elapsed().as_secs_f64();
                    println!(
                        "{got} bytes of {total} in {seconds:.2} s: {:.2} Gbit/s",
                        got as f64 * 8e-9 / seconds
                    );
                    println!("{:?}", endpoint.connection(id).map(turbopump_udt::Connection::stats));
                    if let Some(connection) = endpoint.connection_mut(now, id) {
                        connection.close(0, b"done");
                    }
                    while udp.turn()? {}
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

fn send(mut udp: Udp, to: SocketAddr, total: u64) -> Result<(), Failure> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(16));
    udp.register(poll.registry(), Token(0), Token(1))?;
    let (endpoint, now) = udp.endpoint();
    let id = endpoint.connect(now, public(2), to)?;
    let block = Bytes::from(vec![7u8; 1 << 20]);
    let (mut left, mut message, mut rest) = (total, None, Bytes::new());
    loop {
        wait(&mut udp, &mut poll, &mut events)?;
        let (endpoint, now) = udp.endpoint();
        while let Some((_, event)) = endpoint.poll_event() {
            match event {
                Event::Connected => {
                    if let Some(connection) = endpoint.connection_mut(now, id) {
                        message = Some(connection.open(Options::new(Class::Bulk))?);
                    }
                }
                Event::Closed(reason) => {
                    println!("closed: {reason}");
                    return Ok(());
                }
                _ => {}
            }
        }
        let (Some(message), Some(connection)) = (message, endpoint.connection_mut(now, id)) else { continue };
        while left > 0 {
            if rest.is_empty() {
                rest = block.slice(..block.len().min(left as usize));
            }
            let taken = connection.write(message, &mut rest)?;
            left -= taken as u64;
            if left == 0 {
                connection.finish(message)?;
                println!("sent {:?}", connection.stats());
            }
            if !rest.is_empty() {
                break;
            }
        }
    }
}

fn main() -> Result<(), Failure> {
    let gigabytes: f64 = std::env::args().nth(1).map_or(Ok(2.0), |text| text.parse())?;
    let total = (gigabytes * 1e9) as u64;
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let receiver = Udp::bind(any, Config::default(), identity(2))?;
    let to = receiver.local_address()?;
    let sender = Udp::bind(any, Config::default(), identity(1))?;
    let start = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let receiving = std::thread::spawn(move || receive(receiver, total));
    send(sender, to, total)?;
    receiving.join().map_err(|_| "the receiver panicked")??;
    let end = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = (end.tv_sec - start.tv_sec) as f64 + (end.tv_nsec - start.tv_nsec) as f64 * 1e-9;
    println!("{:.2} s of CPU a GB, both ends", cpu / gigabytes);
    Ok(())
}
