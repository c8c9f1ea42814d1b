//! What a session does while other nodes have a say in its command.

use super::{Flow, Session, Stage, Wire, World, run_resp};
use crate::client::Client;
use crate::cluster::Outcome;
use crate::error::Refusal;
use crate::outbox::{Order, Wire as ReplyWire};
use crate::pipe::commands as pipe;
use crate::pipe::request::Request;
use crate::plan::{Plan, acks};
use crate::remote::{Remote, Step, wire_pipe, wire_resp};
use crate::replica::{Body, Replica};
use crate::resp;
use crate::resp::reply::Writer;
use crate::resp::scan::Args;
use crate::walk::Question;

/// What a request comes to that does not run at once.
pub(super) enum Away {
    /// It waits for other nodes.
    Waits(Remote),
    /// It is answered.
    Answered,
}

impl World<'_> {
    /// A command of `client` begins or goes on.
    pub(super) fn begin(&self, client: &Client, request: Option<&Request>) {
        if let Some(outbox) = self.replica.outbox() {
            outbox.begin(client.token, request.and_then(|request| acks(request).ok().flatten()));
        }
    }

    /// Whether it has written, since `begin`, what is to be waited for.
    pub(super) fn waits(&self) -> bool {
        self.replica.outbox().is_some_and(|outbox| outbox.waits())
    }

    /// Whether commands wait until the cluster has done more of what it was told.
    pub(super) fn is_full(&self) -> bool {
        self.replica.outbox().is_some_and(|outbox| outbox.is_full())
    }
}

/// Sends a request of Redis's protocol, or a question before it, where it belongs; `None` if it runs here.
pub(super) fn away_resp(args: Args<'_>, client: &Client, world: &mut World<'_>) -> Option<(Away, Plan)> {
    let outbox = world.replica.outbox()?;
    outbox.begin(client.token, None);
    let plan = Plan::resp(args, client, world.replica, outbox.routes());
    let away = match plan {
        Plan::Here => return None,
        Plan::Walk => match resp::question(args, world.replica.limits()) {
            Ok(question) => Away::Waits(Remote::walk(question, wire_resp(client), None, outbox)),
            // It is refused where it would be without other nodes.
            Err(_) => return None,
        },
        Plan::Fetch => Away::Waits(Remote::fetch_resp(args, client, outbox)),
        Plan::There => Away::Waits(Remote::there_resp(args, client, outbox)),
        Plan::Moved => {
            let refusal = Remote::moved(args, outbox);
            Writer { out: world.out, resp3: client.resp3 }.refusal(&refusal);
            Away::Answered
        }
        Plan::Split => sent(Remote::split_resp(args, client, outbox), client, world),
        Plan::Everywhere => sent(Remote::everywhere_resp(args, client, outbox), client, world),
    };
    Some((away, plan))
}

/// What was sent is waited for, unless it was refused.
fn sent(remote: Result<Remote, Refusal>, client: &Client, world: &mut World<'_>) -> Away {
    match remote {
        Ok(remote) => Away::Waits(remote),
        Err(refusal) => {
            Writer { out: world.out, resp3: client.resp3 }.refusal(&refusal);
            Away::Answered
        }
    }
}

/// The same for a request of the pipe protocol, which is given back if it runs here.
pub(super) fn away_pipe<'b>(
    request: Box<Request>,
    body: Body<'b>,
    client: &Client,
    world: &World<'_>,
) -> Result<Remote, (Box<Request>, Result<Body<'b>, Refusal>)> {
    let Some(outbox) = world.replica.outbox() else { return Err((request, Ok(body))) };
    world.begin(client, Some(&request));
    match Plan::pipe(&request, client, world.replica, outbox.routes()) {
        Err(refusal) => Err((request, Err(refusal))),
        Ok(Plan::Fetch) => Ok(Remote::fetch_pipe(request, body.into_owned(), client, outbox)),
        Ok(Plan::There) => Ok(Remote::there_pipe(&request, &body, client, outbox)),
        Ok(Plan::Walk) => match pipe::listing(client, &request, false) {
            Err(refusal) => Err((request, Err(refusal))),
            Ok(listing) => {
                let wire = wire_pipe(client, &request);
                Ok(Remote::walk(Question::List(listing), wire, request.id, outbox))
            }
        },
        Ok(Plan::Here | Plan::Split | Plan::Everywhere | Plan::Moved) => Err((request, Ok(body))),
    }
}

impl Session {
    /// A command waits for other nodes from now on.
    pub(super) fn wait_for(&mut self, remote: Remote) -> Flow {
        let flow = if remote.is_new() { Flow::Yield } else { Flow::Remote };
        self.stage = Stage::Remote(Box::new(remote));
        flow
    }

