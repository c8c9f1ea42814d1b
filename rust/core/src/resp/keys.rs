//! The RESP commands about keys: lifetimes, existence, listing.

use super::reply::Writer;
use super::scan::Args;
use super::{Context, Next, integer, syntax};
use crate::config::Limits;
use crate::error::Refusal;
use crate::job::{Found, Job};
use crate::output::Output;
use crate::replica::{Change, Lifetime};
use crate::search::{Search, walk_ns};
use crate::walk::{self, Question};

/// The most keys one SCAN looks at, whatever COUNT says: other clients wait meanwhile.
const SCAN_COUNT_MAX: i64 = 1000;
const SCAN_COUNT_DEFAULT: i64 = 10;

/// NX, XX, GT and LT: when EXPIRE and its kin do something. A key that never expires expires last.
#[derive(Default)]
struct ExpireRule {
    without: bool,
    with: bool,
    later: bool,
    earlier: bool,
}

impl ExpireRule {
    fn of(args: Args<'_>) -> Result<Self, Refusal> {
        let mut rule = ExpireRule::default();
        for word in args.from(3) {
            match word.to_ascii_uppercase().as_slice() {
                b"NX" => rule.without = true,
                b"XX" => rule.with = true,
                b"GT" => rule.later = true,
                b"LT" => rule.earlier = true,
                _ => {
                    return Err(Refusal::Syntax(format!(
                        "Unsupported option {}",
                        String::from_utf8_lossy(word)
                    )));
                }
            }
        }
        let together =
            |words: &str| Refusal::Syntax(format!("{words} options at the same time are not compatible"));
        if rule.without && (rule.with || rule.later || rule.earlier) {
            return Err(together("NX and XX, GT or LT"));
        }
        if rule.later && rule.earlier {
            return Err(together("GT and LT"));
        }
        Ok(rule)
    }

    fn allows(&self, now: u64, new: u64) -> bool {
        (!self.without || now == 0)
            && (!self.with || now != 0)
            && (!self.later || (now != 0 && new > now))
            && (!self.earlier || now == 0 || new < now)
    }
}

/// EXPIRE and its kin: `args[2]` counts `factor` milliseconds from `base_ms`.
fn expire_at(context: &mut Context<'_>, args: Args<'_>, factor: i64, base_ms: u64) -> Result<Next, Refusal> {
    let invalid = || {
        let name = String::from_utf8_lossy(args.bytes(0)).to_lowercase();
        Refusal::Syntax(format!("invalid expire time in '{name}' command"))
    };
    let unix_ms = integer(args.bytes(2))?.checked_mul(factor).and_then(|ms| ms.checked_add(base_ms as i64));
    let unix_ms = unix_ms.ok_or_else(invalid)?.max(0) as u64;
    let rule = ExpireRule::of(args)?;
    let now_ms = context.now_ms;
    let (_, done) = context.replica.change(args.bytes(1), now_ms, |current| {
        let allowed = current.is_some_and(|view| rule.allows(view.expires_ms, unix_ms));
        Ok((if allowed { Change::Touch(Lifetime::Until(unix_ms)) } else { Change::Leave }, allowed))
    })?;
    context.reply().int(i64::from(done));
    Ok(Next::Done)
}

pub fn expire(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    expire_at(context, args, 1000, context.now_ms)
}

pub fn pexpire(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    expire_at(context, args, 1, context.now_ms)
}

pub fn expireat(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    expire_at(context, args, 1000, 0)
}

pub fn pexpireat(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    expire_at(context, args, 1, 0)
}

/// Answers about a key's expiry: -2 without the key, -1 without an expiry.
fn about_expiry(
    context: &mut Context<'_>,
    key: &[u8],
    tell: impl FnOnce(u64) -> u64,
) -> Result<Next, Refusal> {
    let expires_ms = context.replica.get(key, context.now_ms, |view| view.map(|view| view.expires_ms));
    let answer = match expires_ms {
        None => -2,
        Some(0) => -1,
        Some(expires_ms) => tell(expires_ms) as i64,
    };
    context.reply().int(answer);
    Ok(Next::Done)
}

pub fn ttl(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let now_ms = context.now_ms;
    about_expiry(context, args.bytes(1), |expires_ms| (expires_ms - now_ms + 500) / 1000)
}

pub fn pttl(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let now_ms = context.now_ms;
    about_expiry(context, args.bytes(1), |expires_ms| expires_ms - now_ms)
}

pub fn expiretime(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    about_expiry(context, args.bytes(1), |expires_ms| (expires_ms + 500) / 1000)
}

pub fn pexpiretime(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    about_expiry(context, args.bytes(1), |expires_ms| expires_ms)
}

