//! A board's daemon: it says for how long the board has been up.
//!
//! SIGTERM stops it, SIGUSR2 replaces it by the program that lies at its path by then. Neither costs a call.

touchdown::include_protos!();

use std::time::Duration;
use std::{env, fs, process};

use board::{board_service, Board, GetStateRequest, State};
use touchdown::lifecycle::Report;
use touchdown::{Call, Server, Status};

struct Linux;

impl Board for Linux {
    fn get_state(&self, call: &Call, request: GetStateRequest) -> Result<State, Status> {
        let think = Duration::from_millis(request.think_ms.into());
        if !think.is_zero() && call.token().wait_timeout(think) {
            return Err(Status::cancelled("nobody waits for this any more"));
        }
        let text = fs::read_to_string("/proc/uptime")
            .map_err(|error| Status::unavailable(format!("/proc/uptime: {error}")))?;
        let uptime = text
            .split_whitespace()
            .next()
            .and_then(|it| it.parse().ok());
        Ok(State {
            uptime_seconds: uptime.ok_or(Status::internal("/proc/uptime has no number"))?,
            process: process::id(),
            ..Default::default()
        })
    }
}

fn main() -> Report {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    let address = env::args().nth(1).unwrap_or("127.0.0.1:50051".to_owned());
    Server::builder()
        .address(address)
        .service(board_service(Linux))
        .serve()
}
