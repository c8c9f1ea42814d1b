//! The transports that are measured, behind one face: blocking, as a plain client sees each.
//!
//! To add one, implement the three traits and name it in [`open`]: everything else, the page too, is the same
//! for all.

mod library;
mod tcp;
mod turbopump;
mod udt;

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use turbopump_udt::Config;
use turbopump_udt::config::Algorithm;

use crate::error::LabError;

/// Those that [`open`] knows.
pub const NAMES: [&str; 6] = ["turbopump", "turbopump-cubic", "tcp-cubic", "tcp-bbr", "udt", "srt"];

/// A way to move bytes between two processes.
pub trait Transport: Send + Sync {
    /// Whether its messages keep their bounds and need not wait for each other. Where not, a message beside a
    /// stream needs a connection of its own.
    fn has_messages(&self) -> bool;

    /// Waits for connections at an address.
    fn listen(&self, address: SocketAddrV4, kind: Kind) -> io::Result<Box<dyn Listener>>;

    /// Connects to somebody who listens there, for the same kind.
    fn connect(&self, address: SocketAddrV4, kind: Kind) -> io::Result<Arc<dyn Connection>>;
}

/// Somebody who listens.
pub trait Listener: Send + Sync {
    /// The next connection.
    fn accept(&self) -> io::Result<Arc<dyn Connection>>;
}

/// A connection. It is used by two threads at once: one sends, one receives.
pub trait Connection: Send + Sync {
    /// Sends the front of some bytes; tells how many.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Receives bytes; 0 when the peer has ended.
    fn receive(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Sends a message, whole.
    fn send_message(&self, message: &[u8], class: Class) -> io::Result<()>;

    /// Receives the next message, which must fit, and tells its length; 0 when the peer has ended.
    fn receive_message(&self, into: &mut [u8]) -> io::Result<usize>;
}

/// What a connection is for. Some transports must know before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Bytes in order.
    Stream,
    /// Messages.
    Messages,
}

/// What a message is, for transports that treat them differently.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Somebody waits for it.
    Urgent,
    /// It is part of much.
    Bulk,
}

/// A transport by its name.
pub fn open(name: &str) -> Result<Box<dyn Transport>, LabError> {
    match name {
        "turbopump" => Ok(Box::new(turbopump::Turbopump(Config::default().congestion))),
        "turbopump-cubic" => Ok(Box::new(turbopump::Turbopump(Algorithm::Cubic))),
        "tcp-cubic" => Ok(Box::new(tcp::Tcp::new("cubic")?)),
        "tcp-bbr" => Ok(Box::new(tcp::Tcp::new("bbr")?)),
        "udt" => Ok(Box::new(udt::Udt::udt4()?)),
        "srt" => Ok(Box::new(udt::Udt::srt()?)),
        _ => Err(LabError::option("transport", format!("{name} is none of {}", NAMES.join(", ")))),
    }
}

/// Sends all of some bytes.
pub fn send_all(connection: &dyn Connection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = connection.send(bytes)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;

    use super::*;

    fn free_port() -> SocketAddrV4 {
        // Free for UDP, which all but TCP use, and for TCP most likely.
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port())
    }

    /// Those that this machine has.
    fn transports() -> impl Iterator<Item = (&'static str, Box<dyn Transport>)> {
        NAMES.into_iter().filter_map(|name| Some((name, open(name).ok()?)))
    }

    fn pair(transport: &dyn Transport, kind: Kind) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        let address = free_port();
        let listener = transport.listen(address, kind).unwrap();
        thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept().unwrap());
            let connected = transport.connect(address, kind).unwrap();
            (connected, accepted.join().unwrap())
        })
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        for (name, transport) in transports() {
            let (client, server) = pair(&*transport, Kind::Stream);
            let sent: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
            thread::scope(|scope| {
                scope.spawn(|| send_all(&*client, &sent).unwrap());
                let (mut received, mut chunk) = (Vec::new(), vec![0; 4096]);
                while received.len() < sent.len() {
                    let length = server.receive(&mut chunk).unwrap();
                    assert!(length > 0, "{name}");
                    received.extend_from_slice(&chunk[..length]);
                }
                assert!(received == sent, "{name}");
            });
        }
    }

    #[test]
    fn messages_keep_their_bounds() {
        for (name, transport) in transports() {
            let (client, server) = pair(&*transport, Kind::Messages);
            let mut buffer = vec![0; 20_000];
            for length in [1, 512, 1456, 10_000] {
                client.send_message(&vec![7; length], Class::Urgent).unwrap();
                assert_eq!(server.receive_message(&mut buffer).unwrap(), length, "{name}");
                assert!(buffer[..length].iter().all(|&byte| byte == 7), "{name}");
            }
            server.send_message(b"and back", Class::Bulk).unwrap();
            let length = client.receive_message(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"and back", "{name}");
        }
    }

    #[test]
    fn a_connection_that_nobody_accepts_fails_with_a_reason() {
        for (name, transport) in transports() {
            let error = transport.connect(free_port(), Kind::Stream).err().unwrap();
            assert!(!error.to_string().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_transport_that_is_not_known_names_those_that_are() {
        let error = open("quic").err().unwrap().to_string();
        assert_eq!(
            error,
            "transport: quic is none of turbopump, turbopump-cubic, tcp-cubic, tcp-bbr, udt, srt"
        );
    }
}
