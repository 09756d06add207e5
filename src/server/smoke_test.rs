//! Whether a server works that is to replace another: shown before it accepts a connection.

use std::error::Error;
use std::time::{Duration, Instant};

use protobuf::well_known_types::wrappers::{StringValue, UInt32Value};

use crate::calls::Runner;
use crate::client::{deadline, Channel, Client};
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

/// Has the server answer a health check over a connection of its own, then runs the program's test on
/// that connection.
pub(super) fn run(
    engine: &Runner,
    health: &Health,
    stopping: &Token,
    of_program: Option<SmokeTest>,
) -> Result<(), String> {
    let socket = engine.connect().map_err(|error| error.to_string())?;
    let channel = Channel::over(socket).map_err(|error| error.to_string())?;
    let client = Client::new(&channel);
    // The messages of grpc.health.v1 look like these on the wire.
    let (server_as_a_whole, options) = (StringValue::new(), deadline(CHECK_TIME));
    let check = "/grpc.health.v1.Health/Check";
    client
        .unary::<_, UInt32Value>(check, &server_as_a_whole, options)
        .map_err(|status| format!("health check: {status}"))?;
    // What was answered is NOT_SERVING until Serving begins, so the program is asked itself.
    let limit = Instant::now() + HEALTHY_WITHIN;
    while health.is_denied("") {
        if Instant::now() >= limit {
            let time = HEALTHY_WITHIN;
            return Err(format!(
                "the program says NOT_SERVING of itself for {time:?}"
            ));
        }
        if stopping.wait_timeout(ASKED_EVERY) {
            return Err("the program is stopping".to_owned());
        }
    }
    match of_program {
        Some(test) => test(&channel).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}
