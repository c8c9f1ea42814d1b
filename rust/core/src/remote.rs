//! Commands in which other nodes have a say: what a session keeps while they are away. Not which ones they
//! are: that is the `plan`; and not the way there and back: that is the cluster's.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::client::Client;
use crate::cluster::{Outcome, part_bytes, pieces};
use crate::config::Limits;
use crate::error::Refusal;
use crate::outbox::{Forward, Order, Outbox, Wire};
use crate::output::Output;
use crate::pipe::request::{Request, write_header};
use crate::plan::{Plan, acks, keys, only_reads, reads};
use crate::replica::{Body, Replica};
use crate::resp::reply::Writer;
use crate::resp::scan::{Arg, Args};
use crate::resp::table;
use crate::routes::MemberIndex;
use crate::slot::key_slot;
use crate::walk::{self, Question, Walk};

/// Keys of a command that is split by key: each is a request of its own.
const PARTS_MAX: usize = 16_384;

/// What is to be done once the nodes have answered.
#[derive(Debug)]
enum Awaited {
    /// The reply of the command, which ran here, is sent.
    Acks(Output),
    /// The request, which is still there, is run: so many keys have not come. If one cannot, this is answered
    /// instead, but when all are known: else what is said of the others were taken for the next command's.
    Resp(usize, Option<Refusal>),
    /// This request is run.
    Pipe(Box<Request>, Body<'static>),
    /// The reply of another node is sent as it comes.
    Reply(Passing),
    /// The replies to the parts, the first of which has this number, are made one: so many have not come.
    Parts(u64, Combine, Vec<Output>, usize),
    /// All nodes tell which keys there are.
    Walk(Box<Walk>),
}

/// A reply on its way through.
#[derive(Debug)]
struct Passing {
    /// The number of the request.
    id: u64,
    /// Bytes that have come.
    come: u64,
    /// Bytes that the client has taken, as the cluster was told.
    told: u64,
}

/// How the replies to the parts of a command are made one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Combine {
    /// An array of them.
    Array,
    /// Their sum.
    Sum,
    /// OK, if all are.
    Ok,
}

/// A command that waits for other nodes.
#[derive(Debug)]
pub struct Remote {
    awaited: Awaited,
    wire: Wire,
    id: Option<u64>,
}

/// What became of a command that waited.
#[derive(Debug)]
pub enum Step {
    /// It waits on.
    Waits,
    /// `go_on` is to be called once the client has taken what it is told.
    Yields,
    /// It is answered.
    Answered,
    /// Its reply broke off in the middle: nothing that follows could be understood.
    Broken,
    /// It is to be run now, from what the session has.
    RunResp,
    /// This is to be run now.
    RunPipe(Box<Request>, Body<'static>),
}

impl Remote {
    /// The command ran here, and this is what it answers once its writes are confirmed.
    pub fn acks(held: Output, wire: Wire, id: Option<u64>) -> Self {
        Remote { awaited: Awaited::Acks(held), wire, id }
    }

    /// The keys of a request are asked for.
    pub fn fetch_resp(args: Args<'_>, client: &Client, outbox: &Outbox) -> Self {
        let mut count = 0;
        let spec = table::find(args.bytes(0));
        for key in spec.into_iter().flat_map(|spec| keys(spec, args)) {
            let acks = outbox.routes().rules(key).read_acks;
            outbox.push(Order::Fetch { key: key.into(), acks, waiter: outbox.waiter() });
            count += 1;
        }
        Remote { awaited: Awaited::Resp(count, None), wire: wire_resp(client), id: None }
    }

    /// The key of a request is asked for.
    pub fn fetch_pipe(request: Box<Request>, body: Body<'static>, client: &Client, outbox: &Outbox) -> Self {
        let key = request.get("name").unwrap_or_default();
        let asked = acks(&request).ok().flatten().filter(|_| request.spec.is_some_and(only_reads));
        let acks = asked.unwrap_or(outbox.routes().rules(key).read_acks);
        outbox.push(Order::Fetch { key: key.into(), acks, waiter: outbox.waiter() });
        let (wire, id) = (wire_pipe(client, &request), request.id);
        Remote { awaited: Awaited::Pipe(request, body), wire, id }
    }

