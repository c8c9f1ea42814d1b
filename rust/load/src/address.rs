//! Where the server is: a unix socket or loopback. Other machines belong to other people.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::LoadError;

/// A blocking call returns after so long, to look whether the run was stopped.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A server's address.
#[derive(Clone, Debug)]
pub enum Address {
    /// A TCP port of this machine.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(SocketAddrUnix),
}

impl Address {
    /// Reads a path or `tcp://host:port`.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let refused = |problem: &str| LoadError::option("address", format!("{text}: {problem}"));
        let Some(host_port) = text.strip_prefix("tcp://") else {
            // The system's own check calls a path that is too long a path with a NUL in it; std's words are
            // better.
            UnixAddr::from_pathname(text).map_err(|error| refused(&error.to_string()))?;
            let address = SocketAddrUnix::new(text).map_err(|error| refused(&error.to_string()))?;
            return if text.is_empty() {
                Err(refused("give the path of a socket"))
            } else {
                Ok(Address::Unix(address))
            };
        };
        let host_port = host_port.trim_end_matches('/').replacen("localhost:", "127.0.0.1:", 1);
        let address: SocketAddr = host_port
            .parse()
            .map_err(|_| refused("write tcp://127.0.0.1:PORT, tcp://[::1]:PORT or a path"))?;
        if !address.ip().is_loopback() {
            return Err(refused("is not this machine: only unix sockets and loopback are loaded"));
        }
        Ok(Address::Tcp(address))
    }

    /// A connected, blocking socket whose calls return after [`PATIENCE`].
    pub fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(stream.into())
            }
            Address::Unix(address) => {
                let socket =
                    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                sockopt::set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
                sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
                loop {
                    match connect(&socket, address) {
                        Err(Errno::INTR) => {}
                        other => return other.map(|()| socket).map_err(io::Error::from),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_only() {
        for good in
            ["/tmp/turbopump", "here.sock", "tcp://127.0.0.1:6379", "tcp://localhost:1/", "tcp://[::1]:1592"]
        {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        let long = "x".repeat(108);
        for bad in
            ["", "tcp://", "tcp://10.0.0.1:6379", "tcp://example.org:80", "tcp://[::]:1", "a\0b", &long]
        {
            let error = Address::parse(bad).unwrap_err();
            assert!(matches!(error, LoadError::Option { name: "address", .. }), "{bad}: {error}");
        }
    }
}
