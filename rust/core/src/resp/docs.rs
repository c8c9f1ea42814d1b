//! COMMAND: the table of commands as clients ask for it.

use super::reply::Writer;
use super::scan::Args;
use super::subcommand;
use super::table::{COMMANDS, Spec, find};
use crate::error::Refusal;

/// Answers COMMAND and its subcommands.
pub fn command(reply: &mut Writer<'_>, args: Args<'_>) -> Result<(), Refusal> {
    let named = || args.from(2).map(find);
    let known = [("COUNT", 2), ("DOCS", -2), ("INFO", -2), ("LIST", -2)];
    let word = if args.len() == 1 { "INFO" } else { subcommand(args, &known)? };
    match (word, args.len()) {
        ("INFO", 1 | 2) => {
            reply.array(COMMANDS.len());
            COMMANDS.iter().for_each(|spec| info(reply, spec));
        }
        ("INFO", _) => {
            reply.array(args.len() - 2);
            for spec in named() {
                match spec {
                    Some(spec) => info(reply, spec),
                    None => reply.null(),
                }
            }
        }
        ("COUNT", _) => reply.count(COMMANDS.len()),
        ("DOCS", 2) => docs(reply, &COMMANDS.iter().collect::<Vec<_>>()),
        ("DOCS", _) => docs(reply, &named().flatten().collect::<Vec<_>>()),
        _ => {
            reply.array(COMMANDS.len());
            COMMANDS.iter().for_each(|spec| reply.bulk(spec.name.as_bytes()));
        }
    }
    Ok(())
}

/// Name, arity, flags, keys, then what only Redis has: categories, tips, key specifications, subcommands.
fn info(reply: &mut Writer<'_>, spec: &Spec) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.int(spec.arity.into());
    reply.set(spec.flags.len());
    spec.flags.iter().for_each(|flag| reply.simple(flag));
    let (first, last, step) = spec.keys;
    [first, last, step].into_iter().for_each(|position| reply.int(position.into()));
    (0..4).for_each(|_| reply.array(0));
}

fn docs(reply: &mut Writer<'_>, specs: &[&Spec]) {
    reply.map(specs.len());
    for spec in specs {
        reply.bulk(spec.name.as_bytes());
        reply.map(2);
        for (name, text) in [("summary", spec.summary), ("group", spec.group)] {
            reply.bulk(name.as_bytes());
            reply.bulk(text.as_bytes());
        }
    }
}
