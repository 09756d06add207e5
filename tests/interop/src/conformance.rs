//! What the clients of `tests/foreign` try out beyond the published tests; see `proto/conformance.proto`.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use touchdown::protobuf::MessageField;
use touchdown::{Call, Code, MetadataError, Replies, Requests, Service, Status};

use crate::protos::conformance::{
    conformance_service, Conformance, Ending, Entry, Observation, ObserveRequest, Reply, Request,
};

/// A call that does not get there in this time never will.
const OBSERVE_LIMIT: Duration = Duration::from_secs(20);

/// The service.
pub fn service() -> Service {
    conformance_service(Obliging::default())
}

#[derive(Default)]
struct Obliging {
    /// By `call-id`: `None` while the handler waits, then how it saw the call end.
    calls: Mutex<HashMap<String, Option<Code>>>,
    changed: Condvar,
}

impl Conformance for Obliging {
    fn unary(&self, call: &Call, request: Request) -> Result<Reply, Status> {
        echo_metadata(call)?;
        if request.wait {
            return Err(self.wait(call));
        }
        end(&request.ending)?;
        Ok(reply(call, request.body.len(), &request))
    }

    fn server_streaming(
        &self,
        call: &Call,
        request: Request,
        replies: Replies<Reply>,
    ) -> Result<(), Status> {
        echo_metadata(call)?;
        for _ in 0..request.replies {
            replies.send(&reply(call, request.body.len(), &request))?;
        }
        if request.wait {
            return Err(self.wait(call));
        }
        end(&request.ending)
    }

    fn client_streaming(&self, call: &Call, requests: Requests<Request>) -> Result<Reply, Status> {
        echo_metadata(call)?;
        let (mut received, mut last) = (0, Request::new());
        self.each(call, requests, |request| {
            received += request.body.len();
            last = request;
            Ok(())
        })?;
        end(&last.ending)?;
        Ok(reply(call, received, &last))
    }

    fn bidirectional(
        &self,
        call: &Call,
        requests: Requests<Request>,
        replies: Replies<Reply>,
    ) -> Result<(), Status> {
        echo_metadata(call)?;
        let mut received = 0;
        self.each(call, requests, |request| {
            received += request.body.len();
            end(&request.ending)?;
            replies.send(&reply(call, received, &request))
        })
    }

    fn observe(&self, _: &Call, request: ObserveRequest) -> Result<Observation, Status> {
        let there = |call: Option<&Option<Code>>| match call {
            Some(None) => request.until_waiting,
            Some(Some(_)) => true,
            None => false,
        };
        let calls = self.calls.lock().unwrap();
        let (calls, _) = self
            .changed
            .wait_timeout_while(calls, OBSERVE_LIMIT, |calls| {
                !there(calls.get(&request.call_id))
            })
            .unwrap();
        match calls.get(&request.call_id) {
            call if !there(call) => Err(Status::not_found("the call is not there yet")),
            Some(Some(code)) => Ok(Observation {
                end: code.as_str().to_owned(),
                ..Default::default()
            }),
            _ => Ok(Observation::new()),
        }
    }
}

impl Obliging {
    /// Waits on the call's token, as a handler does that has nothing to read.
    fn wait(&self, call: &Call) -> Status {
        self.note(call, None);
        call.token().wait();
        let status = match call.time_remaining() {
            Some(Duration::ZERO) => Status::deadline_exceeded("the deadline has passed"),
            _ => Status::cancelled("the caller left"),
        };
        self.note(call, Some(status.code()));
        status
    }

    /// Reads on until there is no more, which is how a handler waits that reads. A caller may have
    /// ended its requests just before it cancelled, as Node's does; then this goes on waiting.
    fn each(
        &self,
        call: &Call,
        requests: Requests<Request>,
        mut with: impl FnMut(Request) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut waits = false;
        for request in requests {
            let request = request.inspect_err(|status| self.note(call, Some(status.code())))?;
            waits = request.wait;
            with(request)?;
            if waits {
                self.note(call, None);
            }
        }
        match waits {
            true => Err(self.wait(call)),
            false => Ok(()),
        }
    }

    fn note(&self, call: &Call, seen: Option<Code>) {
        if let Some(id) = call.metadata().get("call-id") {
            self.calls.lock().unwrap().insert(id.to_owned(), seen);
            self.changed.notify_all();
        }
    }
}

fn reply(call: &Call, received: usize, request: &Request) -> Reply {
    let time_remaining = call.time_remaining().unwrap_or_default();
    Reply {
        received: received as u64,
        body: vec![b'x'; request.reply_size as usize],
        metadata: call.metadata().iter().map(entry).collect(),
        time_remaining_ms: time_remaining.as_millis() as u64,
        ..Default::default()
    }
}

fn entry((name, value): (&str, &[u8])) -> Entry {
    Entry {
        name: name.to_owned(),
        value: value.to_vec(),
        ..Default::default()
    }
}

fn echo_metadata(call: &Call) -> Result<(), Status> {
    let cannot = |error: MetadataError| Status::internal(error.to_string());
    for (name, value) in call.metadata().iter() {
        if name.starts_with("header-") {
            call.set_header(name, value).map_err(cannot)?;
        } else if name.starts_with("trailer-") {
            call.set_trailer(name, value).map_err(cannot)?;
        }
    }
    Ok(())
}

fn end(ending: &MessageField<Ending>) -> Result<(), Status> {
    match ending.as_ref() {
        Some(it) if it.code != 0 => {
            Err(Status::new(Code::from_number(it.code), it.message.clone())
                .with_details(it.details.clone()))
        }
        _ => Ok(()),
    }
}
