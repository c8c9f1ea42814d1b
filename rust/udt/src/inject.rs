//! For tests and the fuzzer: a connection without a network, which takes frames from anybody.

use core::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::connection::Connection;
use crate::handshake::PublicKey;
use crate::message::{Class, Event, Options};
use crate::packet::Settings;
use crate::rng::Rng;
use crate::time::Time;

/// A connection that is connected to nobody, with small limits.
#[derive(Debug)]
pub struct Lone {
    connection: Connection,
    config: Arc<Config>,
    now: Time,
}

impl Lone {
    /// One that has a few messages of its own to send.
    pub fn new() -> Self {
        let config = Arc::new(Config {
            window: 64 << 10,
            message_window: 16 << 10,
            messages: 16,
            fragments_max: 100,
            ..Config::default()
        });
        let remote = SocketAddr::from(([127, 0, 0, 1], 1));
        let rng = Rng::new([0; 32]);
        let mut connection = Connection::new(Time::ZERO, &config, PublicKey([0; 32]), remote, 0, rng);
        let settings = Settings {
            stamp: 0,
            token: 0,
            suites: 1,
            datagram_max: 1472,
            window: 1000,
            message_window: 100,
            messages: 4,
            message_max: 1 << 20,
        };
        connection.start(Time::ZERO, &settings);
        for class in Class::ALL {
            // Invariant: the buffer is empty, and four messages are allowed.
            #[expect(clippy::expect_used)]
            connection.send(Options::new(class), vec![7; 500].into()).expect("room for four messages");
        }
        Lone { connection, config, now: Time::ZERO }
    }

    /// Takes frames as if the peer had sent them; panics if a bound is broken. Returns whether the connection
    /// goes on.
    pub fn take(&mut self, frames: &[u8]) -> bool {
        self.now = self.now + self.config.ack_delay;
        self.connection.inject(self.now, frames);
        while let Some(event) = self.connection.poll_event() {
            if let Event::Message { id, data, .. } | Event::MessageData { id, data } = event {
                self.connection.consumed(id, data.len() as u64);
            }
        }
        let stats = self.connection.stats();
        assert!(stats.receive_buffered <= self.config.window, "{stats:?}");
        assert!(stats.send_buffered <= self.config.send_buffer, "{stats:?}");
        self.connection.handle_timeout(self.now);
        !self.connection.is_closed()
    }
}

impl Default for Lone {
    fn default() -> Self {
        Lone::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, MessageFrame};
    use proptest::prelude::*;

    fn frames(numbers: (u8, u64, u64, u8, bool), data: &[u8]) -> Vec<u8> {
        let (kind, id, offset, class, fin) = numbers;
        let after = id.checked_sub(1).filter(|_| kind > 10);
        let frame = match kind {
            0 => Frame::Drop { id, size: offset, after },
            1 => Frame::Stop { id },
            2 => Frame::MaxData(offset),
            3 => Frame::MaxMessages(offset),
            4 => Frame::MaxMessageData { id, max: offset },
            5 => Frame::Datagram(data),
            _ => Frame::Message(MessageFrame { id, offset, class, fin, after, data }),
        };
        let mut out = Vec::new();
        frame.write(&mut out);
        out
    }

    proptest! {
        /// Whoever has the keys may close the connection, but not break it or fill the memory.
        #[test]
        fn a_peer_that_lies_is_bounded(
            steps in prop::collection::vec(
                (0_u8..14, 0_u64..20, 0_u64..20_000, 0_u8..4, any::<bool>()),
                1..200,
            ),
            data in prop::collection::vec(any::<u8>(), 0..1200),
        ) {
            let mut lone = Lone::new();
            for step in steps {
                let len = (step.2 as usize * 7 % 1200).min(data.len());
                if !lone.take(&frames(step, &data[..len])) {
                    break;
                }
            }
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Lone::new().take(&bytes);
        }
    }

    #[test]
    fn gappy_fragments_are_bounded() {
        let mut lone = Lone::new();
        let piece = |at: u64| frames((7, at % 10, 10 + at / 10 * 2, 1, false), b"x");
        let taken = (0..10_000).take_while(|at| lone.take(&piece(*at))).count();
        assert!((50..=101).contains(&taken), "{taken} fragments");
    }
}