    /// A request goes where its key is kept.
    pub fn there_resp(args: Args<'_>, client: &Client, outbox: &Outbox) -> Self {
        let wire = wire_resp(client);
        let spec = table::find(args.bytes(0));
        let key = spec.and_then(|spec| keys(spec, args).next()).unwrap_or_default();
        let all: Vec<Arg<'_>> = (0..args.len()).map(|index| args.arg(index)).collect();
        let id = outbox.number(1);
        send(outbox, (id, 0), outbox.routes().replicas(key), reads(spec), wire, request_of(&all));
        Remote { awaited: Awaited::Reply(Passing { id, come: 0, told: 0 }), wire, id: None }
    }

    /// Where the client is sent instead.
    pub fn moved(args: Args<'_>, outbox: &Outbox) -> Refusal {
        let key = table::find(args.bytes(0)).and_then(|spec| keys(spec, args).next()).unwrap_or_default();
        let address = outbox.routes().door(key).unwrap_or_default().to_owned();
        Refusal::Moved { slot: key_slot(key), address }
    }

    /// The keys of a request go each where it is kept.
    ///
    /// # Errors
    /// There are too many.
    pub fn split_resp(args: Args<'_>, client: &Client, outbox: &Outbox) -> Result<Self, Refusal> {
        let wire = wire_resp(client);
        let spec = table::find(args.bytes(0));
        let (combine, name): (_, &[u8]) = match spec.map_or("", |spec| spec.name) {
            "mget" => (Combine::Array, b"get"),
            "mset" => (Combine::Ok, b"set"),
            _ => (Combine::Sum, args.bytes(0)),
        };
        let stride = if combine == Combine::Ok { 2 } else { 1 };
        let count = (args.len() - 1) / stride;
        if count > PARTS_MAX {
            return Err(Refusal::Syntax(format!(
                "{count} keys on several nodes, {PARTS_MAX} at most: send fewer at a time"
            )));
        }
        if !(args.len() - 1).is_multiple_of(stride) {
            return Err(Refusal::Syntax("wrong number of arguments for 'mset' command".into()));
        }
        let first = outbox.number(count as u64);
        for part in 0..count {
            let at = 1 + part * stride;
            let mut request = vec![Arg::Bytes(name)];
            request.extend((at..at + stride).map(|index| args.arg(index)));
            let to = outbox.routes().replicas(args.bytes(at));
            send(outbox, (first, part as u32), to, reads(spec), wire, request_of(&request));
        }
        let parts = (0..count).map(|_| Output::default()).collect();
        Ok(Remote { awaited: Awaited::Parts(first, combine, parts, count), wire, id: None })
    }

    /// A request goes to every node, this one too.
    ///
    /// # Errors
    /// Not all of them are there.
    pub fn everywhere_resp(args: Args<'_>, client: &Client, outbox: &Outbox) -> Result<Self, Refusal> {
        let (routes, wire) = (outbox.routes(), wire_resp(client));
        let members = 0..routes.len() as MemberIndex;
        let away: Vec<&str> = members
            .clone()
            .filter(|member| !routes.is_up(*member))
            .map(|member| routes.name(member))
            .collect();
        if !away.is_empty() {
            let away = away.join(", ");
            return Err(Refusal::Unavailable(format!(
                "what only {away} may keep would stay: nothing was done, try again when all nodes are there"
            )));
        }
        let all: Vec<Arg<'_>> = (0..args.len()).map(|index| args.arg(index)).collect();
        let first = outbox.number(routes.len() as u64);
        for member in members {
            send(outbox, (first, member.into()), &[member], false, wire, request_of(&all));
        }
        let parts = (0..routes.len()).map(|_| Output::default()).collect();
        Ok(Remote { awaited: Awaited::Parts(first, Combine::Ok, parts, routes.len()), wire, id: None })
    }

    /// A request in the pipe protocol goes where its key is kept.
    pub fn there_pipe(request: &Request, body: &Body<'_>, client: &Client, outbox: &Outbox) -> Self {
        let wire = wire_pipe(client, request);
        let key = request.get("name").unwrap_or_default();
        let reads = request.spec.is_some_and(only_reads);
        let mut head = head_of(request, &body.len().to_string());
        let mut bytes = VecDeque::new();
        match body {
            Body::Shared(blob) => {
                bytes.push_back(head.into());
                bytes.extend(pieces(blob));
            }
            body => {
                head.extend_from_slice(body.piece());
                bytes.push_back(head.into());
            }
        }
        bytes.push_back(Bytes::from_static(b"\n"));
        let id = outbox.number(1);
        send(outbox, (id, 0), outbox.routes().replicas(key), reads, wire, bytes);
        Remote { awaited: Awaited::Reply(Passing { id, come: 0, told: 0 }), wire, id: request.id }
    }

