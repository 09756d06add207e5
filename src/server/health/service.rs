//! The calls of `grpc.health.v1.Health`.

use std::sync::Arc;
use std::time::Duration;

use protobuf::{EnumOrUnknown, Message as Protobuf};

use crate::calls::{self, Handled, Message};
use crate::logging;

use super::super::codec::{decode, encode};
use super::super::outcome::Outcome;
use super::super::service::{DrainPolicy, Method, Service};
use super::super::status::Status;
use super::super::stream::{ending, why_ended};
use super::board::{self, End, State, Stream};

use self::messages::health::health_check_response::ServingStatus as Wire;
use self::messages::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

/// Generated from proto/health.proto; see build.rs.
#[allow(clippy::all, dead_code, missing_docs, unused)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/health/mod.rs"));
}

pub(crate) const NAME: &str = "grpc.health.v1.Health";

/// The longest request, in bytes. Watchers' are kept; a path with a longer name could not be called.
const LONGEST: usize = 4 << 10;

/// How many services a reply to `List` may name: see "List" in
/// [health.proto](https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto).
const MOST_LISTED: usize = 100;

pub(crate) type Board = board::Board<WatchStream>;

/// The service, answered from a board.
pub(crate) fn service(board: &Arc<Board>) -> Service {
    let (check, list, watch) = (Arc::clone(board), Arc::clone(board), Arc::clone(board));
    Service {
        name: NAME,
        interceptors: Vec::new(),
        unknown: None,
        methods: vec![
            method("Check", false, move |_, message| {
                let request: HealthCheckRequest = read(message)?;
                match check.state(&request.service) {
                    State::Unknown => Err(Status::not_found("no such service is known here")),
                    state => Ok(Outcome::Reply(encode(&response(state))?)),
                }
            }),
            method("List", false, move |_, message| {
                let _: HealthListRequest = read(message)?;
                Ok(Outcome::Reply(encode(&statuses(&list)?)?))
            }),
            method("Watch", true, move |call, message| {
                let request: HealthCheckRequest = read(message)?;
                let stream = WatchStream(Arc::clone(call));
                watch.watch(request.service, stream, |it| it.look_out(&watch));
                Ok(Outcome::Later)
            }),
        ],
    }
}

fn method(
    name: &'static str,
    streaming_response: bool,
    run: impl Fn(&Arc<calls::Call>, Option<Message>) -> Result<Outcome, Status> + Send + Sync + 'static,
) -> Method {
    Method {
        name,
        streaming_request: false,
        streaming_response,
        prompt: true,
        policy: DrainPolicy::default(),
        minimum: Duration::ZERO,
        interceptors: Arc::default(),
        run: Arc::new(move |call, message, _| {
            run(&call.core, message).unwrap_or_else(Outcome::Failed)
        }),
    }
}

fn read<Q: Protobuf>(message: Option<Message>) -> Result<Q, Status> {
    let message = message.ok_or_else(|| Status::internal("the request has no message"))?;
    decode(&message, LONGEST)
}

fn response(state: State) -> HealthCheckResponse {
    let status = match state {
        State::Serving => Wire::SERVING,
        State::NotServing => Wire::NOT_SERVING,
        State::Unknown => Wire::SERVICE_UNKNOWN,
    };
    HealthCheckResponse {
        status: EnumOrUnknown::new(status),
        ..Default::default()
    }
}

fn statuses(board: &Board) -> Result<HealthListResponse, Status> {
    let services = board.services();
    if services.len() > MOST_LISTED {
        return Err(Status::resource_exhausted(format!(
            "{} services are known here, and a list has {MOST_LISTED} at the most: check them by name",
            services.len()
        )));
    }
    let mut list = HealthListResponse::new();
    for service in services {
        let state = board.state(&service);
        list.statuses.insert(service, response(state));
    }
    Ok(list)
}

/// The call of somebody who watches.
pub(crate) struct WatchStream(Arc<calls::Call>);

impl WatchStream {
    /// The board is told when the caller leaves.
    fn look_out(&self, board: &Arc<Board>) {
        let (board, key) = (Arc::downgrade(board), self.key());
        self.0.on_cancel(move || {
            if let Some(board) = board.upgrade() {
                board.left(key);
            }
        });
    }
}

impl Stream for WatchStream {
    fn key(&self) -> usize {
        key_of(&self.0)
    }

    fn peer(&self) -> String {
        self.0.peer()
    }

    fn is_sending(&self) -> bool {
        self.0.is_sending()
    }

    fn send(&self, state: State) {
        match encode(&response(state)) {
            // Should the call be over, `left` is on its way.
            Ok(message) => drop(self.0.send_and_tell(message)),
            Err(status) => logging::error!("{}: {status}", self.0.path()),
        }
    }

    fn end(&self, last: Option<State>, end: End) {
        let status = match end {
            End::Over => Status::ok(),
            End::Left => why_ended(&self.0),
            End::TooMany => Status::resource_exhausted("too many watch this server"),
        };
        let message = last.and_then(|state| encode(&response(state)).ok());
        self.0.finish(message, ending(&status), Handled::Yes);
    }
}

/// What a board knows the call by.
pub(crate) fn key_of(call: &Arc<calls::Call>) -> usize {
    Arc::as_ptr(call).cast::<()>().addr()
}
