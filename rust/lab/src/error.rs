//! What can go wrong in the laboratory. None of it says that a figure is bad: a run ends with a report or
//! with one of these.

use std::io;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The command line is not one.
    #[error("{0}")]
    Command(String),
    /// The peer or the transport under it ended the run.
    #[error("{what}: {source}")]
    Connection {
        /// What was being done.
        what: &'static str,
        /// What the transport says.
        source: io::Error,
    },
    /// A library that is found while running is not on this machine.
    #[error("{library} is missing: apt-get install {package} ({source})")]
    Library {
        /// The name that the loader was asked for.
        library: &'static str,
        /// Debian's package.
        package: &'static str,
        /// What the loader says.
        source: libloading::Error,
    },
    /// An option is out of range; nothing was started.
    #[error("{name}: {problem}")]
    Option {
        /// The option, as the JSON names it.
        name: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The run did not end by itself.
    #[error("the run was not over after {seconds} s")]
    Stuck {
        /// How long that was waited for.
        seconds: f64,
    },
    /// The system refuses what the laboratory needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl LabError {
    pub(crate) fn option(name: &'static str, problem: impl Into<String>) -> Self {
        LabError::Option { name, problem: problem.into() }
    }

    /// For `map_err`.
    pub(crate) fn connection(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| LabError::Connection { what, source }
    }

    /// For `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| LabError::System { what: what.into(), source: source.into() }
    }
}
