//! Whether a server works that is to replace another: shown before it accepts a connection.

use std::error::Error;
use std::time::{Duration, Instant};

use protobuf::well_known_types::wrappers::{StringValue, UInt32Value};

use crate::calls::Runner;
use crate::client::{CallOptions, Channel, Client};
use crate::lifecycle::Token;

use super::health::Health;

/// What the program tests by itself.
pub(super) type SmokeTest =
    Box<dyn FnOnce(&Channel) -> Result<(), Box<dyn Error + Send + Sync>> + Send>;

/// How long the answer to one health check may take: what needs longer is in trouble.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// How long a program may take to find itself healthy, and how often to ask.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// Why a program may never be found fit, and no other reason than its own word.
const NOT_HEALTHY: &str = "the program says NOT_SERVING of itself (Health::set with the empty name, or Health::require). If that waits for \
    something that only the process in charge can have, say it of services by their names, or once it is in charge";

/// Has the server answer a health check over a connection of its own, then runs the program's test on
/// that connection.
pub(super) fn run(
    engine: &Runner,
    health: &Health,
    stopping: &Token,
    waits: &dyn Fn(&str),
    of_program: Option<SmokeTest>,
) -> Result<(), String> {
    let socket = engine.connect().map_err(|error| error.to_string())?;
    let channel = Channel::over(socket).map_err(|error| error.to_string())?;
    let client = Client::new(&channel);
    // The messages of grpc.health.v1 look like these on the wire.
    let (server_as_a_whole, options) = (StringValue::new(), CallOptions::new().timeout(CHECK_TIME));
    let check = "/grpc.health.v1.Health/Check";
    client
        .unary::<_, UInt32Value>(check, &server_as_a_whole, options)
        .map_err(|status| format!("health check: {status}"))?;
    // What was answered is NOT_SERVING until Serving begins, so the program is asked itself.
    let limit = Instant::now() + HEALTHY_WITHIN;
    if health.is_denied("") {
        waits(NOT_HEALTHY);
    }
    while health.is_denied("") {
        if Instant::now() >= limit {
            let time = HEALTHY_WITHIN;
            return Err(format!("{NOT_HEALTHY}, for {time:?}"));
        }
        if stopping.wait_timeout(ASKED_EVERY) {
            return Err("the program is stopping".to_owned());
        }
    }
    match of_program {
        Some(test) => {
            waits("the program's own smoke test has not come to its end");
            test(&channel).map_err(|error| error.to_string())
        }
        None => Ok(()),
    }
}
