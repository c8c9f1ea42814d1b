//! Where a command runs: here, where its key is kept, or on all nodes. Not how it gets there.

use crate::client::Client;
use crate::error::Refusal;
use crate::keyspace::Acks;
use crate::pipe::request::Request;
use crate::replica::Replica;
use crate::resp::scan::Args;
use crate::resp::table::{self, Spec};
use crate::routes::Routes;

/// Where a command runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Here.
    Here,
    /// Here, once other replicas have been asked for its keys.
    Fetch,
    /// On a node that keeps its key.
    There,
    /// Nowhere: the client is told where its key is kept.
    Moved,
    /// Each key where it is kept.
    Split,
    /// On every node.
    Everywhere,
    /// On all nodes, each of which has some of the keys.
    Walk,
}

impl Plan {
    /// Where a request in Redis's protocol runs.
    pub fn resp(args: Args<'_>, client: &Client, replica: &Replica, routes: &Routes) -> Plan {
        let Some(spec) = table::find(args.bytes(0)).filter(|spec| spec.accepts(args.len())) else {
            return Plan::Here;
        };
        if spec.keys.0 == 0 {
            // Who follows redirects asks each node by itself.
            let spread = !client.redirect && is_spread(client, replica, routes);
            return match spec.name {
                "dbsize" | "keys" | "scan" if spread => Plan::Walk,
                "flushdb" | "flushall" if spread => Plan::Everywhere,
                _ => Plan::Here,
            };
        }
        if client.needs_password || routes.len() < 2 {
            return Plan::Here;
        }
        // Another node has found out where it belongs: it goes no further.
        if client.guest && !keys(spec, args).all(|key| routes.is_mine(key)) {
            return Plan::Here;
        }
        let mut keys = keys(spec, args);
        let Some(first) = keys.next() else { return Plan::Here };
        let replicas = routes.replicas(first);
        let one_place = keys.all(|key| routes.replicas(key) == replicas);
        match (one_place, replicas.contains(&routes.me())) {
            (true, false) if client.redirect && routes.door(first).is_some() => Plan::Moved,
            (true, false) => Plan::There,
            (false, _) if !self::keys(spec, args).all(|key| routes.is_mine(key)) => Plan::Split,
            _ if !looks(spec, args) => Plan::Here,
            _ if self::keys(spec, args).all(|key| is_known(key, routes.rules(key).read_acks, replica)) => {
                Plan::Here
            }
            _ => Plan::Fetch,
        }
    }

    /// Where a request in the pipe protocol runs.
    ///
    /// # Errors
    /// It asks for confirmations in a way that there is not.
    pub fn pipe(
        request: &Request,
        client: &Client,
        replica: &Replica,
        routes: &Routes,
    ) -> Result<Plan, Refusal> {
        let Some(spec) = request.spec else { return Ok(Plan::Here) };
        if spec.name == "list" && is_spread(client, replica, routes) {
            return Ok(Plan::Walk);
        }
        let Some(key) = request.get("name") else { return Ok(Plan::Here) };
        let asked = acks(request)?;
        if client.needs_password || routes.len() < 2 {
            return Ok(Plan::Here);
        }
        if !routes.is_mine(key) {
            return Ok(if client.guest { Plan::Here } else { Plan::There });
        }
        let looks = !spec.takes_value || request.get("if").or(request.get("if_version")).is_some();
        let level = asked.filter(|_| only_reads(spec)).unwrap_or(routes.rules(key).read_acks);
        let fetch = looks && !is_known(key, level, replica) && spec.name != "wait";
        Ok(if fetch { Plan::Fetch } else { Plan::Here })
    }
}

/// Whether a command about all keys is one for other nodes, too.
fn is_spread(client: &Client, replica: &Replica, routes: &Routes) -> bool {
    let alone = routes.keeps_all() && !replica.store().is_behind();
    !alone && !client.guest && !client.needs_password
}

/// Whether this node may answer for `key` by itself.
fn is_known(key: &[u8], level: Acks, replica: &Replica) -> bool {
    level == Acks::One && !replica.lacks(key)
}

/// What a request asks of confirmations.
///
/// # Errors
/// There is no such level.
pub fn acks(request: &Request) -> Result<Option<Acks>, Refusal> {
    let Some(value) = request.get("acks") else { return Ok(None) };
    let fix = || Refusal::bad_param("acks", value, "one, quorum or all");
    Acks::named(value).map(Some).ok_or_else(fix)
}

/// Whether a command of the pipe protocol writes nothing: then `acks` is about what it reads.
pub fn only_reads(spec: &crate::pipe::commands::Spec) -> bool {
    !spec.takes_value && spec.name != "delete"
}

/// Whether what a command does depends on what there is: that of a delete does, for where there is nothing
/// nothing is deleted.
fn looks(spec: &Spec, args: Args<'_>) -> bool {
    let given = |name: &[u8]| (3..args.len()).any(|index| args.bytes(index).eq_ignore_ascii_case(name));
    match spec.name {
        "set" => [&b"nx"[..], b"xx", b"get", b"keepttl"].into_iter().any(given),
        name => !matches!(name, "setex" | "psetex" | "mset"),
    }
}

/// The keys of a request.
pub fn keys<'a>(spec: &Spec, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (first, last, step) = spec.keys;
    let end = if last < 0 { args.len() as i32 + last } else { last };
    (first..=end).step_by(step.max(1) as usize).map(move |index| args.bytes(index as usize))
}

/// Whether a command of Redis's protocol writes nothing.
pub fn reads(spec: Option<&Spec>) -> bool {
    spec.is_some_and(|spec| spec.flags.contains(&"readonly"))
}
