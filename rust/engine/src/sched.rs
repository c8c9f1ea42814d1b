//! How the kernel schedules a thread. The reactor asks for a short slice: it runs for microseconds at a time,
//! and on a box with fewer cores than work the slice decides whether it waits behind a thread that computes.
//!
//! Source: sched_setattr(2); "EEVDF" and custom slices, Linux 6.12.

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
            && attr.policy == 0
        {
            change(&mut attr);
            libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attr, 0);
        }
    }
}
