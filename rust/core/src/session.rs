//! One client's conversation: bytes in, replies out, in order. Sans-IO: the reactor brings the bytes, the
//! time and the answers to cold commands, and does what each call's `Flow` says.

mod away;
mod sending;
mod watching;

use std::ops::Range;

use crate::blob::Value;
pub use crate::client::Client;
use crate::config::Limits;
pub use crate::context::Ask;
use crate::context::{COMMAND_NS, Context, STEP_NS};
use crate::error::Refusal;
use crate::feed::Watch;
use crate::job::Job;
use crate::output::Output;
use crate::pipe::commands as pipe;
use crate::pipe::request::Request;
use crate::pipe::{Read, Reader, response};
use crate::plan::Plan;
use crate::remote::{Remote, wire_pipe, wire_resp};
use crate::replica::{Body, Replica};
use crate::reply::Reply;
use crate::resp;
use crate::resp::scan::{Args, Fed, Scan, Scanned};
use crate::store::PREFETCH;
use away::{Away, away_pipe, away_resp};
use sending::Sending;

/// What the reactor does next for a connection, once the output is sent.
#[derive(Debug, Eq, PartialEq)]
pub enum Flow {
    /// Read more, and call `handle_input`.
    Read,
    /// Serve others, wait until the output is sent, and call `resume`.
    Yield,
    /// Pass this up, and call `handle_answer` with what comes back. Nothing is read meanwhile.
    Ask(Ask),
    /// Wait for the cluster, and call `handle_outcome` with each thing that it says. Nothing is read
    /// meanwhile.
    Remote,
    /// Call `handle_wait` when the key has a value, or after so many milliseconds; `None` keeps the deadline
    /// of the wait that goes on.
    Wait(Vec<u8>, Option<u64>),
    /// Call `handle_changes` when the feed of changes wakes, when the client has taken what it was sent if
    /// this says that there is more already, and now and then.
    Watch(bool),
    /// Close the connection.
    Close,
    /// Close it after reading, for a while, what the client still sends: it may not have read the error yet.
    Linger,
}

/// What a session needs of the world, at each call.
pub struct World<'t> {
    /// Where keys live.
    pub replica: &'t Replica,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// A number that clients do not know; each command that uses it leaves another one.
    pub random: u64,
    /// Where replies go.
    pub out: &'t mut Output,
}

impl World<'_> {
    fn context<'c>(&'c mut self, client: &'c mut Client) -> Context<'c> {
        let World { replica, now_ms, random, ref mut out } = *self;
        Context { replica, now_ms, random, out, client, work_ns: 0 }
    }
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    client: Client,
    wire: Wire,
    stage: Stage,
    /// What has come and is not processed; the request of a job too, until the job is done.
    inbox: Vec<u8>,
    /// What of the inbox is processed all the same: moving the rest is put off until it is little.
    processed: usize,
    /// The client has half-closed: nothing more will come.
    ended: bool,
    /// The job under way has written what is to be waited for.
    unconfirmed: bool,
    /// The value that is on its way in goes to another node as it comes.
    sending: Option<Box<Sending>>,
}

#[derive(Debug)]
enum Wire {
    /// Nothing has come yet: the first byte tells.
    Unknown,
    Resp(Scan),
    Pipe(Pipe),
}

#[derive(Debug, Default)]
struct Pipe {
    reader: Reader,
    keep: bool,
}

#[derive(Debug)]
enum Stage {
    Reading,
    Working(Job),
    Asked(Option<Box<Request>>),
    Waiting(Box<Request>, Vec<u8>),
    Remote(Box<Remote>),
    Watching(Box<Request>, Watch),
    Over,
}

/// A buffer that shrinks back to this many bytes when it is empty.
const INBOX_KEPT: usize = 16 * 1024;

impl Session {
    /// The conversation with a client that has just connected.
    pub fn new(client: Client) -> Self {
        let (wire, stage) = (Wire::Unknown, Stage::Reading);
        let (inbox, sending) = (Vec::new(), None);
        Session { client, wire, stage, inbox, processed: 0, ended: false, unconfirmed: false, sending }
    }

