//! What a process of the laboratory arranges with the system: how it ends, and when it computes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::error::LabError;

/// Ends this process when the one that started it ends: nothing of a benchmark outlives it.
pub fn end_with_parent() -> Result<(), LabError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(LabError::system("PR_SET_PDEATHSIG"))
}

/// A descriptor that is readable once SIGTERM or SIGINT has come; they do nothing else from now on. To be
/// called before any other thread starts.
pub fn ending() -> Result<OwnedFd, LabError> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` makes the set, and nothing reads it before; each call is given valid pointers. A
    // descriptor that is not negative is new and nobody else's.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        let descriptor = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(LabError::system("signalfd")(io::Error::last_os_error()));
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Lets this thread run before all ordinary ones: a link must not wait for those that it joins.
pub fn run_first() -> Result<(), LabError> {
    let priority = libc::sched_param { sched_priority: 10 };
    // SAFETY: the parameter is valid for the call; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) } < 0 {
        return Err(LabError::system("SCHED_FIFO")(io::Error::last_os_error()));
    }
    Ok(())
}

/// Ends the process at once, without what a foreign library would do at exit: libudt waits for its peers.
pub fn leave(code: i32) -> ! {
    // SAFETY: it takes any number and does not return.
    unsafe { libc::_exit(code) }
}
