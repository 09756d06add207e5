//! What is wrong with an address as somebody has written it, and how it is written.

use std::error::Error;
use std::fmt;

/// Text that is no address: what is wrong with it, and what to write instead.
///
/// ```
/// use touchdown::Address;
///
/// let error = "50051".parse::<Address>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "\"50051\" is no address: it is a port without a host: write 127.0.0.1:50051 for callers on this machine, or \
///      0.0.0.0:50051 or [::]:50051 for all"
/// );
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    wrong: Wrong,
}

impl AddressError {
    pub(super) fn new(text: &str, wrong: Wrong) -> AddressError {
        let text = text.to_owned();
        AddressError { text, wrong }
    }

    /// The text, as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} is no address: {}", self.text, self.wrong)
    }
}

/// The same text: it is what a `main` prints that returns the error.
impl fmt::Debug for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Error for AddressError {}

/// What is wrong. Without the text itself, for errors that have named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Empty,
    Scheme {
        scheme: String,
        rest: String,
    },
    PortAlone(String),
    NoPort(String),
    Port {
        host: String,
        port: String,
    },
    NoBrackets {
        host: String,
        port: String,
    },
    Host(String),
    Path(String),
    NoPath,
    AbstractName,
    SystemdName,
    /// It is one to listen at, which only the start can tell.
    Systemd,
    /// A name, where a number is wanted.
    Name(String),
    /// What a client connects to needs no advice on where to listen.
    #[cfg(feature = "client")]
    ToConnect(Box<Wrong>),
}

/// For what has no port of its own.
const SOME_PORT: &str = "50051";

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Empty => formatter.write_str(
                "it is empty: write HOST:PORT, such as 127.0.0.1:50051, or unix:PATH",
            ),
            Wrong::Scheme { scheme, rest } => {
                let port = if rest.contains(':') { "" } else { ":50051" };
                write!(formatter, "it begins with {scheme}://, as a URL: write ")?;
                match rest.is_empty() {
                    true => formatter.write_str("HOST:PORT")?,
                    false => write!(formatter, "{rest}{port}")?,
                }
                match scheme.ends_with('s') {
                    true => formatter.write_str(" (TLS is a setting of the listener)"),
                    false => Ok(()),
                }
            }
            Wrong::PortAlone(port) => write!(
                formatter,
                "it is a port without a host: write 127.0.0.1:{port} for callers on this machine, or 0.0.0.0:{port} \
                 or [::]:{port} for all"
            ),
            Wrong::NoPort(host) => {
                write!(formatter, "it has no port: write {host}:{SOME_PORT}")
            }
            Wrong::Port { host, port } => write!(
                formatter,
                "its port is {port:?}, and must be a number up to 65535: write {host}:{SOME_PORT}"
            ),
            Wrong::NoBrackets { host, port } => write!(
                formatter,
                "an address of IPv6 stands in brackets: write [{host}]:{port}"
            ),
            Wrong::Host(host) => write!(
                formatter,
                "{host:?} is neither the name of a host nor an address of IPv4 or IPv6"
            ),
            Wrong::Path(path) => {
                write!(formatter, "a path has unix: before it: write unix:{path}")
            }
            Wrong::NoPath => formatter.write_str("a path must follow unix:"),
            Wrong::AbstractName => {
                formatter.write_str("a name without zero bytes must follow unix-abstract:")
            }
            Wrong::SystemdName => formatter.write_str(
                "a name must follow systemd: (FileDescriptorName= in the unit of the socket)",
            ),
            Wrong::Systemd => formatter
                .write_str("which sockets systemd passes is known at the start: give it to Listen"),
            Wrong::Name(host) => write!(
                formatter,
                "{host} is a name, which may stand for several addresses: give it to Listen, which looks it up"
            ),
            #[cfg(feature = "client")]
            Wrong::ToConnect(wrong) => match &**wrong {
                Wrong::PortAlone(port) => {
                    write!(formatter, "it is a port without a host: write localhost:{port}")
                }
                Wrong::Systemd => formatter.write_str("systemd: is for servers: write HOST:PORT or unix:PATH"),
                wrong => wrong.fmt(formatter),
            },
        }
    }
}

impl Error for Wrong {}