    /// A request whose value is on its way in goes where its key is kept, its head first; `None` if it is not
    /// to be sent so: it runs here, or is refused, when all of it is there. Returns its number, too.
    pub fn open_pipe(
        request: &Request,
        len: Option<usize>,
        client: &Client,
        (replica, outbox): (&Replica, &Outbox),
    ) -> Option<(Self, u64)> {
        if Plan::pipe(request, client, replica, outbox.routes()).ok()? != Plan::There {
            return None;
        }
        let head = head_of(request, &len.map_or_else(|| "eof".into(), |len| len.to_string()));
        let key = request.get("name").unwrap_or_default();
        let (head, wire) = (VecDeque::from([head.into()]), wire_pipe(client, request));
        Some(open(outbox, key, wire, head, request.id))
    }

    /// The same in Redis's protocol: `args` are those before the value, which has `len` bytes, of `count`.
    pub fn open_resp(
        args: Args<'_>,
        (len, count): (usize, usize),
        client: &Client,
        outbox: &Outbox,
    ) -> Option<(Self, u64)> {
        let spec = table::find(args.bytes(0)).filter(|spec| spec.keys == (1, 1, 1) && spec.accepts(count))?;
        let key = Some(args.bytes(1)).filter(|_| args.len() > 1)?;
        let routes = outbox.routes();
        let moved = client.redirect && routes.door(key).is_some();
        if client.needs_password || client.guest || moved || routes.is_mine(key) || reads(Some(spec)) {
            return None;
        }
        let before: Vec<Arg<'_>> = (0..args.len()).map(|index| args.arg(index)).collect();
        let mut head = args_of(format!("*{count}\r\n").into_bytes(), &before);
        head.push_back(format!("${len}\r\n").into_bytes().into());
        Some(open(outbox, key, wire_resp(client), head, None))
    }

    /// All nodes are asked for their keys, once `go_on` is called.
    pub fn walk(question: Question, wire: Wire, id: Option<u64>, outbox: &Outbox) -> Self {
        let walk = Walk::new(question, wire == Wire::Resp3, outbox.routes());
        Remote { awaited: Awaited::Walk(Box::new(walk)), wire, id }
    }

    /// Whether nobody has been asked yet.
    pub fn is_new(&self) -> bool {
        matches!(self.awaited, Awaited::Walk(_))
    }

    /// Goes on after `Step::Yields`.
    pub fn go_on(&mut self, replica: &Replica, out: &mut Output) -> Step {
        let Awaited::Walk(walk) = &mut self.awaited else { return Step::Waits };
        let went = walk.go_on(replica, out);
        self.walked(went, out)
    }

    fn walked(&self, went: Result<walk::Step, Refusal>, out: &mut Output) -> Step {
        match went {
            Ok(walk::Step::Waits) => Step::Waits,
            Ok(walk::Step::Yields) => Step::Yields,
            Ok(walk::Step::Over) => Step::Answered,
            Err(refusal) => {
                self.refuse(&refusal, out);
                Step::Answered
            }
        }
    }

