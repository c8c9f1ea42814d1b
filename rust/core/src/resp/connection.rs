//! The RESP commands about the connection itself.

use super::scan::Args;
use super::{Context, Next, integer, syntax};
use crate::error::Refusal;
use crate::session::Ask;

pub fn ping(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    match args.len() {
        1 => context.reply().simple("PONG"),
        2 => context.reply().bulk(args.bytes(1)),
        _ => return Err(Refusal::Syntax("wrong number of arguments for 'ping' command".into())),
    }
    Ok(Next::Done)
}

pub fn echo(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    context.reply().bulk(args.bytes(1));
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
        Err(_) => return Err(Refusal::Syntax("invalid DB index".into())),
    }
    Ok(Next::Done)
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

/// Checks a user, who can only be `default`, and a password.
fn admit(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), &'static str> {
    match context.client.admit(password) {
        None => Err(NO_PASSWORD),
        Some(true) if user == b"default" => Ok(()),
        Some(_) => Err(WRONG_PASSWORD),
    }
}

pub fn auth(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let (user, password) = match args.len() {
        2 => (&b"default"[..], args.bytes(1)),
        3 => (args.bytes(1), args.bytes(2)),
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
fn hello_options(args: Args<'_>) -> Result<Hello<'_>, &'static str> {
    let mut hello = Hello { resp3: None, name: None, credentials: None };
    if args.len() > 1 {
        hello.resp3 = Some(match args.bytes(1) {
            b"2" => false,
            b"3" => true,
            _ => return Err("NOPROTO unsupported protocol version"),
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
            _ => return Err("ERR Syntax error in HELLO option"),
        }
    }
    Ok(hello)
}

pub fn hello(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let greeted = hello_options(args).and_then(|hello| {
        if let Some((user, password)) = hello.credentials {
            admit(context, user, password)?;
        }
        if context.client.needs_password {
            return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                        HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                        select the RESP protocol version at the same time");
        }
        Ok(hello)
    });
    let hello = match greeted {
        Ok(hello) => hello,
        Err(text) => {
            context.reply().error(text);
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

pub fn client(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let word = args.bytes(1).to_ascii_uppercase();
    match (word.as_slice(), args.len()) {
        (b"ID", 2) => {
            let id = context.client.id;
            context.reply().int(id as i64);
        }
        (b"GETNAME", 2) => {
            let name = context.client.name.clone();
            if name.is_empty() { context.reply().null() } else { context.reply().bulk(name.as_bytes()) }
        }
        (b"SETNAME", 3) => {
            context.client.set_name(args.bytes(2))?;
            context.reply().ok();
        }
        (b"SETINFO", 4) => {
            context.client.set_info(args.bytes(2), args.bytes(3))?;
            context.reply().ok();
        }
        // No entry is ever evicted and no reply is suppressed by it, so there is nothing to switch.
        (b"NO-EVICT" | b"NO-TOUCH", 3) => context.reply().ok(),
        (b"LIST" | b"INFO" | b"KILL", _) => {
            let args = args.from(1).map(<[u8]>::to_vec).collect();
            return Ok(Next::Ask(Ask { command: "client", args }));
        }
        _ => {
            let shown = crate::error::printable(args.bytes(1));
            let text =
                format!("unknown subcommand or wrong number of arguments for '{shown}'. Try CLIENT HELP.");
            return Err(Refusal::Syntax(text));
        }
    }
    Ok(Next::Done)
}