    /// The cluster says something about the command that waits for it.
    pub fn handle_outcome(&mut self, outcome: Outcome, world: &mut World<'_>) -> Flow {
        let Stage::Remote(remote) = &mut self.stage else { return Flow::Read };
        match remote.take(outcome, world.out, world.replica) {
            Step::Waits => Flow::Remote,
            Step::Yields => Flow::Yield,
            Step::Broken => self.over(Flow::Close),
            Step::Answered => {
                if remote.keeps_request() {
                    self.forget_request();
                }
                self.answered(world)
            }
            Step::RunResp => self.run_fetched(world),
            Step::RunPipe(request, body) => self.run_fetched_pipe(&request, body, world),
        }
    }

    /// Goes on, once the client has taken what it was told, with what other nodes have a say in.
    pub(super) fn resume_remote(&mut self, world: &mut World<'_>) -> Flow {
        world.begin(&self.client, None);
        let Stage::Remote(remote) = &mut self.stage else { return Flow::Read };
        match remote.go_on(world.replica, world.out) {
            Step::Answered => self.answered(world),
            Step::Yields => Flow::Yield,
            _ => Flow::Remote,
        }
    }

    /// Runs the request whose keys have been fetched.
    fn run_fetched(&mut self, world: &mut World<'_>) -> Flow {
        let Wire::Resp(scan) = &self.wire else { return Flow::Read };
        let (mark, args) = (world.out.mark(), scan.args(&self.inbox[self.processed..]));
        world.begin(&self.client, None);
        let (next, _) = run_resp(args, &mut self.client, world);
        match next {
            resp::Next::Job(job) => {
                self.unconfirmed = world.waits();
                self.stage = Stage::Working(job);
                return Flow::Yield;
            }
            resp::Next::Close => return self.over(Flow::Close),
            // No command with a key asks.
            resp::Next::Done | resp::Next::Ask(_) => self.forget_request(),
        }
        if world.waits() {
            return self.confirm(mark, wire_resp(&self.client), None, world);
        }
        self.answered(world)
    }

    fn run_fetched_pipe(&mut self, request: &Request, body: Body<'_>, world: &mut World<'_>) -> Flow {
        let mark = world.out.mark();
        world.begin(&self.client, Some(request));
        // No command that is fetched for does anything but answer.
        if let Err(refusal) = pipe::run(&mut world.context(&mut self.client), request, body) {
            pipe::writer(world.out, &self.client, request).refusal(&refusal);
        }
        if world.waits() {
            return self.confirm(mark, wire_pipe(&self.client, request), request.id, world);
        }
        self.answered(world)
    }

    /// The reply that was written since `mark` waits for the confirmations of what its command wrote.
    pub(super) fn confirm(
        &mut self,
        mark: (usize, usize),
        wire: ReplyWire,
        id: Option<u64>,
        world: &mut World<'_>,
    ) -> Flow {
        let held = world.out.split_off(mark);
        if let Some(outbox) = world.replica.outbox() {
            outbox.seal();
        }
        self.stage = Stage::Remote(Box::new(Remote::acks(held, wire, id)));
        Flow::Remote
    }

    /// A job is done: its reply is sent, or waits for confirmations.
    pub(super) fn end_job(&mut self, mark: (usize, usize), world: &mut World<'_>) -> Flow {
        self.forget_request();
        if !std::mem::take(&mut self.unconfirmed) {
            return self.answered(world);
        }
        let wire = match &self.wire {
            Wire::Pipe(_) if self.client.framed => ReplyWire::PipeFramed,
            Wire::Pipe(_) => ReplyWire::Pipe,
            Wire::Resp(_) | Wire::Unknown => wire_resp(&self.client),
        };
        self.confirm(mark, wire, None, world)
    }

    /// The request at the front of the inbox is done.
    fn forget_request(&mut self) {
        if let Wire::Resp(scan) = &mut self.wire {
            self.processed += scan.scanned();
            scan.reset();
        }
    }

    /// Whether the request that is on its way in goes to another node as it comes: what the cluster says is
    /// for `hear`.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// The cluster says something about the request that is on its way in. More of it may be read then.
    pub fn hear(&mut self, outcome: Outcome) {
        if let Some(sending) = &mut self.sending {
            sending.hear(outcome);
        }
    }

    /// The client has not taken the last `unsent` bytes of what it was sent. To be told while the session
    /// waits for the cluster: the rest of a large value comes as it is taken.
    pub fn handle_sent(&mut self, unsent: usize, replica: &Replica) {
        if let (Stage::Remote(remote), Some(outbox)) = (&mut self.stage, replica.outbox()) {
            remote.sent(unsent, replica.limits(), outbox);
        }
    }

    /// The session ends wherever it is: the cluster waits for no more of its writes, and nobody for what
    /// other nodes do for it.
    pub fn forsake(&self, replica: &Replica) {
        let Some(outbox) = replica.outbox() else { return };
        if self.unconfirmed {
            outbox.push(Order::Sealed(outbox.waiter_of(self.client.token)));
        }
        let remote = match &self.stage {
            Stage::Remote(remote) => remote.forwards(),
            _ => None,
        };
        let sending = self.sending.as_ref().map(|sending| sending.number());
        remote.or(sending).into_iter().for_each(|ids| outbox.push(Order::Leave(ids)));
    }
}
