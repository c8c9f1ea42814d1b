//! The RESP commands that read and write values.

use super::reply::Writer;
use super::scan::{Arg, Args};
use super::{Context, Next, integer, syntax};
use std::sync::Arc;

use crate::blob::{BLOB_BYTES_MIN, Blob, BlobDraft, Value};
use crate::entry::View;
use crate::error::Refusal;
use crate::replica::{Body, Change, Condition, Lifetime, Replica};
use crate::usage::{NoSpace, Usage};

pub(super) fn body<'a>(replica: &Replica, arg: Arg<'a>) -> Result<Body<'a>, Refusal> {
    replica.prepared(match arg {
        Arg::Bytes(bytes) => Body::Lent(bytes),
        Arg::Blob(blob) => Body::Shared(blob.clone()),
    })
}

/// An expiry given as `EX 10` or the like: the words are the same in SET and GETEX.
pub(super) fn lifetime(
    word: &[u8],
    amount: &[u8],
    now_ms: u64,
    command: &str,
) -> Result<Option<Lifetime>, Refusal> {
    let (factor, from_now) = match word.to_ascii_uppercase().as_slice() {
        b"EX" => (1000, true),
        b"PX" => (1, true),
        b"EXAT" => (1000, false),
        b"PXAT" => (1, false),
        _ => return Ok(None),
    };
    let invalid = || Refusal::Syntax(format!("invalid expire time in '{command}' command"));
    let amount = integer(amount)?;
    let base = if from_now { now_ms as i64 } else { 0 };
    let unix_ms = amount.checked_mul(factor).and_then(|ms| ms.checked_add(base));
    match unix_ms.filter(|_| amount > 0) {
        Some(unix_ms) => Ok(Some(Lifetime::Until(unix_ms as u64))),
        None => Err(invalid()),
    }
}

#[derive(Default)]
struct SetOptions {
    condition: Condition,
    lifetime: Lifetime,
    get: bool,
}

fn set_options(args: Args<'_>, now_ms: u64) -> Result<SetOptions, Refusal> {
    let mut options = SetOptions::default();
    let mut index = 3;
    while index < args.len() {
        let word = args.bytes(index);
        let free = options.lifetime == Lifetime::Keyspace;
        match word.to_ascii_uppercase().as_slice() {
            b"NX" if options.condition != Condition::Present => options.condition = Condition::Absent,
            b"XX" if options.condition != Condition::Absent => options.condition = Condition::Present,
            b"GET" => options.get = true,
            b"KEEPTTL" if free || options.lifetime == Lifetime::Kept => options.lifetime = Lifetime::Kept,
            _ if free && index + 1 < args.len() => {
                index += 1;
                options.lifetime = lifetime(word, args.bytes(index), now_ms, "set")?.ok_or_else(syntax)?;
            }
            _ => return Err(syntax()),
        }
        index += 1;
    }
    Ok(options)
}

pub fn set(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (replica, now_ms, key) = (context.replica, context.now_ms, args.bytes(1));
    let body = body(replica, args.arg(2))?;
    if args.len() == 3 {
        replica.put(key, body, Lifetime::Keyspace, Condition::Always, now_ms)?;
        context.reply().ok();
        return Ok(Next::Done);
    }
    let options = set_options(args, now_ms)?;
    let mut reply = context.reply();
    let mark = reply.out.mark();
    let written = replica.change(key, now_ms, |current| {
        if options.get {
            write_value(&mut reply, current);
        }
        let holds = match options.condition {
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            _ => true,
        };
        Ok((if holds { Change::Put(body, options.lifetime) } else { Change::Leave }, holds))
    });
    match written {
        Err(refusal) => {
            reply.out.rewind(mark);
            return Err(refusal);
        }
        Ok(_) if options.get => {}
        Ok((_, true)) => reply.ok(),
        Ok((_, false)) => reply.null(),
    }
    Ok(Next::Done)
}

pub(super) fn write_value(reply: &mut Writer<'_>, view: Option<&View<'_>>) {
    match view.and_then(|view| view.value) {
        Some(value) => reply.value(value),
        None => reply.null(),
    }
}

pub fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (replica, now_ms) = (context.replica, context.now_ms);
    let mut reply = context.reply();
    replica.get(args.bytes(1), now_ms, |view| write_value(&mut reply, view));
    Ok(Next::Done)
}

/// Answers the value and does something to it in the same step.
fn get_and(
    context: &mut Context<'_>,
    key: &[u8],
    change: impl FnOnce() -> Result<Change<'static>, Refusal>,
) -> Result<Next, Refusal> {
    let (replica, now_ms) = (context.replica, context.now_ms);
    let mut reply = context.reply();
    replica.change(key, now_ms, |current| {
        write_value(&mut reply, current);
        Ok((if current.is_some() { change()? } else { Change::Leave }, ()))
    })?;
    Ok(Next::Done)
}

pub fn getdel(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    get_and(context, args.bytes(1), || Ok(Change::Delete))
}