    /// The conversation with another node on behalf of a client of its own: one request, in the protocol that
    /// it says.
    pub fn guest(client: Client, resp: bool) -> Self {
        let pipe = Pipe { keep: true, ..Pipe::default() };
        let wire = if resp { Wire::Resp(Scan::default()) } else { Wire::Pipe(pipe) };
        Session { wire, ..Session::new(client) }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the client is between requests: nothing of it is unanswered or half read.
    pub fn is_idle(&self) -> bool {
        let partial = match &self.wire {
            Wire::Unknown => false,
            Wire::Resp(scan) => scan.is_partial(),
            Wire::Pipe(pipe) => pipe.reader.is_partial(),
        };
        matches!(self.stage, Stage::Reading) && self.inbox.is_empty() && !partial
    }

    /// The protocol, for those who ask: `resp`, `pipe`, or `new`.
    pub fn protocol(&self) -> &'static str {
        match self.wire {
            Wire::Unknown => "new",
            Wire::Resp(_) => "resp",
            Wire::Pipe(_) => "pipe",
        }
    }

    /// Takes bytes that came; `last` when nothing will follow them.
    pub fn handle_input(&mut self, mut input: &[u8], last: bool, world: &mut World<'_>) -> Flow {
        self.ended |= last;
        if let Wire::Resp(scan) = &mut self.wire {
            match scan.feed(input) {
                Ok(Fed { taken, diverted }) => {
                    let value = &input[..diverted];
                    self.sending.iter_mut().for_each(|sending| sending.push(value, world.replica));
                    input = &input[taken..];
                }
                Err(broken) => return self.broken(broken, world),
            }
            if scan.is_feeding() {
                return if self.ended { self.over(Flow::Close) } else { Flow::Read };
            }
        }
        if !self.inbox.is_empty() || !matches!(self.stage, Stage::Reading) {
            self.inbox.extend_from_slice(input);
            return self.resume(world);
        }
        let (kept, flow) = self.process(input, world);
        self.inbox.extend_from_slice(&input[kept]);
        self.lift(world);
        flow
    }

    /// Whether more may be read before what is there is processed. A client may send all of a pipeline before
    /// it reads the first reply, as many libraries do.
    pub fn has_room(&self, replica: &Replica) -> bool {
        if self.sending.as_ref().is_some_and(|sending| !sending.has_room()) {
            return false;
        }
        self.inbox.len() - self.processed < limits(&self.client, replica).request_max
    }

    /// Goes on after a `Yield`.
    pub fn resume(&mut self, world: &mut World<'_>) -> Flow {
        if world.out.len() > world.replica.limits().output_max {
            return Flow::Yield;
        }
        if let Stage::Working(job) = &mut self.stage {
            let args = match &self.wire {
                Wire::Resp(scan) => scan.args(&self.inbox[self.processed..]),
                _ => Args::default(),
            };
            let mark = world.out.mark();
            world.begin(&self.client, None);
            let done = job.step(&mut world.context(&mut self.client), args);
            self.unconfirmed |= world.waits();
            return if done { self.end_job(mark, world) } else { Flow::Yield };
        }
        if matches!(self.stage, Stage::Remote(_)) {
            return self.resume_remote(world);
        }
        if !matches!(self.stage, Stage::Reading) {
            return Flow::Read;
        }
        let inbox = std::mem::take(&mut self.inbox);
        let start = self.processed;
        let (kept, flow) = self.process(&inbox[start..], world);
        self.inbox = inbox;
        self.inbox.truncate(start + kept.end);
        self.processed = start + kept.start;
        if flow == Flow::Read || self.processed >= self.inbox.len() / 2 {
            self.inbox.drain(..self.processed);
            self.processed = 0;
        }
        self.lift(world);
        if self.inbox.is_empty() {
            self.inbox.shrink_to(INBOX_KEPT);
        }
        flow
    }

    /// Keeps large arguments of half a request where large values are kept.
    fn lift(&mut self, world: &World<'_>) {
        if let Wire::Resp(scan) = &mut self.wire
            && scan.is_partial()
            && matches!(self.stage, Stage::Reading)
        {
            scan.lift(&mut self.inbox, world.replica.store().usage());
        }
    }

    /// Takes the answer to an `Ask`.
    pub fn handle_answer(&mut self, answer: &Reply, world: &mut World<'_>) -> Flow {
        match std::mem::replace(&mut self.stage, Stage::Reading) {
            Stage::Asked(Some(request)) => {
                answer_pipe(&mut pipe::writer(world.out, &self.client, &request), answer);
            }
            Stage::Asked(None) => {
                resp::reply::Writer { out: world.out, resp3: self.client.resp3 }.reply(answer)
            }
            other => {
                self.stage = other;
                return Flow::Read;
            }
        }
        self.answered(world)
    }

