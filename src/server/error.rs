//! Why a server did not start.

use std::error::Error;
use std::fmt;
use std::io;

use super::method_name::UnknownMethod;
use crate::lifecycle::BuildError;

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// No address was given: call [`ServerBuilder::address`](super::ServerBuilder::address)(super::ServerBuilder::address).
    NoAddress,
    /// The address cannot be listened at: it is no address, it is in use, or it is not this
    /// machine's.
    Listen {
        /// As it was given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// A setting has a value that makes no sense.
    Setting {
        /// The name of the builder's function.
        setting: &'static str,
        /// The value.
        value: String,
        /// What would make sense.
        expected: &'static str,
    },
    /// Two services have this method.
    DuplicateMethod(String),
    /// Something was set for a method that its service does not have.
    UnknownMethod(UnknownMethod),
    /// The plan, the hooks or the signals are at fault.
    Lifecycle(BuildError),
    /// A start-up hook failed, panicked or overran: which, and how.
    Startup(String),
    /// The lifecycle is stopping, so nothing new is started.
    TooLate,
    /// A thread or a descriptor could not be had.
    Engine(io::Error),
    /// A [companion](super::Companion) did not start, or did not take to the server.
    Companion(Box<dyn Error + Send + Sync>),
}

impl StartError {
    /// If what a companion could not start was a server, it is that one's error.
    pub(super) fn of_companion(error: Box<dyn Error + Send + Sync>) -> StartError {
        match error.downcast::<StartError>() {
            Ok(error) => *error,
            Err(error) => StartError::Companion(error),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoAddress => {
                formatter.write_str("no address to listen at: call ServerBuilder::address")
            }
            StartError::Listen { address, source } => {
                write!(formatter, "cannot listen at {address}: {source}")
            }
            StartError::Setting {
                setting,
                value,
                expected,
            } => write!(formatter, "{setting} is {value}, and must be {expected}"),
            StartError::DuplicateMethod(path) => {
                write!(formatter, "two services have the method {path}")
            }
            StartError::UnknownMethod(unknown) => unknown.fmt(formatter),
            StartError::Lifecycle(error) => error.fmt(formatter),
            StartError::Startup(why) => formatter.write_str(why),
            StartError::TooLate => formatter.write_str("the program is stopping already"),
            StartError::Engine(error) => write!(formatter, "the server cannot start: {error}"),
            StartError::Companion(error) => error.fmt(formatter),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Listen { source, .. } | StartError::Engine(source) => Some(source),
            StartError::Lifecycle(error) => Some(error),
            _ => None,
        }
    }
}
