//! The commands of the pipe protocol: one row each, and what they do.

use super::request::Request;
use super::response::Writer;
use crate::blob::{BlobRef, Value};
use crate::client::Client;
use crate::context::{Ask, Context};
use crate::entry::View;
use crate::error::Refusal;
use crate::feed::{Filter, Kinds, Watch};
use crate::job::{Job, Listing, Part};
use crate::output::Output;
use crate::replica::{Body, Condition, Lifetime};
use crate::search::Search;
use crate::share::Share;
use crate::version::Version;

/// What follows a command.
#[derive(Debug)]
pub enum Next {
    /// It is answered.
    Done,
    /// It is answered, and the connection carries more commands.
    Keep {
        /// Whether all of them are answered with their length.
        frame: bool,
    },
    /// The password was right: one more command may follow.
    Admitted,
    /// The side that decides must answer it.
    Ask(Ask),
    /// It takes long: it goes on in steps.
    Job(Job),
    /// It is answered once the key has a value, or after this many milliseconds.
    Wait(Vec<u8>, u64),
    /// It is answered, and what changes follows.
    Watch(Watch),
}

type Run = fn(&mut Context<'_>, &Request, Body<'_>) -> Result<Next, Refusal>;

/// A command.
#[derive(Debug)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// Whether a value follows the second pipe.
    pub takes_value: bool,
    /// Its parameters.
    pub params: &'static [&'static str],
    /// What it does, in a line.
    pub summary: &'static str,
    /// Does it.
    run: Run,
}

/// Every command, in the order of `help||`.
#[rustfmt::skip]
pub static COMMANDS: &[Spec] = &[
    Spec { name: "write", takes_value: true, run: write,
        params: &["name", "length", "ttl", "if", "if_version", "acks", "once"],
        summary: "stores the bytes after the second pipe; answers their version" },
    Spec { name: "read", takes_value: false, params: &["name", "version", "acks"], run: read,
        summary: "answers the value, byte for byte" },
    Spec { name: "delete", takes_value: false, params: &["name", "if_version", "acks", "once"], run: delete,
        summary: "deletes the key; answers whether there was a value" },
    Spec { name: "exists", takes_value: false, params: &["name", "acks"], run: exists,
        summary: "answers exists=1 or exists=0" },
    Spec { name: "list", takes_value: false, params: &["prefix", "limit", "cursor"], run: list,
        summary: "lists keys, percent-encoded, one a line" },
    Spec { name: "local_list", takes_value: false, params: &["prefix", "limit", "cursor"], run: local_list,
        summary: "lists what this node holds, as (name)=>size" },
    Spec { name: "versions", takes_value: false, params: &["name"], run: versions,
        summary: "lists the versions of a key, those that lost to another write too" },
    Spec { name: "wait", takes_value: false, params: &["name", "timeout"], run: wait,
        summary: "answers once the key has a value" },
    Spec { name: "watch", takes_value: false, params: &["prefix", "since", "kinds"], run: watch,
        summary: "tells what changes, a line each, until you leave" },
    Spec { name: "membership", takes_value: false, params: &[], run: membership,
        summary: "lists the nodes" },
    Spec { name: "ring", takes_value: false, params: &[], run: ring,
        summary: "tells which node has which slots" },
    Spec { name: "state", takes_value: false, params: &[], run: state,
        summary: "answers starting, running or stopping" },
    Spec { name: "status", takes_value: false, params: &[], run: status,
        summary: "tells how the node does" },
    Spec { name: "sync", takes_value: false, params: &[], run: sync,
        summary: "compares with the other nodes now" },
    Spec { name: "ping", takes_value: false, params: &[], run: ping,
        summary: "answers pong" },
    Spec { name: "keep", takes_value: false, params: &[], run: keep,
        summary: "keeps the connection for more commands" },
    Spec { name: "auth", takes_value: false, params: &["password"], run: auth,
        summary: "gives the password; one command follows, or keep" },
    Spec { name: "help", takes_value: false, params: &[], run: help,
        summary: "answers this" },
];

/// What nodes ask of each other where a client has asked for all keys (see `walk`). Clients are told nothing.
pub static SHARE: Spec = Spec {
    name: "share",
    takes_value: false,
    params: &["first", "up", "cursor", "looks", "prefix", "match", "counts"],
    run: share,
    summary: "lists the keys that this node answers for",
};

/// The command with this name.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    COMMANDS.iter().chain([&SHARE]).find(|spec| spec.name.as_bytes() == name)
}

