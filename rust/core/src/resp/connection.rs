//! The RESP commands about the connection itself.

use super::scan::Args;
use super::{Context, Next, ask, integer, subcommand, syntax};
use crate::error::Refusal;

pub fn ping(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    match args.len() {
        1 => context.reply().simple("PONG"),
        2 => context.reply().arg(&args.arg(1)),
        _ => return Err(Refusal::Syntax("wrong number of arguments for 'ping' command".into())),
    }
    Ok(Next::Done)
}

pub fn echo(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    context.reply().arg(&args.arg(1));
    Ok(Next::Done)
}

pub fn quit(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    context.reply().ok();
    Ok(Next::Close)
}

pub fn reset(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    context.client.reset();
    context.reply().simple("RESET");
    Ok(Next::Done)
}

pub fn select(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    match integer(args.bytes(1)) {
        Ok(0) => context.reply().ok(),
        Ok(_) => return Err(Refusal::Syntax("DB index is out of range".into())),
        Err(refusal) => return Err(refusal),
    }
    Ok(Next::Done)
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

/// Checks a user, who can only be `default`, and a password.
fn admit(context: &mut Context<'_>, user: Option<&[u8]>, password: &[u8]) -> Result<(), &'static str> {
    if user.is_some_and(|user| user != b"default") {
        return Err(WRONG_PASSWORD);
    }
    match context.client.admit(password) {
        Some(true) => Ok(()),
        Some(false) => Err(WRONG_PASSWORD),
        // As in Redis: without a password, who names the user is admitted with any.
        None if user.is_some() => Ok(()),
        None => Err(NO_PASSWORD),
    }
}

pub fn auth(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (user, password) = match args.len() {
        2 => (None, args.bytes(1)),
        3 => (Some(args.bytes(1)), args.bytes(2)),
        _ => return Err(syntax()),
    };
    match admit(context, user, password) {
        Ok(()) => context.reply().ok(),
        Err(text) => context.reply().error(text),
    }
    Ok(Next::Done)
}

struct Hello<'a> {
    resp3: Option<bool>,
    name: Option<&'a [u8]>,
    credentials: Option<(&'a [u8], &'a [u8])>,
}

/// The words of HELLO, or the error that says what is wrong with them.
fn hello_options(args: Args<'_>) -> Result<Hello<'_>, String> {
    let mut hello = Hello { resp3: None, name: None, credentials: None };
    if args.len() > 1 {
        hello.resp3 = Some(match integer(args.bytes(1)) {
            Ok(2) => false,
            Ok(3) => true,
            Ok(_) => return Err("NOPROTO unsupported protocol version".into()),
            Err(_) => return Err("ERR Protocol version is not an integer or out of range".into()),
        });
    }
    let mut index = 2;
    while index < args.len() {
        let left = args.len() - index - 1;
        match args.bytes(index).to_ascii_uppercase().as_slice() {
            b"AUTH" if left >= 2 => {
                hello.credentials = Some((args.bytes(index + 1), args.bytes(index + 2)));
                index += 3;
            }
            b"SETNAME" if left >= 1 => {
                hello.name = Some(args.bytes(index + 1));
                index += 2;
            }
            _ => {
                let shown = crate::error::printable(args.bytes(index));
                return Err(format!("ERR Syntax error in HELLO option '{shown}'"));
            }
        }
    }
    Ok(hello)
}

pub fn hello(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let greeted = hello_options(args).and_then(|hello| {
        if let Some((user, password)) = hello.credentials {
            admit(context, Some(user), password)?;
        }
        if context.client.needs_password {
            return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                        HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                        select the RESP protocol version at the same time"
                .into());
        }
        Ok(hello)
    });
    let hello = match greeted {
        Ok(hello) => hello,
        Err(text) => {
            context.reply().error(&text);
            return Ok(Next::Done);
        }
    };
    if let Some(name) = hello.name {
        context.client.set_name(name)?;
    }
    context.client.resp3 = hello.resp3.unwrap_or(context.client.resp3);
    let (id, resp3) = (context.client.id, context.client.resp3);
    let mut reply = context.reply();
    reply.map(7);
    for (name, value) in [("server", "turbopump"), ("version", env!("CARGO_PKG_VERSION"))] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (name, value) in [("proto", if resp3 { 3 } else { 2 }), ("id", id as i64)] {
        reply.bulk(name.as_bytes());
        reply.int(value);
    }
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(Next::Done)
}

const CLIENT: &[(&str, i32)] = &[
    ("GETNAME", 2),
    ("ID", 2),
    ("INFO", 2),
    ("KILL", -3),
    ("LIST", -2),
    ("NO-EVICT", 3),
    ("NO-TOUCH", 3),
    ("SETINFO", 4),
    ("SETNAME", 3),
];

pub fn client(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    match subcommand(args, CLIENT)? {
        "ID" => {
            let id = context.client.id;
            context.reply().int(id as i64);
        }
        "GETNAME" => {
            let name = context.client.name.clone();
            if name.is_empty() { context.reply().null() } else { context.reply().bulk(name.as_bytes()) }
        }
        "SETNAME" => {
            context.client.set_name(args.bytes(2))?;
            context.reply().ok();
        }
        "SETINFO" => {
            context.client.set_info(args.bytes(2), args.bytes(3))?;
            context.reply().ok();
        }
        // No entry is ever evicted, so there is nothing to switch.
        "NO-EVICT" | "NO-TOUCH" => match args.bytes(2).to_ascii_lowercase().as_slice() {
            b"on" | b"off" => context.reply().ok(),
            _ => return Err(syntax()),
        },
        _ => {
            // What concerns other clients: the caller's number comes first.
            let caller = context.client.id.to_string();
            return ask("client", std::iter::once(caller.as_bytes()).chain(args.from(1)));
        }
    }
    Ok(Next::Done)
}

/// READONLY, READWRITE and ASKING: every replica answers reads and takes writes, and no slot moves.
pub fn asking(context: &mut Context<'_>, _: Args<'_>) -> Result<Next, Refusal> {
    context.reply().ok();
    Ok(Next::Done)
}