    /// The key of a `Wait` may have a value; or, when `over`, the time is up.
    pub fn handle_wait(&mut self, over: bool, world: &mut World<'_>) -> Flow {
        let (request, key) = match std::mem::replace(&mut self.stage, Stage::Reading) {
            Stage::Waiting(request, key) => (request, key),
            other => {
                self.stage = other;
                return Flow::Read;
            }
        };
        if !pipe::found(&mut world.context(&mut self.client), &request, &key) {
            if !over {
                self.stage = Stage::Waiting(request, key.clone());
                return Flow::Wait(key, None);
            }
            pipe::writer(world.out, &self.client, &request).refusal(&Refusal::Timeout);
        }
        self.answered(world)
    }

    /// Refuses whatever the client is waiting for, because the node cannot answer it now.
    pub fn handle_refusal(&mut self, refusal: Refusal, world: &mut World<'_>) -> Flow {
        if let Stage::Watching(..) = &self.stage {
            return self.end_watch(&refusal, world);
        }
        if let Stage::Waiting(request, _) = &self.stage {
            pipe::writer(world.out, &self.client, request).refusal(&refusal);
            return self.answered(world);
        }
        self.handle_answer(&Reply::Refused(refusal), world)
    }

    /// A command that took its time is answered: the next one, if there is one.
    fn answered(&mut self, world: &mut World<'_>) -> Flow {
        self.stage = Stage::Reading;
        if matches!(&self.wire, Wire::Pipe(pipe) if !pipe.keep) {
            return self.over(Flow::Close);
        }
        self.resume(world)
    }

    fn over(&mut self, flow: Flow) -> Flow {
        self.stage = Stage::Over;
        (self.inbox, self.processed) = (Vec::new(), 0);
        match &mut self.wire {
            Wire::Unknown => {}
            Wire::Resp(scan) => *scan = Scan::default(),
            Wire::Pipe(pipe) => pipe.reader = Reader::default(),
        }
        flow
    }

    fn broken(&mut self, problem: impl std::fmt::Display, world: &mut World<'_>) -> Flow {
        let text = format!("ERR {problem}");
        resp::reply::Writer { out: world.out, resp3: self.client.resp3 }.error(&text);
        self.over(Flow::Linger)
    }

    /// Processes what it can of `buffer`; tells which part of it is still needed.
    fn process(&mut self, buffer: &[u8], world: &mut World<'_>) -> (Range<usize>, Flow) {
        if let (Wire::Unknown, Some(first)) = (&self.wire, buffer.first()) {
            // Redis's inline commands are accepted in capitals: the pipe protocol's are in lower case.
            let resp = *first == b'*' || first.is_ascii_uppercase();
            self.wire = if resp { Wire::Resp(Scan::default()) } else { Wire::Pipe(Pipe::default()) };
        }
        let (kept, flow) = match &self.wire {
            Wire::Unknown => (0..0, Flow::Read),
            Wire::Resp(_) => self.process_resp(buffer, world),
            Wire::Pipe(_) => self.process_pipe(buffer, world),
        };
        match flow {
            Flow::Read if self.ended => (0..0, self.over(Flow::Close)),
            Flow::Close | Flow::Linger => (0..0, self.over(flow)),
            _ => (kept, flow),
        }
    }