pub fn getex(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (word, now_ms) = (args.bytes(2), context.now_ms);
    let timed = [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].iter().any(|known| known.eq_ignore_ascii_case(word));
    match args.len() {
        2 => get_and(context, args.bytes(1), || Ok(Change::Leave)),
        3 if word.eq_ignore_ascii_case(b"persist") => {
            get_and(context, args.bytes(1), || Ok(Change::Touch(Lifetime::Forever)))
        }
        // As in Redis, the time is looked at only if there is a value.
        4 if timed => get_and(context, args.bytes(1), || {
            let lifetime = lifetime(word, args.bytes(3), now_ms, "getex")?;
            Ok(Change::Touch(lifetime.unwrap_or_default()))
        }),
        _ => Err(syntax()),
    }
}

pub fn getset(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (replica, now_ms) = (context.replica, context.now_ms);
    let body = body(replica, args.arg(2))?;
    let mut reply = context.reply();
    replica.change(args.bytes(1), now_ms, |current| {
        write_value(&mut reply, current);
        Ok((Change::Put(body, Lifetime::Keyspace), ()))
    })?;
    Ok(Next::Done)
}

fn set_for(context: &mut Context<'_>, args: Args<'_>, word: &[u8], command: &str) -> Result<Next, Refusal> {
    let lifetime = lifetime(word, args.bytes(2), context.now_ms, command)?.unwrap_or_default();
    let body = body(context.replica, args.arg(3))?;
    context.replica.put(args.bytes(1), body, lifetime, Condition::Always, context.now_ms)?;
    context.reply().ok();
    Ok(Next::Done)
}

pub fn setex(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    set_for(context, args, b"EX", "setex")
}

pub fn psetex(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    set_for(context, args, b"PX", "psetex")
}

pub fn setnx(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let body = body(context.replica, args.arg(2))?;
    let written = context.replica.change(args.bytes(1), context.now_ms, |current| {
        let put = || Change::Put(body, Lifetime::Keyspace);
        Ok((if current.is_none() { put() } else { Change::Leave }, ()))
    })?;
    context.reply().int(i64::from(written.0.is_some()));
    Ok(Next::Done)
}

pub fn strlen(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let length = |view: Option<&View<'_>>| view.and_then(|view| view.value).map_or(0, |value| value.len());
    let length = context.replica.get(args.bytes(1), context.now_ms, length);
    context.reply().count(length);
    Ok(Next::Done)
}

/// A large value and what follows it; of one that is large already, only the last chunk is copied.
fn appended(value: Value<'_>, more: &Body<'_>, usage: &Arc<Usage>) -> Result<Blob, NoSpace> {
    let mut draft = match value {
        Value::Inline(bytes) => {
            let mut draft = BlobDraft::new(Some(bytes.len() + more.len()), usage);
            draft.extend(bytes)?;
            draft
        }
        Value::Blob(blob) => BlobDraft::after(blob.get(), more.len(), usage),
    };
    match more {
        Body::Shared(blob) => blob.chunks().try_for_each(|chunk| draft.extend(chunk))?,
        other => draft.extend(other.piece())?,
    }
    Ok(draft.finish())
}

pub fn append(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let limit = context.replica.limits().value_max;
    let usage = context.replica.store().usage();
    let more = body(context.replica, args.arg(2))?;
    let (_, length) = context.replica.change(args.bytes(1), context.now_ms, |current| {
        let Some(value) = current.and_then(|view| view.value) else {
            let length = more.len();
            return Ok((Change::Put(more, Lifetime::Keyspace), length));
        };
        // Checked before the copy: the result may be far larger than what was sent.
        if value.len() + more.len() > limit {
            return Err(Refusal::ValueTooLong { limit });
        }
        let length = value.len() + more.len();
        let joined = match value {
            Value::Inline(bytes) if length < BLOB_BYTES_MIN => Body::Owned([bytes, more.piece()].concat()),
            value => Body::Shared(Arc::new(appended(value, &more, usage)?)),
        };
        Ok((Change::Put(joined, Lifetime::Kept), length))
    })?;
    context.reply().count(length);
    Ok(Next::Done)
}

fn add(context: &mut Context<'_>, key: &[u8], amount: i64) -> Result<Next, Refusal> {
    let (_, sum) = context.replica.change(key, context.now_ms, |current| {
        let before = match current.and_then(|view| view.value) {
            None => 0,
            Some(Value::Inline(bytes)) => integer(bytes)?,
            Some(Value::Blob(_)) => return Err(Refusal::NotInteger),
        };
        let overflow = || Refusal::Syntax("increment or decrement would overflow".into());
        let sum = before.checked_add(amount).ok_or_else(overflow)?;
        Ok((Change::Put(Body::Owned(sum.to_string().into_bytes()), Lifetime::Kept), sum))
    })?;
    context.reply().int(sum);
    Ok(Next::Done)
}

pub fn incr(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    add(context, args.bytes(1), 1)
}

pub fn decr(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    add(context, args.bytes(1), -1)
}

pub fn incrby(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    add(context, args.bytes(1), integer(args.bytes(2))?)
}

pub fn decrby(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let amount = integer(args.bytes(2))?.checked_neg();
    add(context, args.bytes(1), amount.ok_or_else(|| Refusal::Syntax("decrement would overflow".into()))?)
}
