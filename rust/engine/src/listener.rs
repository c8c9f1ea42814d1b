//! Accepting clients, and turning them away in words they understand.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use turbopump_core::error::Refusal;
use turbopump_core::output::Output;
use turbopump_core::pipe::response;
use turbopump_core::resp::reply;

use crate::config::Guests;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: OwnedFd,
    /// Whether it is a TCP socket.
    pub tcp: bool,
}

/// What accepting came to.
#[derive(Debug)]
pub enum Accepted {
    /// A client.
    Client(OwnedFd),
    /// Nobody is waiting.
    Nobody,
    /// A client left before it was accepted.
    Gone,
    /// A client was turned away.
    TurnedAway,
    /// A client was turned away because no descriptor is left.
    NoDescriptor,
    /// The system has not the means now; who is waiting goes on waiting.
    Later,
}

/// A descriptor kept in hand: without one, a client could not even be told that there is none left.
#[derive(Debug)]
pub struct Spare(Option<OwnedFd>);

impl Spare {
    /// Takes a descriptor to keep.
    pub fn new() -> Self {
        Spare(rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok())
    }

    /// Turns away the next client of `listener` with the spare descriptor.
    fn turn_away(&mut self, listener: &Listener) -> Accepted {
        self.0 = None;
        if let Ok(client) = accept(listener) {
            let text = "the node has no file descriptor left: try again later, or raise its ulimit -n";
            turn_away(&client, &Refusal::Busy(text.into()));
        }
        *self = Spare::new();
        Accepted::NoDescriptor
    }
}

fn accept(listener: &Listener) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

impl Listener {
    /// Accepts one client that the guest list admits.
    pub fn accept(&self, guests: &Guests, spare: &mut Spare) -> Accepted {
        match accept(self) {
            Ok(client) if self.tcp => {
                // Failing, replies are merely slower.
                let _ = rustix::net::sockopt::set_tcp_nodelay(&client, true);
                let _ = rustix::net::sockopt::set_socket_keepalive(&client, true);
                Accepted::Client(client)
            }
            Ok(client) if admitted(&client, guests) => Accepted::Client(client),
            Ok(client) => {
                turn_away(&client, &Refusal::Denied("your user is not on this node's guest list".into()));
                Accepted::TurnedAway
            }
            Err(Errno::MFILE | Errno::NFILE) => spare.turn_away(self),
            Err(errno) => nobody(errno),
        }
    }
}

/// What it means that nobody was accepted. Polling tells of new clients only: if this is taken for an end of
/// those who wait, they wait until another one comes.
fn nobody(errno: Errno) -> Accepted {
    match errno {
        Errno::AGAIN => Accepted::Nobody,
        // The socket is of no use any more; its owner notices.
        Errno::BADF | Errno::INVAL | Errno::NOTSOCK => Accepted::Nobody,
        // What is wrong with one connection is told in place of it.
        Errno::CONNABORTED
        | Errno::INTR
        | Errno::PERM
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::NONET
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH => Accepted::Gone,
        _ => Accepted::Later,
    }
}

fn admitted(client: &OwnedFd, guests: &Guests) -> bool {
    guests.is_open()
        || rustix::net::sockopt::socket_peercred(client)
            .is_ok_and(|peer| guests.admit(peer.uid.as_raw(), peer.gid.as_raw()))
}

/// Tells a client why it is not served, in the protocol its first byte suggests.
pub fn turn_away(client: impl AsFd, refusal: &Refusal) {
    let mut first = [0u8; 4096];
    let count = rustix::net::recv(&client, &mut first[..], RecvFlags::DONTWAIT).map_or(0, |(count, _)| count);
    let mut out = Output::default();
    if first[..count].first().is_some_and(|byte| *byte == b'*' || byte.is_ascii_uppercase()) {
        reply::Writer { out: &mut out, resp3: false }.error(&format!("ERR {refusal}"));
    } else {
        // Framed, which a program can read before it could ask for it, and a person all the same.
        response::Writer { out: &mut out, frame: true, id: None }.refusal(refusal);
    }
    // It is told once; whether it listens is its own affair.
    let _ = rustix::net::send(&client, out.front(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_of_one_client_or_of_the_moment_makes_others_wait() {
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH, Errno::INTR] {
            assert!(matches!(nobody(errno), Accepted::Gone), "{errno}");
        }
        for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::NOSR] {
            assert!(matches!(nobody(errno), Accepted::Later), "{errno}");
        }
        assert!(matches!(nobody(Errno::AGAIN), Accepted::Nobody));
    }
}
