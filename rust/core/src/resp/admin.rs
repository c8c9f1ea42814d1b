//! The RESP commands about the node. What needs a decision is asked of the side that decides.

use super::scan::Args;
use super::{Context, Next, docs};
use crate::blob::Value;
use crate::error::Refusal;
use crate::session::{Ask, Job};

/// Redis keeps strings up to this size in one allocation with their header, and tells so.
const EMBSTR_MAX: usize = 44;

fn ask(command: &'static str, args: Args<'_>) -> Result<Next, Refusal> {
    Ok(Next::Ask(Ask { command, args: args.from(1).map(<[u8]>::to_vec).collect() }))
}

pub fn info(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    ask("info", args)
}

pub fn config(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    ask("config", args)
}

pub fn shutdown(_: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    ask("shutdown", args)
}

pub fn command(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    docs::command(&mut context.reply(), args)?;
    Ok(Next::Done)
}

pub fn dbsize(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    let keys = context.replica.store().usage().total().keys();
    context.reply().int(keys as i64);
    Ok(Next::Done)
}

pub fn flushdb(_: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    Ok(Next::Job(Job::flush()))
}

pub fn time(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    let now_ms = context.now_ms;
    let mut reply = context.reply();
    reply.array(2);
    reply.bulk((now_ms / 1000).to_string().as_bytes());
    reply.bulk((now_ms % 1000 * 1000).to_string().as_bytes());
    Ok(Next::Done)
}

fn subcommand(args: Args<'_>, command: &str) -> Refusal {
    let shown = crate::error::printable(args.bytes(1));
    Refusal::Syntax(format!(
        "unknown subcommand or wrong number of arguments for '{shown}'. Try {command} HELP."
    ))
}

pub fn memory(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    if !args.bytes(1).eq_ignore_ascii_case(b"usage") || args.len() < 3 {
        return Err(subcommand(args, "MEMORY"));
    }
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
    let word = args.bytes(1).to_ascii_uppercase();
    if !matches!(word.as_slice(), b"ENCODING" | b"REFCOUNT") || args.len() != 3 {
        return Err(subcommand(args, "OBJECT"));
    }
    let found =
        context.replica.get(args.bytes(2), context.now_ms, |view| view.and_then(|v| v.value).map(encoding));
    match found {
        None => context.reply().null(),
        Some(_) if word == b"REFCOUNT" => context.reply().int(1),
        Some(encoding) => context.reply().bulk(encoding.as_bytes()),
    }
    Ok(Next::Done)
}
