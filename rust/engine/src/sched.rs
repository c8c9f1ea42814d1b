//! How the kernel schedules a thread. The reactor asks for a short slice: it runs for microseconds at a time,
//! and on a box with fewer cores than work the slice decides whether it waits behind a thread that computes.
//!
//! Source: sched(7), sched_setattr(2); "EEVDF" and custom slices, Linux 6.12.

/// How long the reactor asks to run at a time. The kernel takes 0.1 ms to 100 ms.
const SLICE_NS: u64 = 100_000;

/// The first version of the kernel's structure.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The nice value that gives way to everybody.
const NICENESS: i32 = 19;

/// The policies of threads that share processors by weight: of these, one that runs in batches does not take
/// the processor from another as it wakes up.
const OTHER: u32 = 0;
const BATCH: u32 = 3;

/// Has this thread wait, as it wakes up, until others have had their slice; or not any more.
pub fn run_in_batches(yes: bool) {
    change(|attr| attr.policy = if yes { BATCH } else { OTHER });
}

/// Asks for the slice, for this thread. A kernel that knows no slices refuses, and nothing is lost.
pub fn ask_for_short_slice() {
    change(|attr| attr.runtime = SLICE_NS);
}

/// Has this thread run when no other wants to, or nearly so.
pub fn give_way() {
    change(|attr| attr.nice = NICENESS);
}

/// Changes how this thread is scheduled, if it is scheduled in the usual way (`SCHED_OTHER`).
fn change(change: impl FnOnce(&mut SchedAttr)) {
    let mut attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..SchedAttr::default() };
    // SAFETY: both calls only read or write this structure, whose size they are told.
    unsafe {
        let this_thread = 0;
        if libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attr, attr.size, 0) == 0
            && matches!(attr.policy, OTHER | BATCH)
        {
            change(&mut attr);
            libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attr, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_in_batches_until_it_does_not() {
        // SAFETY: it reads no memory of ours.
        let policy = || unsafe { libc::sched_getscheduler(0) } as u32;
        let before = policy();
        run_in_batches(true);
        let batches = policy();
        run_in_batches(false);
        // Whoever runs the tests may have chosen another policy, which is left alone.
        let ours = matches!(before, OTHER | BATCH);
        assert_eq!((batches, policy()), if ours { (BATCH, OTHER) } else { (before, before) });
    }
}
