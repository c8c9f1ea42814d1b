//! The RESP commands on any number of keys. Many keys are done in steps, between which other clients are
//! served; the request stays where it is until then. Other clients may see some keys done and others not.

use super::scan::Args;
use super::strings::{body, write_value};
use super::{Context, Next};
use crate::error::Refusal;
use crate::job::Job;
use crate::replica::{Condition, Lifetime};
use crate::store::PREFETCH;

/// Keys done in a step, and so those of a request that is done at once: some tens of microseconds.
const STEP: usize = 256;
/// About how long each key takes beyond the first.
const KEY_NS: u64 = 250;
/// Keys checked in a step.
const CHECK_STEP: usize = 4 * STEP;

/// What is done to each key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    Count,
    Delete,
    Get,
    Set,
}

/// A command on many keys under way.
#[derive(Debug)]
pub struct Many {
    action: Action,
    /// The next argument to be checked: what may be refused is checked whole before anything is written.
    checked: usize,
    /// The next argument to be done.
    at: usize,
    /// How many keys there were.
    found: usize,
}

pub(super) fn exists(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    begin(Action::Count, context, args)
}

pub(super) fn del(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    begin(Action::Delete, context, args)
}

pub(super) fn mget(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    context.reply().array(args.len() - 1);
    begin(Action::Get, context, args)
}

pub(super) fn mset(context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    if args.len().is_multiple_of(2) {
        return Err(Refusal::Syntax("wrong number of arguments for 'mset' command".into()));
    }
    begin(Action::Set, context, args)
}

fn begin(action: Action, context: &mut Context<'_>, args: Args<'_>) -> Result<Next, Refusal> {
    let mut many = Many { action, checked: 1, at: 1, found: 0 };
    Ok(if many.step(context, args)? { Next::Done } else { Next::Job(Job::Many(many)) })
}

impl Many {
    /// Does one step of the command with these arguments; returns whether it is done.
    ///
    /// # Errors
    /// Nothing changed, unless the refusal says so.
    pub fn step(&mut self, context: &mut Context<'_>, args: Args<'_>) -> Result<bool, Refusal> {
        if !self.check(context, args)? {
            return Ok(false);
        }
        let stride = self.stride();
        let end = args.len().min(self.at + STEP * stride);
        while self.at < end {
            if context.out.len() > context.replica.limits().output_max {
                return Ok(false);
            }
            let some = end.min(self.at + PREFETCH * stride);
            // Many keys wait for memory less long if all of them are fetched at once; a few do not.
            if some - self.at == PREFETCH * stride {
                let keys: [&[u8]; PREFETCH] =
                    std::array::from_fn(|index| args.bytes(self.at + index * stride));
                context.replica.store().prefetch(&keys);
            }
            while self.at < some {
                context.work_ns += if self.at == 1 { 0 } else { KEY_NS };
                self.run(context, args).map_err(|refusal| self.half_way(refusal, args))?;
                self.at += stride;
            }
        }
        if end < args.len() {
            return Ok(false);
        }
        match self.action {
            Action::Count | Action::Delete => context.reply().count(self.found),
            Action::Get => {}
            Action::Set => context.reply().ok(),
        }
        Ok(true)
    }

    /// How many arguments belong to a key.
    fn stride(&self) -> usize {
        if self.action == Action::Set { 2 } else { 1 }
    }

    /// Checks some of the keys that are to be written; returns whether all of them are checked.
    fn check(&mut self, context: &Context<'_>, args: Args<'_>) -> Result<bool, Refusal> {
        if matches!(self.action, Action::Count | Action::Get) || self.checked == args.len() {
            return Ok(true);
        }
        let stride = self.stride();
        let end = args.len().min(self.checked + CHECK_STEP * stride);
        for index in (self.checked..end).step_by(stride) {
            let key = args.bytes(index);
            context.replica.check_key(key)?;
            if self.action == Action::Set && context.replica.is_immutable(key) {
                context.replica.check_immutable(
                    key,
                    &body(context.replica, args.arg(index + 1))?,
                    context.now_ms,
                )?;
            }
        }
        self.checked = end;
        Ok(end == args.len())
    }

    /// Does what is to be done to the next key.
    fn run(&mut self, context: &mut Context<'_>, args: Args<'_>) -> Result<(), Refusal> {
        let (replica, now_ms, key) = (context.replica, context.now_ms, args.bytes(self.at));
        match self.action {
            Action::Count => self.found += usize::from(replica.get(key, now_ms, |view| view.is_some())),
            Action::Delete => {
                self.found += usize::from(replica.delete(key, Condition::Always, now_ms)?.is_some());
            }
            Action::Get => replica.get(key, now_ms, |view| write_value(&mut context.reply(), view)),
            Action::Set => {
                let value = body(replica, args.arg(self.at + 1))?;
                replica.put(key, value, Lifetime::Keyspace, Condition::Always, now_ms)?;
            }
        }
        Ok(())
    }

    fn half_way(&self, refusal: Refusal, args: Args<'_>) -> Refusal {
        let (done, total) = ((self.at - 1) / self.stride(), (args.len() - 1) / self.stride());
        if done == 0 { refusal } else { Refusal::Partly { done, total, why: Box::new(refusal) } }
    }
}
