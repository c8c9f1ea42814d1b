//! The RESP commands about the node. What needs a decision is asked of the side that decides.

use super::scan::Args;
use super::{Context, Next, ask, docs, subcommand, syntax};
use crate::blob::Value;
use crate::error::Refusal;
use crate::job::Job;
use crate::search::Search;

/// Redis keeps strings up to this size in one allocation with their header, and tells so.
const EMBSTR_MAX: usize = 44;

pub fn info(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    ask("info", args.from(1))
}

pub fn config(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    subcommand(args, &[("GET", -3)])?;
    ask("config", args.from(1))
}

pub fn cluster(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    ask("cluster", args.from(1))
}

pub fn shutdown(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    ask("shutdown", args.from(1))
}

pub fn command(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    docs::command(&mut context.reply(), args)?;
    Ok(Next::Done)
}

pub fn dbsize(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    if let Some(share) = context.share() {
        let search = Search::new(None, 0).within(Some(share));
        return Ok(Next::Job(Job::Count(Box::new(search), 0)));
    }
    let keys = context.replica.store().usage().total().keys();
    context.reply().int(keys as i64);
    Ok(Next::Done)
}

pub fn flushdb(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    match (args.bytes(1).to_ascii_uppercase().as_slice(), args.len()) {
        (_, 1) | (b"SYNC" | b"ASYNC", 2) => Ok(Next::Job(Job::flush())),
        _ => Err(syntax()),
    }
}

pub fn time(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    let now_ms = context.now_ms;
    let mut reply = context.reply();
    reply.array(2);
    reply.bulk((now_ms / 1000).to_string().as_bytes());
    reply.bulk((now_ms % 1000 * 1000).to_string().as_bytes());
    Ok(Next::Done)
}

pub fn memory(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    subcommand(args, &[("USAGE", -3)])?;
    match context.replica.store().footprint(args.bytes(2)) {
        Some(bytes) => context.reply().count(bytes),
        None => context.reply().null(),
    }
    Ok(Next::Done)
}

pub fn object(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let encoding = |value: Value<'_>| match value {
        Value::Inline(bytes) if super::integer(bytes).is_ok() => "int",
        Value::Inline(bytes) if bytes.len() <= EMBSTR_MAX => "embstr",
        _ => "raw",
    };
    let word = subcommand(args, &[("ENCODING", 3), ("REFCOUNT", 3)])?;
    let found =
        context.replica.get(args.bytes(2), context.now_ms, |view| view.and_then(|v| v.value).map(encoding));
    match found {
        None => context.reply().null(),
        Some(_) if word == "REFCOUNT" => context.reply().int(1),
        Some(encoding) => context.reply().bulk(encoding.as_bytes()),
    }
    Ok(Next::Done)
}