/// Runs a command that has arrived whole.
///
/// # Errors
/// What is to be answered instead.
pub fn run(context: &mut Context<'_>, request: &Request, body: Body<'_>) -> Result<Next, Refusal> {
    let Some(spec) = request.spec else { return Err(Refusal::UnknownCommand(String::new())) };
    if context.client.needs_password && !matches!(spec.name, "auth" | "help" | "ping") {
        return Err(Refusal::AuthRequired);
    }
    (spec.run)(context, request, body)
}

/// The writer for a request's reply.
pub fn writer<'o>(out: &'o mut Output, client: &Client, request: &Request) -> Writer<'o> {
    Writer { out, frame: request.frame || client.framed, id: request.id }
}

fn reply<'a>(context: &'a mut Context<'_>, request: &Request) -> Writer<'a> {
    writer(context.out, context.client, request)
}

fn name<'r>(context: &Context<'_>, request: &'r Request) -> Result<&'r [u8], Refusal> {
    let command = request.spec.map_or("", |spec| spec.name);
    let name = request.get("name").ok_or(Refusal::MissingParam { command, name: "name" })?;
    if name.is_empty() {
        return Err(Refusal::BadKey { length: 0, limit: context.replica.limits().key_max });
    }
    context.replica.check_key(name)?;
    Ok(name)
}

/// A number of seconds, with a fraction or without, in milliseconds.
fn milliseconds(name: &str, value: &[u8]) -> Result<u64, Refusal> {
    let seconds = std::str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok());
    match seconds.filter(|seconds| (0.001..=1e10).contains(seconds)) {
        Some(seconds) => Ok((seconds * 1000.0).round() as u64),
        None => Err(Refusal::bad_param(name, value, "seconds, from 0.001, such as 2.5")),
    }
}

fn version_param(request: &Request, name: &str) -> Result<Option<Version>, Refusal> {
    let Some(value) = request.get(name) else { return Ok(None) };
    let version = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    version.map(Some).ok_or_else(|| Refusal::bad_param(name, value, "a version as a write answered it"))
}

fn condition(request: &Request) -> Result<Condition, Refusal> {
    match (request.get("if"), version_param(request, "if_version")?) {
        (None, None) => Ok(Condition::Always),
        (None, Some(version)) => Ok(Condition::Version(version)),
        (Some(b"absent"), None) => Ok(Condition::Absent),
        (Some(b"present"), None) => Ok(Condition::Present),
        (Some(value), None) => Err(Refusal::bad_param("if", value, "absent or present")),
        (Some(value), Some(_)) => Err(Refusal::bad_param("if", value, "give if= or if_version=, not both")),
    }
}

fn write(context: &mut Context<'_>, request: &Request, body: Body<'_>) -> Result<Next, Refusal> {
    let lifetime = match request.get("ttl") {
        Some(value) => Lifetime::Until(context.now_ms + milliseconds("ttl", value)?),
        None => Lifetime::Keyspace,
    };
    let name = name(context, request)?;
    let (replica, condition, now_ms) = (context.replica, condition(request)?, context.now_ms);
    let put = || replica.put(name, body, lifetime, condition, now_ms).map(Some);
    let version = once(context, request, name, put)?.unwrap_or_default();
    reply(context, request).status(&[("version", &version.to_string())]);
    Ok(Next::Done)
}

/// Writes, unless the request has a name and was done before.
fn once(
    context: &Context<'_>,
    request: &Request,
    key: &[u8],
    write: impl FnOnce() -> Result<Option<Version>, Refusal>,
) -> Result<Option<Version>, Refusal> {
    match request.get("once") {
        Some(name) => context.replica.once(key, name, context.now_ms, write),
        None => write(),
    }
}

fn read(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let (replica, now_ms, name) = (context.replica, context.now_ms, name(context, request)?);
    let wanted = version_param(request, "version")?;
    let mut reply = reply(context, request);
    let found = replica.get(name, now_ms, |view| {
        let view = view.filter(|view| wanted.is_none_or(|wanted| wanted == view.version));
        view.and_then(|view| {
            read_value(&mut reply, view.version, view.expires_ms, view.value?);
            Some(())
        })
    });
    let lost = || {
        let siblings = replica.siblings().of(name, now_ms);
        let sibling = siblings.iter().find(|sibling| Some(sibling.version) == wanted)?;
        let value = match &sibling.value {
            Body::Shared(blob) => Value::Blob(BlobRef::from(blob)),
            small => Value::Inline(small.piece()),
        };
        read_value(&mut reply, sibling.version, sibling.expires_ms, value);
        Some(())
    };
    found.or_else(lost).map(|()| Next::Done).ok_or(Refusal::NotFound)
}

