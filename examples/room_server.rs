//! A room in which everybody hears everybody. Any number of visitors may sit there and say nothing: none of them needs a
//! thread, as the handlers return at once and leave word of what is to be done with what is said.
//!
//!     cargo run --example room_server -- 127.0.0.1:50051
//!
//! `greeter_server.rs` has streams whose handlers block, for streams that are few or short.

mod arguments;
touchdown::include_protos!();

use std::sync::{Arc, Mutex};

use room::{room_service, Line, Minutes, Room};
use touchdown::lifecycle::Report;
use touchdown::{
    Call, Replies, Requests, Server, Status, StreamHandler, StreamReplies, TrySendError,
    UploadHandler,
};

const USAGE: &str = "usage: room_server [ADDRESS]

ADDRESS is HOST:PORT or unix:PATH; 127.0.0.1:50051 without it.";

/// Who is in the room.
#[derive(Clone, Default)]
struct Hall(Arc<Mutex<Vec<StreamReplies<Line>>>>);

impl Hall {
    fn enter(&self, visitor: StreamReplies<Line>) {
        self.0.lock().unwrap().push(visitor);
    }

    /// Who listens too slowly misses it, and who has left is forgotten.
    fn say(&self, line: &Line) {
        let heard = |visitor: &StreamReplies<Line>| match visitor.try_send(line) {
            Ok(()) | Err(TrySendError::Full) => true,
            Err(TrySendError::Ended(_)) => false,
        };
        self.0.lock().unwrap().retain(heard);
    }
}

/// One visitor.
struct Visitor(Hall);

impl StreamHandler<Line, Line> for Visitor {
    fn begin(&mut self, replies: &StreamReplies<Line>) -> Result<(), Status> {
        self.0.enter(replies.clone());
        replies.send(&line("room", "welcome"))
    }

    fn request(&mut self, said: Line, _: &StreamReplies<Line>) -> Result<(), Status> {
        self.0.say(&said);
        Ok(())
    }

    fn draining(&mut self, replies: &StreamReplies<Line>) -> Result<(), Status> {
        replies.send(&line("room", "we are closing"))?;
        replies.finish(Ok(()));
        Ok(())
    }
}

/// One who dictates.
#[derive(Default)]
struct Dictation(u32);

impl UploadHandler<Line, Minutes> for Dictation {
    fn request(&mut self, _: Line) -> Result<(), Status> {
        self.0 += 1;
        Ok(())
    }

    fn end(self) -> Result<Minutes, Status> {
        Ok(Minutes {
            lines: self.0,
            ..Default::default()
        })
    }
}

impl Room for Hall {
    fn talk(
        &self,
        _: &Call,
        requests: Requests<Line>,
        replies: Replies<Line>,
    ) -> Result<(), Status> {
        requests.detach(replies, Visitor(self.clone()))
    }

    fn dictate(&self, _: &Call, requests: Requests<Line>) -> Result<Minutes, Status> {
        requests.detach_upload(Dictation::default())
    }
}

fn line(speaker: &str, text: &str) -> Line {
    Line {
        speaker: speaker.to_owned(),
        text: text.to_owned(),
        ..Default::default()
    }
}

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let words = arguments::words(USAGE);
    let address = match &*words {
        [] => "127.0.0.1:50051",
        [address] if !address.starts_with('-') => address,
        _ => arguments::wrong(USAGE),
    };
    Server::builder()
        .address(address)
        .service(room_service(Hall::default()))
        .on_listening(|server| println!("listening at {}", server.address()))
        .serve()
}
