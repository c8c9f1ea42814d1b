//! The reactor's door: who is let in, and how many at a time.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use mio::{Interest, Token, unix::SourceFd};
use turbopump_core::error::Refusal;
use turbopump_core::session::{Client, Session};

use super::{Reactor, WAKER};
use crate::connection::Connection;
use crate::listener::{Accepted, Listener, turn_away};

/// Clients accepted before the others have their turn.
pub const ACCEPT_TURN: usize = 64;
/// How long to wait for a descriptor, or memory, to become free.
const LATER_MS: u64 = 20;

impl Reactor {
    pub(super) fn listen(&mut self, listener: Listener) {
        let fd = listener.socket.as_raw_fd();
        let token = Token(WAKER.0 - 1 - self.listeners.len());
        match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
            Ok(()) => self.listeners.push(listener),
            Err(error) => self.log("error", "listen_failed", vec![("error", error.to_string())]),
        }
        self.knocking = true;
    }

    pub(super) fn accept(&mut self) {
        self.knocking = false;
        for index in 0..self.listeners.len() {
            for turn in 0.. {
                if turn == ACCEPT_TURN {
                    self.knocking = true;
                    break;
                }
                let listener = &self.listeners[index];
                let tcp = listener.tcp;
                match listener.accept(&self.shared.config.guests, &mut self.spare) {
                    Accepted::Client(socket) => self.welcome(socket, tcp),
                    Accepted::Nobody => break,
                    Accepted::Gone => {}
                    Accepted::TurnedAway => {
                        self.shared.turned_away.fetch_add(1, Relaxed);
                    }
                    Accepted::NoDescriptor => {
                        if self.shared.turned_away.fetch_add(1, Relaxed).is_multiple_of(1024) {
                            self.log("warning", "no_descriptor", vec![]);
                        }
                        self.accept_later();
                        break;
                    }
                    Accepted::Later => {
                        self.accept_later();
                        break;
                    }
                };
            }
        }
    }

    /// Polling tells of new clients only; those who wait already are looked at by the clock.
    fn accept_later(&mut self) {
        self.timers.add(self.now_ms + LATER_MS, u64::MAX);
    }

    fn welcome(&mut self, socket: OwnedFd, tcp: bool) {
        let shared = &self.shared;
        if shared.connections.fetch_add(1, Relaxed) >= shared.config.connections_max {
            shared.connections.fetch_sub(1, Relaxed);
            shared.turned_away.fetch_add(1, Relaxed);
            let text =
                "the node has as many clients as limits.max_connections allows: try again later, or raise it";
            return turn_away(&socket, &Refusal::Busy(text.into()));
        }
        shared.accepted.fetch_add(1, Relaxed);
        let id = shared.next_client.fetch_add(1, Relaxed);
        let password = shared.config.password.as_ref().filter(|_| tcp).map(|text| text.as_bytes().into());
        let token = self.connections.reserve();
        let mut client = Client::new(id, password);
        client.token = token;
        client.redirect = tcp && shared.config.cluster.as_ref().is_some_and(|cluster| cluster.redirect);
        let session = Session::new(client);
        self.connections.put(token, Box::new(Connection::new(socket, session, tcp, self.now_ms)));
        self.turn(token);
    }
}