fn read_value(reply: &mut Writer<'_>, version: Version, expires_ms: u64, value: Value<'_>) {
    if !reply.frame {
        return reply.body(&[], value);
    }
    let (version, expires) = (version.to_string(), expires_ms.to_string());
    let params = [("version", version.as_str()), ("expires", expires.as_str())];
    reply.body(&params[..1 + usize::from(expires_ms != 0)], value);
}

fn delete(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let condition = version_param(request, "if_version")?.map_or(Condition::Always, Condition::Version);
    let (replica, name, now_ms) = (context.replica, name(context, request)?, context.now_ms);
    let deleted = once(context, request, name, || replica.delete(name, condition, now_ms))?;
    match deleted {
        Some(version) => {
            reply(context, request).status(&[("deleted", "1"), ("version", &version.to_string())])
        }
        None => reply(context, request).status(&[("deleted", "0")]),
    }
    Ok(Next::Done)
}

fn exists(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let exists = context.replica.get(name(context, request)?, context.now_ms, |view| view.is_some());
    reply(context, request).status(&[("exists", if exists { "1" } else { "0" })]);
    Ok(Next::Done)
}

fn number(request: &Request, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = request.get(name) else { return Ok(None) };
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    number.map(Some).ok_or_else(|| Refusal::bad_param(name, value, "a number that is not negative"))
}

/// What a request for a list asks for.
///
/// # Errors
/// A parameter is not a number.
pub fn listing(client: &Client, request: &Request, sizes: bool) -> Result<Listing, Refusal> {
    let limit = number(request, "limit")?;
    if limit == Some(0) {
        return Err(Refusal::bad_param("limit", b"0", "1 or more"));
    }
    Ok(Listing {
        sizes,
        prefix: request.get("prefix").unwrap_or_default().to_vec(),
        limit,
        cursor: number(request, "cursor")?.unwrap_or(0),
        frame: request.frame || client.framed,
        id: request.id,
        lines: Vec::new(),
        listed: 0,
    })
}

/// Of a node that keeps all keys; else it is a `walk` before it comes here.
fn list(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    Ok(Next::Job(Job::List(Box::new(listing(context.client, request, false)?))))
}

fn local_list(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    Ok(Next::Job(Job::List(Box::new(listing(context.client, request, true)?))))
}

fn share(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let routes = context.replica.outbox().filter(|_| context.client.guest).map(|outbox| outbox.routes());
    let asked_by_nodes = || Refusal::Denied("only nodes ask this of each other: ask list".into());
    let routes = routes.ok_or_else(asked_by_nodes)?;
    let up = request.get("up").unwrap_or_default();
    let share = Share::decode(routes, request.get("first").unwrap_or_default(), up)
        .ok_or_else(|| Refusal::bad_param("up", up, "who is there, as a member of this cluster says it"))?;
    let search = Search::new(request.get("match"), number(request, "cursor")?.unwrap_or(0))
        .with_prefix(request.get("prefix").unwrap_or_default())
        .within(Some(share));
    Ok(Next::Job(Job::Part(Box::new(Part {
        search,
        looks: number(request, "looks")?.unwrap_or(u64::MAX),
        counts: request.get("counts").is_some(),
        id: request.id,
        lines: Vec::new(),
        found: 0,
    }))))
}

fn versions(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let name = name(context, request)?;
    let line = |version: Version, size: usize, state: &str, expires_ms: u64| {
        let expires = if expires_ms == 0 { String::new() } else { format!(" expires={expires_ms}") };
        format!("version={version} size={size} state={state}{expires}\n")
    };
    let mut lines = context.replica.store().read(name, |view| match view {
        None => String::new(),
        Some(View { version, value: None, .. }) => line(version, 0, "tombstone", 0),
        Some(View { version, value: Some(value), expires_ms, .. }) => {
            line(version, value.len(), "value", expires_ms)
        }
    });
    for sibling in context.replica.siblings().of(name, context.now_ms) {
        lines += &line(sibling.version, sibling.value.len(), "sibling", sibling.expires_ms);
    }
    if lines.is_empty() {
        return Err(Refusal::NotFound);
    }
    reply(context, request).body(&[], Value::Inline(lines.as_bytes()));
    Ok(Next::Done)
}

