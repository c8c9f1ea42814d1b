//! A server to be loaded by the tests: a map behind a unix socket that speaks every protocol, and
//! misbehaves as told.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::protocol::Protocol;

/// How a server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Sends replies one byte at a time.
    ByteByByte,
    /// Answers with a line of no protocol.
    Foreign,
    /// Goes away after so many requests of a connection, in the middle of a reply.
    Leaves(usize),
    /// Answers with the value of another key.
    OtherKey,
    /// Refuses writes.
    Refuses,
    /// Answers nothing.
    Silent,
}

/// A server; gone when dropped.
pub struct Server {
    path: PathBuf,
}

type Store = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

impl Server {
    pub fn start(protocol: Protocol, fault: Fault) -> Server {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("load-{}-{count}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let store = Store::default();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let session = Session { stream: stream.unwrap(), protocol, fault, store: Arc::clone(&store) };
                thread::spawn(move || session.serve());
            }
        });
        Server { path }
    }

    pub fn address(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // its threads end with the test's process
    }
}

struct Session {
    stream: UnixStream,
    protocol: Protocol,
    fault: Fault,
    store: Store,
}

enum Asked {
    Get(Vec<u8>),
    Hello,
    Set(Vec<u8>, Vec<u8>),
}

impl Session {
    fn serve(mut self) -> Option<()> {
        let (mut input, mut chunk, mut count, mut kept) = (Vec::new(), [0; 65536], 0, false);
        loop {
            match self.stream.read(&mut chunk).ok()? {
                0 => return None,
                received => input.extend_from_slice(&chunk[..received]),
            }
            let mut at = 0;
            while let Some((asked, length)) = self.parse(&input[at..], kept) {
                at += length;
                count += 1;
                kept |= matches!(asked, Asked::Hello);
                let reply = self.answer(asked, kept);
                match self.fault {
                    Fault::Leaves(after) if count > after => {
                        self.stream.write_all(&reply[..1]).ok()?;
                        return None;
                    }
                    Fault::ByteByByte => {
                        reply.chunks(1).try_for_each(|byte| self.stream.write_all(byte)).ok()?
                    }
                    Fault::Foreign => self.stream.write_all(b"what?\n").ok()?,
                    Fault::Silent => {}
                    _ => self.stream.write_all(&reply).ok()?,
                }
                if self.protocol == Protocol::Pipe && !kept {
                    return None;
                }
            }
            input.drain(..at);
        }
    }

    fn answer(&self, asked: Asked, kept: bool) -> Vec<u8> {
        let mut store = self.store.lock().unwrap();
        let (value, ok) = match asked {
            Asked::Hello => return b"ok|length=0|\n".to_vec(),
            Asked::Set(key, value) => {
                let refused = self.fault == Fault::Refuses;
                if !refused {
                    store.insert(key, value);
                }
                (None, Some(!refused))
            }
            Asked::Get(mut key) => {
                if self.fault == Fault::OtherKey {
                    let last = key.len() - 1;
                    key[last] ^= 1; // another digit
                }
                (store.get(&key).cloned(), None)
            }
        };
        let mut reply = match (self.protocol, &value, ok, kept) {
            (Protocol::Resp, Some(value), ..) => format!("${}\r\n", value.len()),
            (Protocol::Resp, _, None, _) => "$-1\r\n".into(),
            (Protocol::Resp, _, Some(true), _) => "+OK\r\n".into(),
            (Protocol::Resp, ..) => "-OOM no room\r\n".into(),
            (Protocol::Memcached, Some(value), ..) => format!("VA {}\r\n", value.len()),
            (Protocol::Memcached, _, None, _) => "EN\r\n".into(),
            (Protocol::Memcached, _, Some(true), _) => "HD\r\n".into(),
            (Protocol::Memcached, ..) => "SERVER_ERROR no room\r\n".into(),
            (Protocol::Pipe, Some(_), _, false) => String::new(),
            (Protocol::Pipe, Some(value), ..) => format!("ok|version=1-2 length={}|", value.len()),
            (Protocol::Pipe, _, None, true) => "error|code=not_found length=7|nothing\n".into(),
            (Protocol::Pipe, _, None, false) => "error|code=not_found|nothing\n".into(),
            (Protocol::Pipe, _, Some(true), true) => "ok|version=1-2 length=0|\n".into(),
            (Protocol::Pipe, _, Some(true), false) => "ok|version=1-2\n".into(),
            (Protocol::Pipe, _, Some(false), true) => "error|code=no_space length=4|full\n".into(),
            (Protocol::Pipe, _, Some(false), false) => "error|code=no_space|full\n".into(),
        }
        .into_bytes();
        if let Some(value) = value {
            reply.extend(value);
            match (self.protocol, kept) {
                (Protocol::Pipe, true) => reply.push(b'\n'),
                (Protocol::Pipe, false) => {}
                _ => reply.extend(b"\r\n"),
            }
        }
        reply
    }

    /// The request at the front, if it is whole, and its length.
    fn parse(&self, input: &[u8], kept: bool) -> Option<(Asked, usize)> {
        let lines: Vec<&[u8]> = input.splitn(7, |&byte| byte == b'\n').collect();
        let line = |index: usize| -> Option<&str> {
            (index + 1 < lines.len()).then(|| std::str::from_utf8(lines[index]).unwrap().trim_end())
        };
        let start = |index: usize| lines[..index].iter().map(|line| line.len() + 1).sum::<usize>();
        let value = |at: usize, length: usize, tail: usize| -> Option<(Vec<u8>, usize)> {
            (input.len() >= at + length + tail).then(|| (input[at..at + length].to_vec(), at + length + tail))
        };
        match self.protocol {
            Protocol::Resp => {
                let key = line(4)?.as_bytes().to_vec();
                if line(0)? == "*2" {
                    return Some((Asked::Get(key), start(5)));
                }
                let (value, end) = value(start(6), line(5)?[1..].parse().unwrap(), 2)?;
                Some((Asked::Set(key, value), end))
            }
            Protocol::Memcached => {
                let words: Vec<&str> = line(0)?.split(' ').collect();
                if words[0] == "mg" {
                    return Some((Asked::Get(words[1].into()), start(1)));
                }
                let (value, end) = value(start(1), words[2].parse().unwrap(), 2)?;
                Some((Asked::Set(words[1].into(), value), end))
            }
            Protocol::Pipe => {
                let text = String::from_utf8_lossy(input);
                let (command, rest) = text.split_once('|')?;
                let (params, rest) = rest.split_once('|')?;
                let at = command.len() + params.len() + 2;
                let key = params.split(' ').next()?.trim_start_matches("name=").as_bytes().to_vec();
                match command {
                    "keep" => Some((Asked::Hello, line(0)?.len() + 1)),
                    "read" => Some((Asked::Get(key), line(0)?.len() + 1)),
                    _ if kept => {
                        let (value, end) = value(at, params.split_once(" length=")?.1.parse().unwrap(), 1)?;
                        Some((Asked::Set(key, value), end))
                    }
                    _ => Some((Asked::Set(key, rest.split_once('\n')?.0.into()), line(0)?.len() + 1)),
                }
            }
        }
    }
}