    /// Takes what the cluster says.
    pub fn take(&mut self, outcome: Outcome, out: &mut Output, replica: &Replica) -> Step {
        let wire = self.wire;
        match (&mut self.awaited, outcome) {
            (Awaited::Acks(held), Outcome::Done) => {
                out.append(held);
                Step::Answered
            }
            (Awaited::Resp(left, refused), outcome @ (Outcome::Done | Outcome::Refused(_))) => {
                *left -= 1;
                if let Outcome::Refused(refusal) = outcome {
                    refused.get_or_insert(refusal);
                }
                match refused.take_if(|_| *left == 0) {
                    Some(refusal) => {
                        self.refuse(&refusal, out);
                        Step::Answered
                    }
                    None if *left == 0 => Step::RunResp,
                    None => Step::Waits,
                }
            }
            (Awaited::Pipe(..), Outcome::Done) => self.run_pipe(),
            (Awaited::Walk(walk), outcome) => {
                let went = walk.take(outcome, replica, out);
                self.walked(went, out)
            }
            (Awaited::Reply(passing), Outcome::Piece(_, bytes, last)) => {
                out.push(&bytes);
                passing.come += bytes.len() as u64;
                if last { Step::Answered } else { Step::Waits }
            }
            (Awaited::Reply(Passing { come: 1.., .. }), Outcome::PartRefused(..)) => Step::Broken,
            (Awaited::Parts(first, combine, parts, left), Outcome::Piece(part, bytes, last)) => {
                if let Some(out) = parts.get_mut(part as usize) {
                    let before = out.len();
                    out.push(&bytes);
                    // It is made one with the others, so all of it is needed here.
                    if !last {
                        take_all(replica, *first + u64::from(part), before, bytes.len());
                    }
                }
                *left -= usize::from(last);
                if *left > 0 {
                    return Step::Waits;
                }
                combine.write(parts, &mut Writer { out, resp3: wire == Wire::Resp3 });
                Step::Answered
            }
            (Awaited::Parts(_, combine, parts, left), Outcome::PartRefused(part, refusal)) => {
                if let Some(out) = parts.get_mut(part as usize) {
                    out.clear();
                    Writer { out, resp3: wire == Wire::Resp3 }.refusal(&refusal);
                }
                *left -= 1;
                if *left > 0 {
                    return Step::Waits;
                }
                combine.write(parts, &mut Writer { out, resp3: wire == Wire::Resp3 });
                Step::Answered
            }
            (_, Outcome::Refused(refusal) | Outcome::PartRefused(_, refusal)) => {
                self.refuse(&refusal, out);
                Step::Answered
            }
            (_, Outcome::Done | Outcome::Piece(..) | Outcome::Room(_)) => Step::Waits,
        }
    }

    fn run_pipe(&mut self) -> Step {
        match std::mem::replace(&mut self.awaited, Awaited::Resp(0, None)) {
            Awaited::Pipe(request, body) => Step::RunPipe(request, body),
            _ => Step::Answered,
        }
    }

    /// The client has not taken the last `unsent` bytes of what it was sent: tells the cluster what it has.
    pub fn sent(&mut self, unsent: usize, limits: &Limits, outbox: &Outbox) {
        let Awaited::Reply(passing) = &mut self.awaited else { return };
        let taken = passing.come.saturating_sub(unsent as u64);
        if taken >= passing.told + step(limits) {
            passing.told = taken;
            outbox.push(Order::Taken { id: passing.id, upto: taken });
        }
    }

    /// The numbers of the requests that other nodes run for it.
    pub fn forwards(&self) -> Option<Range<u64>> {
        match &self.awaited {
            Awaited::Reply(passing) => Some(passing.id..passing.id + 1),
            Awaited::Parts(first, _, parts, _) => Some(*first..*first + parts.len() as u64),
            Awaited::Walk(walk) => Some(walk.forwards()),
            Awaited::Acks(_) | Awaited::Resp(..) | Awaited::Pipe(..) => None,
        }
    }

    /// Whether the request is still where it came.
    pub fn keeps_request(&self) -> bool {
        matches!(self.awaited, Awaited::Resp(..))
    }