fn wait(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let name = name(context, request)?;
    let limit = context.replica.limits().wait_ms_max;
    let timeout = request.get("timeout").map_or(Ok(limit), |value| milliseconds("timeout", value))?;
    Ok(Next::Wait(name.to_vec(), timeout.min(limit)))
}

/// Answers that a key has a value, if it has one.
pub fn found(context: &mut Context<'_>, request: &Request, key: &[u8]) -> bool {
    let version = context.replica.get(key, context.now_ms, |view| view.map(|view| view.version));
    if let Some(version) = version {
        reply(context, request).status(&[("version", &version.to_string())]);
    }
    version.is_some()
}

fn watch(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    if context.client.guest {
        return Err(Refusal::Denied(
            "watch the node itself: this one only does what another one asks".into(),
        ));
    }
    let fix = "some of written, arrived, healed, deleted, expired and lost, with commas between";
    let kinds = match request.get("kinds") {
        None => Kinds::ALL,
        Some(words) => Kinds::named(words).ok_or_else(|| Refusal::bad_param("kinds", words, fix))?,
    };
    let prefix = request.get("prefix").unwrap_or_default().to_vec();
    let watch = context.replica.feed().watch(Filter { prefix, kinds }, number(request, "since")?)?;
    reply(context, request).status(&[("revision", &watch.revision().to_string())]);
    Ok(Next::Watch(watch))
}

fn ask(command: &'static str) -> Result<Next, Refusal> {
    Ok(Next::Ask(Ask { command, args: Vec::new() }))
}

fn membership(_: &mut Context<'_>, _: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    ask("membership")
}

fn ring(_: &mut Context<'_>, _: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    ask("ring")
}

fn state(_: &mut Context<'_>, _: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    ask("state")
}

fn status(_: &mut Context<'_>, _: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    ask("status")
}

fn sync(_: &mut Context<'_>, _: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    ask("sync")
}

fn ping(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let mut reply = reply(context, request);
    let body: &[u8] = if reply.frame { b"pong" } else { b"pong\n" };
    reply.body(&[], Value::Inline(body));
    Ok(Next::Done)
}

fn keep(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    reply(context, request).status(&[]);
    Ok(Next::Keep { frame: request.frame })
}

fn auth(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let missing = Refusal::MissingParam { command: "auth", name: "password" };
    match context.client.admit(request.get("password").ok_or(missing)?) {
        Some(false) => Err(Refusal::Denied("this is not the password".into())),
        // Without a password everybody is admitted already.
        Some(true) | None => {
            reply(context, request).status(&[]);
            Ok(Next::Admitted)
        }
    }
}

const HELP: &str = "\
turbopump: a request is  command|name=value ...|bytes . A connection carries one and is then closed, unless
keep|| comes first: then it carries many, answered in order. keep|frame=1| also frames every answer.

bytes     end at their newline, which is not part of them; any bytes with length=N, exactly N of them, or with
          length=eof, up to the half-close.
names     and other values in the middle part are percent-encoded: %7C is a pipe, %3D is =, %20 a blank.
answers   are the raw bytes, or a line: ok|name=value ...  or  error|code=WORD|what happened and what to do .
frame=1   on any request: the answer is  ok|name=value ... length=N|N bytes and a newline; an error likewise.
id=N      on any request comes back in a framed answer.
ttl=      how many seconds the value lives, such as 2.5; timeout= how many to wait.
acks=     one, quorum or all: how many replicas must have a write, or be asked for a read.
if=       absent or present: write only then; if_version= only over that version, as a write answered it.
version=  that version, as versions lists it: one that lost to another write too.
kinds=    some of written, arrived (from another node), healed, deleted, expired and lost (to another write).
since=    what changed after this revision, as watch tells it: to go on where you left.
limit=    at most so many lines; if there are more, the last is  next|cursor=C  and cursor=C goes on there.

";

fn help(context: &mut Context<'_>, request: &Request, _: Body<'_>) -> Result<Next, Refusal> {
    let mut text = HELP.to_string();
    for spec in COMMANDS {
        let params = if spec.params.is_empty() { String::new() } else { spec.params.join("= ") + "=" };
        text += &format!("{:<11} {:<36} {}\n", spec.name, params, spec.summary);
    }
    reply(context, request).body(&[], Value::Inline(text.as_bytes()));
    Ok(Next::Done)
}
