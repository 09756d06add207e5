//! A server that is started when its program is stopping already, or whose companion fails: nothing of it is left.
//!
//! Alone in its file, since it counts the threads of the process.
#![cfg(feature = "client")]

mod common;
#[allow(dead_code)]
mod thread_support;

use std::error::Error;
use std::net::TcpListener;
use std::process;

use common::*;
use thread_support::threads;
use touchdown::lifecycle::{exit_code, Lifecycle, Phase};
use touchdown::{Companion, Server, ServerBuilder, StartError};

/// An address that was free a moment ago.
fn free_address() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

fn server_at(address: &str) -> ServerBuilder {
    Server::builder().address(address).service(echo())
}

/// The lifecycle of a program that says goodbye for a long time.
fn lifecycle() -> Lifecycle {
    let plan = quick_plan().with_lame_duck(LONG);
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle
}

/// Nobody listens there, and no thread of a server is left.
fn assert_nothing_is_left(address: &str) {
    TcpListener::bind(address).unwrap();
    for name in ["td-accept", "td-worker"] {
        eventually("its threads have ended", || {
            threads(process::id(), name).is_empty()
        });
    }
}

/// The end of this program is not waited for.
fn end(lifecycle: &Lifecycle) {
    lifecycle.hurry();
    let report = lifecycle.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

/// Begins a stop before the server listens, as somebody else might at that moment.
struct Stops;

impl Companion for Stops {
    fn begin(&mut self, lifecycle: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
        lifecycle.shutdown("by a companion");
        eventually("it says goodbye", || lifecycle.phase() == Phase::LameDuck);
        Ok(())
    }
}

/// Does not take to the server.
struct Fails;

impl Companion for Fails {
    fn started(self: Box<Self>, server: &Server) -> Result<(), Box<dyn Error + Send + Sync>> {
        assert_eq!(server.connections(), 0);
        Err("the disk is full".into())
    }
}

#[test]
fn a_server_that_does_not_start_leaves_nothing() {
    let address = free_address();

    let program = lifecycle();
    program.shutdown("test");
    eventually("it says goodbye", || program.phase() == Phase::LameDuck);
    let error = server_at(&address).start_with(&program).unwrap_err();
    assert!(matches!(error, StartError::TooLate), "{error:?}");
    assert_nothing_is_left(&address);
    end(&program);

    let program = lifecycle();
    let error = server_at(&address).companion(Stops).start_with(&program);
    assert!(matches!(error, Err(StartError::TooLate)), "{error:?}");
    assert_nothing_is_left(&address);
    end(&program);

    let program = lifecycle();
    let error = server_at(&address).companion(Fails).start_with(&program);
    assert_eq!(error.unwrap_err().to_string(), "the disk is full");
    assert_nothing_is_left(&address);
    assert_eq!(program.phase(), Phase::Serving);
    program.shutdown("test");
    end(&program);

    let error = server_at(&address).companion(Fails).start().unwrap_err();
    assert!(matches!(error, StartError::Companion(_)), "{error:?}");
    assert_nothing_is_left(&address);

    // A companion that could not start a server says why, as that server would.
    struct Beside(String);
    impl Companion for Beside {
        fn begin(&mut self, lifecycle: &Lifecycle) -> Result<(), Box<dyn Error + Send + Sync>> {
            server_at(&self.0).beside(lifecycle).start()?;
            Ok(())
        }
    }
    let taken = TcpListener::bind(&address).unwrap();
    let builder = server_at("127.0.0.1:0").companion(Beside(address.clone()));
    let error = builder.start().unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    drop(taken);
    assert_nothing_is_left(&address);

    let server = server_at(&address).start().unwrap();
    assert_eq!(say(&client(&server), "hello").unwrap(), "hello");
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
}
