//! What can go wrong with a run. None of it says that a figure is bad: a run ends with a report or with one
//! of these.

use std::io;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The server's reply is none of the protocol, so that where the next one begins is unknown.
    #[error("the server does not speak {protocol}: its reply began {reply:?}")]
    Broken {
        /// The protocol that was asked for.
        protocol: &'static str,
        /// What came, up to a line's length.
        reply: String,
    },
    /// The server ended a connection that it owed replies.
    #[error("the server at {address} closed a connection; it had complained of: {said}")]
    Closed {
        /// Where the server is.
        address: String,
        /// The first error that it answered in this stage of the run.
        said: String,
    },
    /// The server cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where the server should be.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// An option is out of range; nothing was sent.
    #[error("{name}: {problem}")]
    Option {
        /// The option, as [`crate::Options`] names it.
        name: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The server refuses what must work before anything can be measured.
    #[error("the server refuses {what}: {reply:?}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What it answered.
        reply: String,
    },
    /// The server owes replies and has sent nothing for long.
    #[error("the server at {address} has sent nothing for {seconds} s")]
    Stalled {
        /// Where the server is.
        address: String,
        /// How long that was waited for.
        seconds: u64,
    },
    /// The run was stopped by [`crate::Progress::stop`].
    #[error("the run was stopped")]
    Stopped,
    /// The system refuses what a load generator needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The thread that asks ended without a result: a bug in this crate.
    #[error("the load generator's thread panicked")]
    Panicked,
}

impl LoadError {
    pub(crate) fn option(name: &'static str, problem: impl Into<String>) -> Self {
        LoadError::Option { name, problem: problem.into() }
    }

    /// For `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| LoadError::System { what: what.into(), source: source.into() }
    }
}
