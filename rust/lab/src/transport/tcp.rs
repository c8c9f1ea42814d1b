//! TCP, the kernel's, with a congestion control of choice. A message is its length in four bytes and then
//! itself: TCP has no messages of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_congestion, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::{Class, Connection, Kind, Listener, Transport};
use crate::error::LabError;

const BACKLOG: i32 = 128;

pub struct Tcp {
    congestion: &'static str,
}

impl Tcp {
    /// Fails if the kernel has no such congestion control, or allows it to root only.
    pub fn new(congestion: &'static str) -> Result<Self, LabError> {
        let tcp = Tcp { congestion };
        let refused = format!("{congestion} for TCP, which net.ipv4.tcp_allowed_congestion_control tells");
        tcp.socket().map_err(LabError::system(refused))?;
        Ok(tcp)
    }

    fn socket(&self) -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_tcp_congestion(&socket, self.congestion)?;
        set_tcp_nodelay(&socket, true)?;
        Ok(socket)
    }
}

impl Transport for Tcp {
    fn has_messages(&self) -> bool {
        false
    }

    fn listen(&self, address: SocketAddrV4, _kind: Kind) -> io::Result<Box<dyn Listener>> {
        let socket = self.socket()?;
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(Box::new(Door(TcpListener::from(socket))))
    }

    fn connect(&self, address: SocketAddrV4, _kind: Kind) -> io::Result<Arc<dyn Connection>> {
        let socket = self.socket()?;
        connect(&socket, &address)?;
        Ok(Arc::new(Stream(TcpStream::from(socket))))
    }
}

struct Door(TcpListener);

impl Listener for Door {
    fn accept(&self) -> io::Result<Arc<dyn Connection>> {
        // It inherits the listener's options.
        Ok(Arc::new(Stream(self.0.accept()?.0)))
    }
}

struct Stream(TcpStream);

impl Connection for Stream {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(into)
    }

    fn send_message(&self, message: &[u8], _class: Class) -> io::Result<()> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        let framed = [&length.to_le_bytes()[..], message].concat();
        (&self.0).write_all(&framed)
    }

    fn receive_message(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut head = [0; 4];
        match (&self.0).read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            other => other?,
        }
        let length = u32::from_le_bytes(head) as usize;
        let room = into.len();
        let body = into.get_mut(..length);
        let body = body.ok_or_else(|| io::Error::other(format!("{length} bytes do not fit in {room}")))?;
        (&self.0).read_exact(body)?;
        Ok(length)
    }
}