pub fn persist(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (_, done) = context.replica.change(args.bytes(1), context.now_ms, |current| {
        let expires = current.is_some_and(|view| view.expires_ms != 0);
        Ok((if expires { Change::Touch(Lifetime::Forever) } else { Change::Leave }, expires))
    })?;
    context.reply().int(i64::from(done));
    Ok(Next::Done)
}

pub fn kind(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let exists = context.replica.get(args.bytes(1), context.now_ms, |view| view.is_some());
    context.reply().simple(if exists { "string" } else { "none" });
    Ok(Next::Done)
}

struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    count: i64,
    /// TYPE asked for something other than strings, and there is nothing else.
    nothing: bool,
}

fn scan_options(args: Args<'_>) -> Result<ScanOptions<'_>, Refusal> {
    let mut options = ScanOptions { pattern: None, count: SCAN_COUNT_DEFAULT, nothing: false };
    for index in (2..args.len()).step_by(2) {
        let value = args.bytes(index + 1);
        match args.bytes(index).to_ascii_uppercase().as_slice() {
            _ if index + 1 == args.len() => return Err(syntax()),
            b"MATCH" => options.pattern = Some(value),
            b"COUNT" => options.count = integer(value)?,
            b"TYPE" => options.nothing = !value.eq_ignore_ascii_case(b"string"),
            _ => return Err(syntax()),
        }
    }
    if options.count < 1 {
        return Err(syntax());
    }
    Ok(options)
}

/// What SCAN asks for.
pub fn scan_question(args: Args<'_>, limits: &Limits) -> Result<Question, Refusal> {
    let cursor = std::str::from_utf8(args.bytes(1)).ok().and_then(|text| text.parse().ok());
    let cursor: u64 = cursor.ok_or_else(|| Refusal::Syntax("invalid cursor".into()))?;
    let options = scan_options(args)?;
    options.pattern.map_or(Ok(()), |pattern| check_pattern(limits, pattern))?;
    let (pattern, count) = (options.pattern.map(<[u8]>::to_vec), options.count.min(SCAN_COUNT_MAX) as u64);
    Ok(Question::Scan(walk::Scan { cursor, pattern, count, nothing: options.nothing }))
}

pub fn scan(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let Question::Scan(asked) = scan_question(args, context.replica.limits())? else {
        return Err(syntax());
    };
    let (mut found, mut count) = (Output::default(), 0);
    let mut search = Search::new(asked.pattern.as_deref(), asked.cursor).within(context.share());
    context.work_ns += search.made_ns();
    context.work_ns += search.step(context.replica, context.now_ms, asked.count as usize, |key| {
        if !asked.nothing {
            Writer { out: &mut found, resp3: false }.bulk(key);
            count += 1;
        }
    });
    let mut reply = context.reply();
    reply.array(2);
    reply.bulk(search.cursor.to_string().as_bytes());
    reply.array(count);
    reply.out.push(found.front());
    Ok(Next::Done)
}

/// A pattern longer than any key is a mistake, or meant to keep the node busy.
fn check_pattern(limits: &Limits, pattern: &[u8]) -> Result<(), Refusal> {
    let limit = limits.key_max;
    if pattern.len() > limit {
        let length = pattern.len();
        return Err(Refusal::Syntax(format!("a pattern has at most {limit} bytes, this one has {length}")));
    }
    Ok(())
}

/// What KEYS asks for.
pub fn keys_question(args: Args<'_>, limits: &Limits) -> Result<Question, Refusal> {
    check_pattern(limits, args.bytes(1))?;
    Ok(Question::Keys(args.bytes(1).to_vec(), Found::default()))
}

pub fn keys(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    check_pattern(context.replica.limits(), args.bytes(1))?;
    let search = Search::new(Some(args.bytes(1)), 0).within(context.share());
    Ok(Next::Job(Job::keys(search)))
}

/// Keys that have expired and are still there which RANDOMKEY passes over before it answers nothing.
const RANDOM_TRIES: usize = 100;

pub fn randomkey(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    let (mut found, mut tries, now_ms) = (None, 0, context.now_ms);
    // From a random place on; then from the start, in case nothing lives behind it.
    for start in [context.random % crate::store::CURSOR_END, 0] {
        let mut cursor = start;
        while found.is_none() && tries < RANDOM_TRIES {
            let from = cursor;
            cursor = context.replica.store().scan(cursor, 1, |key, view| {
                tries += 1;
                found = found.take().or_else(|| view.live(now_ms).map(|_| key.to_vec()));
            });
            context.work_ns += walk_ns(from, cursor, 1);
            if cursor == 0 {
                break;
            }
        }
    }
    match found {
        Some(key) => context.reply().bulk(&key),
        None => context.reply().null(),
    }
    Ok(Next::Done)
}
