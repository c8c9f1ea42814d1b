//! Closed loop: each connection sends its next requests when the last are answered, as a client does that has
//! to know. It shows what a server can do; it hides stalls, since nothing is asked while one lasts.

use rustix::net::RecvFlags;

use crate::address::PATIENCE;
use crate::connection::{Connection, Load};
use crate::error::LoadError;
use crate::poll::Poll;

/// One connection, without epoll: as a plain client waits, and quicker.
pub fn one(load: &mut Load<'_>, connection: &mut Connection, depth: usize) -> Result<(), LoadError> {
    loop {
        connection.ask(load, depth, None)?;
        while connection.is_waiting() {
            connection.wait(load)?;
            let now = load.window.clock.now();
            if load.window.is_over(now)? {
                return Ok(());
            }
        }
    }
}

/// Many connections.
pub fn many(load: &mut Load<'_>, connections: &mut [Connection], depth: usize) -> Result<(), LoadError> {
    let mut poll = Poll::new()?;
    for (number, connection) in connections.iter_mut().enumerate() {
        poll.add(&*connection, number)?;
        connection.ask(load, depth, None)?;
        watch(&poll, connection, number, false)?;
    }
    loop {
        for index in 0..poll.wait(PATIENCE)? {
            let number = poll.ready(index);
            let connection = &mut connections[number];
            let sending = connection.is_sending();
            connection.flush()?;
            connection.receive(load, RecvFlags::DONTWAIT)?;
            if !connection.is_waiting() {
                connection.ask(load, depth, None)?;
            }
            watch(&poll, connection, number, sending)?;
        }
        let now = load.window.clock.now();
        if load.window.is_over(now)? {
            return Ok(());
        }
    }
}

/// Watches for room to send when there is something left to send.
pub fn watch(poll: &Poll, connection: &Connection, number: usize, before: bool) -> Result<(), LoadError> {
    if connection.is_sending() == before {
        return Ok(());
    }
    poll.watch_writing(connection, number, !before)
}