    fn process_resp(&mut self, buffer: &[u8], world: &mut World<'_>) -> (Range<usize>, Flow) {
        let Wire::Resp(scan) = &mut self.wire else { return (0..0, Flow::Read) };
        let usage = world.replica.store().usage();
        let (mut at, mut warm, mut work_ns) = (0, 0, 0);
        while at < buffer.len() || scan.is_partial() {
            let limits = limits(&self.client, world.replica);
            if world.out.len() > limits.output_max || work_ns > STEP_NS || world.is_full() {
                return (at..buffer.len(), Flow::Yield);
            }
            let (rest, mark) = (&buffer[at..], world.out.mark());
            if at >= warm && !scan.is_partial() {
                warm = at + warm_up(rest, world.replica);
            }
            let (end, next) = match scan.scan(rest, limits, usage) {
                Scanned::Partial if scan.is_feeding() => {
                    Sending::go_on_resp(&mut self.sending, scan, rest, &self.client, world);
                    return (at..at + scan.scanned(), Flow::Read);
                }
                Scanned::Partial => return (at..buffer.len(), Flow::Read),
                Scanned::Broken(broken) => return (0..0, self.broken(broken, world)),
                Scanned::Refused(end, refusal) => {
                    self.sending.take().into_iter().for_each(|sending| sending.give_up(world.replica));
                    resp::reply::Writer { out: world.out, resp3: self.client.resp3 }.refusal(&refusal);
                    (end, resp::Next::Done)
                }
                Scanned::Request(end) => {
                    let args = scan.args(rest);
                    if let Some(sending) = self.sending.take() {
                        let flow = sending.end_resp(args, &mut self.stage, world);
                        scan.reset();
                        at += end;
                        match flow {
                            Flow::Read => continue,
                            flow => return (at..buffer.len(), flow),
                        }
                    } else if args.is_empty() {
                        (end, resp::Next::Done)
                    } else if let Some((away, plan)) = away_resp(args, &self.client, world) {
                        // A request that is to run here, later, stays where it is.
                        if plan != Plan::Fetch {
                            scan.reset();
                            at += end;
                        }
                        if let Away::Waits(remote) = away {
                            return (at..buffer.len(), self.wait_for(remote));
                        }
                        continue;
                    } else {
                        let (next, took_ns) = run_resp(args, &mut self.client, world);
                        work_ns += took_ns + COMMAND_NS;
                        (end, next)
                    }
                }
            };
            // The request of a job is kept until the job is done.
            if !matches!(next, resp::Next::Job(_)) {
                scan.reset();
                at += end;
            }
            match next {
                resp::Next::Done if !world.waits() => {}
                next => return (at..buffer.len(), self.pause_resp(next, mark, world)),
            }
        }
        (0..0, Flow::Read)
    }

    /// A request of Redis's protocol is not answered yet, or its reply waits for confirmations.
    fn pause_resp(&mut self, next: resp::Next, mark: (usize, usize), world: &mut World<'_>) -> Flow {
        match next {
            resp::Next::Done => self.confirm(mark, wire_resp(&self.client), None, world),
            resp::Next::Close => Flow::Close,
            resp::Next::Ask(ask) => {
                self.stage = Stage::Asked(None);
                Flow::Ask(ask)
            }
            resp::Next::Job(job) => {
                self.unconfirmed = world.waits();
                self.stage = Stage::Working(job);
                Flow::Yield
            }
        }
    }

    fn process_pipe(&mut self, buffer: &[u8], world: &mut World<'_>) -> (Range<usize>, Flow) {
        let (replica, usage) = (world.replica, world.replica.store().usage());
        let (mut at, mut work_ns) = (0, 0);
        loop {
            let limits = limits(&self.client, replica);
            let Wire::Pipe(pipe) = &mut self.wire else { return (0..0, Flow::Read) };
            if world.out.len() > limits.output_max || work_ns > STEP_NS || world.is_full() {
                return (at..buffer.len(), Flow::Yield);
            }
            let mark = world.out.mark();
            work_ns += COMMAND_NS;
            let (end, request, ran) =
                match pipe.reader.read(&buffer[at..], self.ended, !pipe.keep, limits, usage) {
                    Read::Partial(end) => {
                        let (value, reader) = (&buffer[at..at + end], &mut pipe.reader);
                        Sending::go_on_pipe(&mut self.sending, reader, value, &self.client, world);
                        return (at + end..buffer.len(), Flow::Read);
                    }
                    Read::Broken(refusal) => {
                        let frame = self.client.framed;
                        response::Writer { out: world.out, frame, id: None }.refusal(&refusal);
                        return (0..0, Flow::Linger);
                    }
                    Read::Refused(end, request, refusal) => (end, request, Err(refusal)),
                    Read::Request(end, request, body) => {
                        replica.counters().commands.bump();
                        if let Some(sending) = self.sending.take() {
                            let value = &buffer[at..at + end];
                            at += end;
                            match sending.end_pipe(&request, value, &mut self.stage, world) {
                                Flow::Read if pipe.keep => continue,
                                Flow::Read => return (0..0, Flow::Close),
                                flow => return (at..buffer.len(), flow),
                            }
                        }
                        match away_pipe(request, body, &self.client, world) {
                            Ok(remote) => return (at + end..buffer.len(), self.wait_for(remote)),
                            Err((request, body)) => {
                                let context = &mut world.context(&mut self.client);
                                let ran = body.and_then(|body| run_pipe(context, &request, body));
                                (end, request, ran)
                            }
                        }
                    }
                };
            at += end;
            if let Err(refusal) = &ran {
                replica.counters().refusals.bump();
                pipe::writer(world.out, &self.client, &request).refusal(refusal);
            }
            let rest = at..buffer.len();
            if matches!(ran, Ok(pipe::Next::Done) | Err(_)) && world.waits() {
                let wire = wire_pipe(&self.client, &request);
                return (rest, self.confirm(mark, wire, request.id, world));
            }
            match ran {
                Ok(pipe::Next::Admitted) => {}
                Ok(pipe::Next::Keep { frame }) => {
                    pipe.keep = true;
                    self.client.framed |= frame;
                }
                Ok(pipe::Next::Done) | Err(_) if pipe.keep => {}
                Ok(pipe::Next::Done) | Err(_) => return (0..0, Flow::Close),
                Ok(next) => return (rest, self.pause(request, next, world)),
            }
        }
    }

