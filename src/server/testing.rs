//! Testing a service: a server for one test, which stops soon, by a signal if the test wants one.
//!
//! docs/testing.md shows how to write such tests.

use std::fmt;
use std::ops::Deref;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(feature = "client")]
use crate::client::{Channel, Client};
use crate::lifecycle::{Plan, Report, SignalSender};

use super::builder::ServerBuilder;
use super::error::StartError;
use super::handle::{Server, ServerHandle};

/// A server for one test. It derefs to its [handle](ServerHandle).
///
/// ```
/// use touchdown::lifecycle::exit_code;
/// use touchdown::testing::TestServer;
/// use touchdown::{Server, Service};
///
/// let nothing = Service::builder("demo.Nothing").build();
/// let server = TestServer::start(Server::builder().service(nothing))?;
/// assert_eq!(server.in_flight(), 0);
/// assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
/// # Ok::<(), touchdown::StartError>(())
/// ```
///
/// A test that fails drops it: then calls in flight are told to stop at once, and nothing is waited for.
#[must_use = "dropping it stops the server"]
pub struct TestServer {
    server: Server,
    signals: SignalSender,
}

impl TestServer {
    /// Starts what a program would serve.
    ///
    /// | | |
    /// |---|---|
    /// | address | what the builder has; else 127.0.0.1 and a port that is free |
    /// | lifecycle | what the builder has; else one with this [`plan`] |
    /// | signals | those that the test [sends](Self::signal), whatever the builder has: no test hears those of the process |
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::start`].
    pub fn start(builder: ServerBuilder) -> Result<TestServer, StartError> {
        let (builder, signals) = builder.for_a_test("127.0.0.1:0", plan());
        let server = builder.start()?;
        Ok(TestServer { server, signals })
    }

    /// A client, on a connection of its own. Stubs are made of it: `GreeterClient::from(server.client())`.
    #[cfg(feature = "client")]
    pub fn client(&self) -> Client {
        Client::new(&self.channel())
    }

    /// A channel to the first address, with a connection of its own. Stubs are made on it:
    /// `GreeterClient::new(&server.channel())`.
    #[cfg(feature = "client")]
    pub fn channel(&self) -> Channel {
        channel_to(&self.address().to_string())
    }

    /// Does what this signal of the process would do: 15 is TERM, which stops the server, 1 is HUP, which
    /// has it reload.
    pub fn signal(&self, number: i32) {
        self.signals.send(number);
    }

    /// Stops it as a program is stopped, by TERM, and waits for the end.
    pub fn stop(self) -> Report {
        self.signal(15);
        self.wait()
    }

    /// Waits for the end of a stop that the test, or the service, has begun.
    pub fn wait(self) -> Report {
        self.lifecycle().wait()
    }
}

impl Deref for TestServer {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.server
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Does nothing after its end.
        self.lifecycle().hurry();
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("TestServer")
            .field(&self.server)
            .finish()
    }
}

#[cfg(feature = "client")]
fn channel_to(address: &str) -> Channel {
    let builder = Channel::builder().own_connection().threads(1);
    builder
        .connect(address)
        .expect("a server listens at addresses that can be read")
}

/// A plan for tests: one that goes wrong ends soon, and a machine that is busy is no reason to fail. 5 s for the grace
/// period, 1 s for the force period, 5 s to close.
pub fn plan() -> Plan {
    Plan::new()
        .with_grace_period(Duration::from_secs(5))
        .with_force_period(Duration::from_secs(1))
        .with_closing(Duration::from_secs(5))
}

/// The address of a unix socket that nobody else has, for a service that looks at
/// [credentials](super::Call::peer_credentials). It is an abstract one, so it leaves no file behind. It is another each time.
pub fn unix_address() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("unix-abstract:touchdown-test-{}-{number}", process::id())
}
