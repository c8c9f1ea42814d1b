//! The RESP commands: one row each. Not what they do: that is in the files the last column names.

use super::scan::Args;
use super::{Context, Next, admin, connection, keys, many, strings};
use crate::error::Refusal;

/// Runs one command.
pub type Run = fn(&mut Context<'_>, Args<'_>) -> Result<Next, Refusal>;

/// A command.
#[derive(Debug)]
pub struct Spec {
    /// Its name, in lower case.
    pub name: &'static str,
    /// How many arguments, with the name; negative for at least as many.
    pub arity: i32,
    /// Redis's flags.
    pub flags: &'static [&'static str],
    /// The first key's position, the last's (negative from the end), and the step between; 0 without keys.
    pub keys: (i32, i32, i32),
    /// Redis's group of commands.
    pub group: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Does it.
    pub run: Run,
}

impl Spec {
    /// Whether the command takes `count` arguments, its name included.
    pub fn accepts(&self, count: usize) -> bool {
        accepts(self.arity, count)
    }

    /// Whether the command may run before the password is given.
    pub fn before_auth(&self) -> bool {
        self.flags.contains(&"no_auth")
    }
}

/// Whether an arity of Redis's kind takes `count` arguments.
pub fn accepts(arity: i32, count: usize) -> bool {
    if arity < 0 { count as i32 >= -arity } else { count as i32 == arity }
}

const READ: &[&str] = &["readonly", "fast"];
const READ_ALL: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", "denyoom", "fast"];
const REMOVE: &[&str] = &["write", "fast"];
const REMOVE_ALL: &[&str] = &["write"];
const TALK: &[&str] = &["loading", "stale", "fast"];
const TALK_FIRST: &[&str] = &["loading", "stale", "fast", "no_auth"];
const ADMIN: &[&str] = &["admin", "loading", "stale"];
const ABOUT: &[&str] = &["loading", "stale"];

const NO_KEY: (i32, i32, i32) = (0, 0, 0);
const ONE_KEY: (i32, i32, i32) = (1, 1, 1);
const ALL_KEYS: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);

macro_rules! table {
    ($($name:literal $arity:literal $flags:ident $keys:ident $group:literal $run:path, $about:literal;)*) => {
        &[$(Spec {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            group: $group,
            summary: $about,
            run: $run,
        }),*]
    };
}