    /// A request of the pipe protocol is not answered yet, or not for the last time.
    fn pause(&mut self, request: Box<Request>, next: pipe::Next, world: &World<'_>) -> Flow {
        let (stage, flow) = match next {
            pipe::Next::Ask(ask) => (Stage::Asked(Some(request)), Flow::Ask(ask)),
            pipe::Next::Job(job) => {
                self.unconfirmed = world.waits();
                (Stage::Working(job), Flow::Yield)
            }
            pipe::Next::Wait(key, timeout_ms) => {
                (Stage::Waiting(request, key.clone()), Flow::Wait(key, Some(timeout_ms)))
            }
            pipe::Next::Watch(watch) => (Stage::Watching(request, watch), Flow::Watch(true)),
            pipe::Next::Done | pipe::Next::Admitted | pipe::Next::Keep { .. } => (Stage::Reading, Flow::Read),
        };
        self.stage = stage;
        flow
    }
}

fn limits<'r>(client: &Client, replica: &'r Replica) -> &'r Limits {
    if client.needs_password { replica.stranger_limits() } else { replica.limits() }
}

/// Has the processor fetch what the next requests of a pipeline will touch, all at once instead of one after
/// the other; returns where those requests end.
fn warm_up(buffer: &[u8], replica: &Replica) -> usize {
    let (mut keys, mut count, mut end) = ([&buffer[..0]; PREFETCH], 0, 0);
    for (place, (key, after)) in keys.iter_mut().zip(resp::scan::look_ahead(buffer)) {
        (*place, count, end) = (key, count + 1, after);
    }
    if count > 1 {
        replica.store().prefetch(&keys[..count]);
    }
    end.max(1)
}

/// Runs a request; returns what follows it, and how long it took.
fn run_resp(args: Args<'_>, client: &mut Client, world: &mut World<'_>) -> (resp::Next, u64) {
    // Xorshift, by Marsaglia (2003): enough to pick some key.
    world.random ^= world.random << 13;
    world.random ^= world.random >> 7;
    world.random ^= world.random << 17;
    world.replica.counters().commands.bump();
    let mut context = world.context(client);
    let next = resp::run(&mut context, args);
    (next, context.work_ns)
}

/// Runs a request; a wait for what is there already is over at once.
fn run_pipe(context: &mut Context<'_>, request: &Request, body: Body<'_>) -> Result<pipe::Next, Refusal> {
    let next = pipe::run(context, request, body)?;
    if let pipe::Next::Wait(key, _) = &next
        && pipe::found(context, request, key)
    {
        return Ok(pipe::Next::Done);
    }
    Ok(next)
}

fn answer_pipe(reply: &mut response::Writer<'_>, answer: &Reply) {
    if let Reply::Refused(refusal) = answer {
        return reply.refusal(refusal);
    }
    let mut text = Vec::new();
    lines(answer, &mut text);
    if matches!(answer, Reply::Ok | Reply::Nil) {
        reply.status(&[])
    } else {
        reply.body(&[], Value::Inline(&text))
    }
}

/// An answer as text: one line an item, `name=value` for what has a name.
fn lines(answer: &Reply, text: &mut Vec<u8>) {
    match answer {
        Reply::Nil | Reply::Ok | Reply::Refused(_) => {}
        Reply::Int(value) => text.extend_from_slice(format!("{value}\n").as_bytes()),
        Reply::Text(line) => text.extend_from_slice(format!("{}\n", line.trim_end_matches('\n')).as_bytes()),
        Reply::Bytes(bytes) => text.extend_from_slice(bytes),
        Reply::List(items) => items.iter().for_each(|item| lines(item, text)),
        Reply::Map(pairs) => {
            for (name, value) in pairs {
                text.extend_from_slice(name.as_bytes());
                text.push(b'=');
                lines(value, text);
            }
        }
    }
}
