//! What clients say and understand, in both protocols.

use std::collections::VecDeque;

use turbopump_core::pipe::response;

/// A protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wire {
    Resp,
    Pipe,
}

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Ok,
    Error(String),
    Number(i64),
    Value(Option<Vec<u8>>),
    Values(Vec<Answer>),
}

/// A request, in no protocol yet.
#[derive(Clone, Eq, PartialEq)]
pub enum Request {
    /// RESP: several pairs are MSET.
    Set(Vec<(String, Vec<u8>)>),
    /// RESP: several keys are MGET.
    Get(Vec<String>),
    Delete(Vec<String>),
    /// RESP only.
    Increment(String),
    /// RESP only.
    Append(String, Vec<u8>),
    /// Pipe only: until there is a value, or so many milliseconds.
    Wait(String, u64),
}

/// The client's side of a connection.
#[derive(Debug)]
pub struct Ear {
    wire: Wire,
    received: Vec<u8>,
    /// Requests that are not answered.
    pub pending: VecDeque<u64>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Request::Set(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| format!("{key} of {}", value.len()));
                write!(f, "SET {:?}", pairs.collect::<Vec<_>>())
            }
            Request::Get(keys) => write!(f, "GET {keys:?}"),
            Request::Delete(keys) => write!(f, "DEL {keys:?}"),
            Request::Increment(key) => write!(f, "INCR {key}"),
            Request::Append(key, _) => write!(f, "APPEND {key}"),
            Request::Wait(key, ms) => write!(f, "WAIT {key} {ms}"),
        }
    }
}

impl Request {
    pub fn encode(&self, wire: Wire, acks: Option<&str>) -> Vec<u8> {
        match wire {
            Wire::Resp => resp(&self.words()),
            Wire::Pipe => self.pipe(acks),
        }
    }

    fn words(&self) -> Vec<&[u8]> {
        match self {
            Request::Set(pairs) => {
                let name: &[u8] = if pairs.len() == 1 { b"SET" } else { b"MSET" };
                let words = pairs.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_slice()]);
                std::iter::once(name).chain(words).collect()
            }
            Request::Get(keys) => named(if keys.len() == 1 { "GET" } else { "MGET" }, keys),
            Request::Delete(keys) => named("DEL", keys),
            Request::Increment(key) => vec![b"INCR", key.as_bytes()],
            Request::Append(key, value) => vec![b"APPEND", key.as_bytes(), value],
            Request::Wait(..) => unreachable!("Redis has no such command"),
        }
    }

    fn pipe(&self, acks: Option<&str>) -> Vec<u8> {
        let acks = acks.map(|acks| format!(" acks={acks}")).unwrap_or_default();
        match self {
            Request::Set(pairs) => {
                let (key, value) = &pairs[0];
                let head = format!("write|name={key} length={}{acks}|", value.len());
                [head.as_bytes(), value, b"\n"].concat()
            }
            Request::Get(keys) => format!("read|name={}{acks}|\n", keys[0]).into_bytes(),
            Request::Delete(keys) => format!("delete|name={}{acks}|\n", keys[0]).into_bytes(),
            Request::Wait(key, ms) => {
                format!("wait|name={key} timeout={}|\n", *ms as f64 / 1000.0).into_bytes()
            }
            Request::Increment(_) | Request::Append(..) => unreachable!("the pipe has no such command"),
        }
    }
}

fn named<'a>(name: &'static str, keys: &'a [String]) -> Vec<&'a [u8]> {
    std::iter::once(name.as_bytes()).chain(keys.iter().map(String::as_bytes)).collect()
}

fn resp(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

impl Ear {
    pub fn new(wire: Wire) -> Self {
        Ear { wire, received: Vec::new(), pending: VecDeque::new() }
    }

    /// What a client says first.
    pub fn greeting(&mut self) -> Vec<u8> {
        match self.wire {
            Wire::Resp => Vec::new(),
            Wire::Pipe => b"keep|frame=1|\n".to_vec(),
        }
    }

    pub fn hear(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next answer that is whole.
    pub fn answer(&mut self) -> Option<Answer> {
        let (answer, used) = match self.wire {
            Wire::Resp => read_resp(&self.received)?,
            Wire::Pipe => {
                let (response, used) = response::read(&self.received, 1 << 24).unwrap()?;
                let text = || String::from_utf8_lossy(response.body).into_owned();
                let param = |name: &str| response.params.iter().find(|(known, _)| known == name);
                let answer = match (response.ok, param("deleted"), param("version")) {
                    (false, ..) => {
                        let code = param("code").map_or("", |(_, code)| code.as_str());
                        if code == "not_found" { Answer::Value(None) } else { Answer::Error(text()) }
                    }
                    (true, Some((_, count)), _) => Answer::Number(count.parse().unwrap()),
                    (true, None, Some(_)) if !response.body.is_empty() => {
                        Answer::Value(Some(response.body.to_vec()))
                    }
                    (true, ..) => Answer::Ok,
                };
                (answer, used)
            }
        };
        self.received.drain(..used);
        Some(answer)
    }
}

fn read_resp(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[1..end]).unwrap();
    let used = end + 2;
    Some(match bytes[0] {
        b'+' => (Answer::Ok, used),
        b'-' => (Answer::Error(line.to_owned()), used),
        b':' => (Answer::Number(line.parse().unwrap()), used),
        b'$' if line == "-1" => (Answer::Value(None), used),
        b'$' => {
            let len: usize = line.parse().unwrap();
            let value = bytes.get(used..used + len + 2)?[..len].to_vec();
            (Answer::Value(Some(value)), used + len + 2)
        }
        b'*' => {
            let (mut all, mut at) = (Vec::new(), used);
            for _ in 0..line.parse().unwrap() {
                let (answer, used) = read_resp(&bytes[at..])?;
                all.push(answer);
                at += used;
            }
            (Answer::Values(all), at)
        }
        other => panic!("an answer begins with {:?}", other as char),
    })
}