/// Every command, by name.
#[rustfmt::skip]
pub static COMMANDS: &[Spec] = table! {
    "append"       3 WRITE      ONE_KEY  "string"     strings::append,    "Appends to a value.";
    "asking"       1 TALK       NO_KEY   "cluster"    connection::asking, "Answers OK: nothing moves here.";
    "auth"        -2 TALK_FIRST NO_KEY   "connection" connection::auth,   "Gives the password.";
    "client"      -2 TALK       NO_KEY   "connection" connection::client, "Shows or ends connections.";
    "cluster"     -2 ABOUT      NO_KEY   "cluster"    admin::cluster,     "Tells which node has which keys.";
    "command"     -1 ABOUT      NO_KEY   "server"     admin::command,     "Describes the commands.";
    "config"      -2 ADMIN      NO_KEY   "server"     admin::config,      "Shows the configuration.";
    "dbsize"       1 READ       NO_KEY   "server"     admin::dbsize,      "Counts the keys.";
    "decr"         2 WRITE      ONE_KEY  "string"     strings::decr,      "Subtracts one from an integer.";
    "decrby"       3 WRITE      ONE_KEY  "string"     strings::decrby,    "Subtracts from an integer.";
    "del"         -2 REMOVE_ALL ALL_KEYS "generic"    many::del,          "Deletes keys.";
    "echo"         2 TALK       NO_KEY   "connection" connection::echo,   "Answers what it was given.";
    "exists"      -2 READ       ALL_KEYS "generic"    many::exists,       "Counts the keys with a value.";
    "expire"      -3 REMOVE     ONE_KEY  "generic"    keys::expire,       "Sets a lifetime in seconds.";
    "expireat"    -3 REMOVE     ONE_KEY  "generic"    keys::expireat,     "Sets the expiry in Unix seconds.";
    "expiretime"   2 READ       ONE_KEY  "generic"    keys::expiretime,   "Tells the expiry in Unix seconds.";
    "flushall"    -1 REMOVE_ALL NO_KEY   "server"     admin::flushdb,     "Deletes all keys.";
    "flushdb"     -1 REMOVE_ALL NO_KEY   "server"     admin::flushdb,     "Deletes all keys.";
    "get"          2 READ       ONE_KEY  "string"     strings::get,       "Reads a value.";
    "getdel"       2 REMOVE     ONE_KEY  "string"     strings::getdel,    "Reads a value and deletes it.";
    "getex"       -2 REMOVE     ONE_KEY  "string"     strings::getex,     "Reads, and sets the lifetime.";
    "getset"       3 WRITE      ONE_KEY  "string"     strings::getset,    "Writes; answers the old value.";
    "hello"       -1 TALK_FIRST NO_KEY   "connection" connection::hello,  "Agrees on the protocol's version.";
    "incr"         2 WRITE      ONE_KEY  "string"     strings::incr,      "Adds one to an integer.";
    "incrby"       3 WRITE      ONE_KEY  "string"     strings::incrby,    "Adds to an integer.";
    "info"        -1 ABOUT      NO_KEY   "server"     admin::info,        "Tells about the node.";
    "keys"         2 READ_ALL   NO_KEY   "generic"    keys::keys,         "Lists the keys that match.";
    "memory"      -2 READ_ALL   NO_KEY   "server"     admin::memory,      "Tells what a key takes.";
    "mget"        -2 READ       ALL_KEYS "string"     many::mget,         "Reads several values.";
    "mset"        -3 WRITE      PAIRS    "string"     many::mset,         "Writes several values.";
    "object"      -2 READ_ALL   NO_KEY   "generic"    admin::object,      "Tells how a value is kept.";
    "persist"      2 REMOVE     ONE_KEY  "generic"    keys::persist,      "Takes the lifetime away.";
    "pexpire"     -3 REMOVE     ONE_KEY  "generic"    keys::pexpire,      "Sets a lifetime in milliseconds.";
    "pexpireat"   -3 REMOVE     ONE_KEY  "generic"    keys::pexpireat,    "Sets the expiry in Unix ms.";
    "pexpiretime"  2 READ       ONE_KEY  "generic"    keys::pexpiretime,  "Tells the expiry in Unix ms.";
    "ping"        -1 TALK       NO_KEY   "connection" connection::ping,   "Answers.";
    "psetex"       4 WRITE      ONE_KEY  "string"     strings::psetex,    "Writes, for so many milliseconds.";
    "pttl"         2 READ       ONE_KEY  "generic"    keys::pttl,         "Tells the milliseconds left.";
    "quit"        -1 TALK_FIRST NO_KEY   "connection" connection::quit,   "Ends the connection.";
    "randomkey"    1 READ_ALL   NO_KEY   "generic"    keys::randomkey,    "Answers some key.";
    "readonly"     1 TALK       NO_KEY   "cluster"    connection::asking, "Answers OK: all replicas serve.";
    "readwrite"    1 TALK       NO_KEY   "cluster"    connection::asking, "Answers OK: all replicas serve.";
    "reset"        1 TALK_FIRST NO_KEY   "connection" connection::reset,  "Makes the connection as new.";
    "scan"        -2 READ_ALL   NO_KEY   "generic"    keys::scan,         "Lists keys, a few at a time.";
    "select"       2 TALK       NO_KEY   "connection" connection::select, "Chooses database 0, the only one.";
    "set"         -3 WRITE      ONE_KEY  "string"     strings::set,       "Writes a value.";
    "setex"        4 WRITE      ONE_KEY  "string"     strings::setex,     "Writes, for so many seconds.";
    "setnx"        3 WRITE      ONE_KEY  "string"     strings::setnx,     "Writes a value if there is none.";
    "shutdown"    -1 ADMIN      NO_KEY   "server"     admin::shutdown,    "Ends the node in good order.";
    "strlen"       2 READ       ONE_KEY  "string"     strings::strlen,    "Tells a value's length.";
    "time"         1 TALK       NO_KEY   "server"     admin::time,        "Tells the node's time.";
    "touch"       -2 READ       ALL_KEYS "generic"    many::exists,       "Counts the keys with a value.";
    "ttl"          2 READ       ONE_KEY  "generic"    keys::ttl,          "Tells the seconds left.";
    "type"         2 READ       ONE_KEY  "generic"    keys::kind,         "Tells a value's type: string.";
    "unlink"      -2 REMOVE_ALL ALL_KEYS "generic"    many::del,          "Deletes keys.";
};

/// The longest name.
const NAME_MAX: usize = 16;

/// Positions in `COMMANDS` plus one, by hash of the name: what a binary search would cost is felt in a
/// pipeline.
static INDEX: [u8; 256] = index();

const fn hash(name: &[u8]) -> usize {
    let (first, last) = (name[0] as usize, name[name.len() - 1] as usize);
    (first * 7 + last * 31 + name[name.len() / 2] as usize * 3 + name.len() * 17) & 255
}

const fn index() -> [u8; 256] {
    let mut index = [0u8; 256];
    let mut row = 0;
    while row < COMMANDS.len() {
        let mut at = hash(COMMANDS[row].name.as_bytes());
        while index[at] != 0 {
            at = (at + 1) & 255;
        }
        index[at] = row as u8 + 1;
        row += 1;
    }
    index
}

/// The command with this name, in capitals or not.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    if name.is_empty() || name.len() > NAME_MAX {
        return None;
    }
    let mut lower = [0u8; NAME_MAX];
    let lower = &mut lower[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let mut at = hash(lower);
    while let Some(row) = usize::from(INDEX[at]).checked_sub(1) {
        if COMMANDS[row].name.as_bytes() == lower {
            return Some(&COMMANDS[row]);
        }
        at = (at + 1) & 255;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case() {
        for spec in COMMANDS {
            assert_eq!(find(spec.name.to_uppercase().as_bytes()).map(|found| found.name), Some(spec.name));
            assert!(spec.name.len() <= NAME_MAX);
        }
        assert!(find(b"").is_none() && find(b"nothing").is_none() && find(&[b'a'; 1000]).is_none());
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
    }
}
