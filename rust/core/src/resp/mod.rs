//! RESP, Redis's protocol, versions 2 and 3: any Redis client works. Not the sequence of a connection: that
//! is `session`.

mod admin;
mod connection;
mod docs;
mod keys;
pub mod many;
pub mod reply;
pub mod scan;
mod strings;
pub mod table;

use crate::config::Limits;
use crate::context::Ask;
pub use crate::context::Context;
use crate::error::Refusal;
use crate::job::Job;
use crate::walk::Question;
use reply::Writer;
use scan::Args;

impl Context<'_> {
    /// Writes replies as this client reads them.
    pub fn reply(&mut self) -> Writer<'_> {
        Writer { resp3: self.client.resp3, out: self.out }
    }
}

/// What follows a command.
#[derive(Debug)]
pub enum Next {
    /// It is answered.
    Done,
    /// It is answered, and the connection ends.
    Close,
    /// The side that decides must answer it.
    Ask(Ask),
    /// It takes long: it goes on in steps.
    Job(Job),
}

/// Runs a command that has arrived whole.
pub fn run(context: &mut Context<'_>, args: Args<'_>) -> Next {
    let name = args.bytes(0);
    let result = match table::find(name) {
        // A browser on this machine, sent here by some page: its body is not to be run as commands.
        None if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") => {
            return Next::Close;
        }
        None => {
            context.reply().error(&unknown(args));
            return Next::Done;
        }
        Some(spec) if !spec.accepts(args.len()) => {
            let name = spec.name;
            context.reply().error(&format!("ERR wrong number of arguments for '{name}' command"));
            return Next::Done;
        }
        Some(spec) if context.client.needs_password && !spec.before_auth() => Err(Refusal::AuthRequired),
        Some(spec) => {
            let mark = context.out.mark();
            let result = (spec.run)(context, args);
            if result.is_err() {
                context.out.rewind(mark);
            }
            result
        }
    };
    result.unwrap_or_else(|refusal| {
        context.replica.counters().refusals.bump();
        context.reply().refusal(&refusal);
        Next::Done
    })
}

/// What a command asks of all keys.
///
/// # Errors
/// It is asked badly.
pub fn question(args: Args<'_>, limits: &Limits) -> Result<Question, Refusal> {
    match table::find(args.bytes(0)).map_or("", |spec| spec.name) {
        "scan" => keys::scan_question(args, limits),
        "keys" => keys::keys_question(args, limits),
        _ => Ok(Question::Count(0)),
    }
}

/// Redis's own words, which clients match on; of the arguments, as many as fit into 128 characters.
fn unknown(args: Args<'_>) -> String {
    const SHOWN: usize = 128;
    let shown =
        |bytes: &[u8], most: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    let mut begins = String::new();
    for arg in args.from(1) {
        if begins.len() >= SHOWN {
            break;
        }
        begins += &format!("'{}' ", shown(arg, SHOWN - begins.len()));
    }
    format!("ERR unknown command '{}', with args beginning with: {begins}", shown(args.bytes(0), SHOWN))
}

/// The subcommand a client names, of those a command knows with their arity, in capitals.
fn subcommand(args: Args<'_>, known: &[(&'static str, i32)]) -> Result<&'static str, Refusal> {
    let (command, word) = (args.bytes(0), args.bytes(1));
    let found = known.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word));
    let upper = || String::from_utf8_lossy(command).to_uppercase();
    let Some((name, arity)) = found else {
        let shown = crate::error::printable(word);
        return Err(Refusal::Syntax(format!("unknown subcommand '{shown}'. Try {} HELP.", upper())));
    };
    if !table::accepts(*arity, args.len()) {
        let named = format!("{}|{name}", upper()).to_lowercase();
        return Err(Refusal::Syntax(format!("wrong number of arguments for '{named}' command")));
    }
    Ok(name)
}

/// A 64-bit integer as Redis reads one: digits with an optional minus, nothing else.
pub fn integer(bytes: &[u8]) -> Result<i64, Refusal> {
    let plain = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = match plain {
        [b'0'] => bytes.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(bytes).ok().filter(|_| canonical);
    text.and_then(|text| text.parse().ok()).ok_or(Refusal::NotInteger)
}

/// Bytes of a cold command's arguments, with what keeps them: many commands may wait for the side that
/// decides, and none that it knows needs more.
const ASK_BYTES_MAX: usize = 64 * 1024;

/// Asks the side that decides.
fn ask<'a>(command: &'static str, args: impl Iterator<Item = &'a [u8]>) -> Result<Next, Refusal> {
    let (mut copied, mut bytes) = (Vec::new(), 0);
    for arg in args {
        bytes += arg.len() + size_of::<Vec<u8>>();
        if bytes > ASK_BYTES_MAX {
            return Err(Refusal::Syntax(format!("the arguments of '{command}' are too long")));
        }
        copied.push(arg.to_vec());
    }
    Ok(Next::Ask(Ask { command, args: copied }))
}

fn syntax() -> Refusal {
    Refusal::Syntax("syntax error".into())
}