    /// Answers with a refusal.
    pub fn refuse(&self, refusal: &Refusal, out: &mut Output) {
        match self.wire {
            Wire::Resp2 | Wire::Resp3 => {
                Writer { out, resp3: self.wire == Wire::Resp3 }.refusal(refusal);
            }
            Wire::Pipe | Wire::PipeFramed => {
                let frame = self.wire == Wire::PipeFramed;
                crate::pipe::response::Writer { out, frame, id: self.id }.refusal(refusal);
            }
        }
    }
}

impl Combine {
    fn write(self, parts: &mut [Output], reply: &mut Writer<'_>) {
        // One that was refused is the answer: what the others did stays done.
        if let Some(refused) = parts.iter_mut().find(|part| part.front().first() == Some(&b'-')) {
            return reply.out.append(refused);
        }
        match self {
            Combine::Array => {
                reply.array(parts.len());
                parts.iter_mut().for_each(|part| reply.out.append(part));
            }
            Combine::Ok => reply.ok(),
            Combine::Sum => {
                let number = |part: &Output| -> i64 {
                    let digits = part.front().strip_prefix(b":").unwrap_or_default();
                    let text = std::str::from_utf8(digits).unwrap_or_default();
                    text.trim_end().parse().unwrap_or(0)
                };
                reply.int(parts.iter().map(number).sum());
            }
        }
    }
}

/// How the reply to a request in Redis's protocol is written.
pub fn wire_resp(client: &Client) -> Wire {
    if client.resp3 { Wire::Resp3 } else { Wire::Resp2 }
}

/// How the reply to a request in the pipe protocol is written.
pub fn wire_pipe(client: &Client, request: &Request) -> Wire {
    if client.framed || request.frame { Wire::PipeFramed } else { Wire::Pipe }
}

/// Bytes that a client takes before the cluster is told: a part, of which several may be on their way.
fn step(limits: &Limits) -> u64 {
    part_bytes(limits.relayed_max as u64)
}

/// Tells the cluster that so many more bytes of a reply, of which all is needed here, have come.
pub fn take_all(replica: &Replica, id: u64, before: usize, come: usize) {
    let (step, before) = (step(replica.limits()), before as u64);
    let upto = before + come as u64;
    if let (true, Some(outbox)) = (before / step < upto / step, replica.outbox()) {
        outbox.push(Order::Taken { id, upto });
    }
}

/// Forwards the part of a command whose first part has this number.
pub fn send(
    outbox: &Outbox,
    (first, part): (u64, u32),
    to: &[MemberIndex],
    reads: bool,
    wire: Wire,
    request: VecDeque<Bytes>,
) {
    let (waiter, id) = (outbox.waiter(), first + u64::from(part));
    let (to, open) = (to.to_vec(), false);
    outbox.push(Order::Forward(Forward { id, waiter, part, to, reads, wire, request, open }));
}

/// Forwards what there is of a write to `key`.
fn open(
    outbox: &Outbox,
    key: &[u8],
    wire: Wire,
    request: VecDeque<Bytes>,
    number: Option<u64>,
) -> (Remote, u64) {
    let (waiter, id, to) = (outbox.waiter(), outbox.number(1), outbox.routes().replicas(key).to_vec());
    outbox.push(Order::Forward(Forward { id, waiter, part: 0, to, reads: false, wire, request, open: true }));
    let awaited = Awaited::Reply(Passing { id, come: 0, told: 0 });
    (Remote { awaited, wire, id: number }, id)
}

/// The head of a request of the pipe protocol whose value has this length.
fn head_of(request: &Request, length: &str) -> Vec<u8> {
    let (spec, id) = (request.spec, request.id.map(|id| id.to_string()));
    let mut params: Vec<(&str, &[u8])> = Vec::new();
    for (name, value) in &request.params {
        params.extend(std::str::from_utf8(name).ok().map(|name| (name, value.as_slice())));
    }
    if spec.is_some_and(|spec| spec.takes_value) {
        params.push(("length", length.as_bytes()));
    }
    if request.frame {
        params.push(("frame", b"1"));
    }
    params.extend(id.as_ref().map(|id| ("id", id.as_bytes())));
    let mut head = Vec::new();
    write_header(&mut head, spec.map_or("", |spec| spec.name), &params);
    head
}

/// A request in Redis's protocol, large arguments by reference.
fn request_of(args: &[Arg<'_>]) -> VecDeque<Bytes> {
    args_of(format!("*{}\r\n", args.len()).into_bytes(), args)
}

/// Arguments in Redis's protocol, behind `bytes`.
pub fn args_of(mut bytes: Vec<u8>, args: &[Arg<'_>]) -> VecDeque<Bytes> {
    let mut all = VecDeque::new();
    for arg in args {
        let len = match arg {
            Arg::Bytes(bytes) => bytes.len(),
            Arg::Blob(blob) => blob.len(),
        };
        bytes.extend_from_slice(format!("${len}\r\n").as_bytes());
        match arg {
            Arg::Bytes(arg) => bytes.extend_from_slice(arg),
            Arg::Blob(blob) => {
                all.push_back(std::mem::take(&mut bytes).into());
                all.extend(pieces(blob));
            }
        }
        bytes.extend_from_slice(b"\r\n");
    }
    all.push_back(bytes.into());
    all
}
