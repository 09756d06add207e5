//! The collector, as OTLP over HTTP has it: one POST for each batch, on a connection that is kept.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Error};

use super::encode;

/// How much of a response is read, in bytes. One that OTLP asks for has some hundred; OTLP advises [a limit of 4
/// MiB](https://opentelemetry.io/docs/specs/otlp/#otlphttp-response), which a small board has not to spare.
const RESPONSE: u64 = 64 << 10;

/// How much of a response's headers.
const RESPONSE_HEADERS: usize = 16 << 10;

/// What goes to and from the socket at once.
const BUFFER: usize = 16 << 10;

pub(super) struct Collector {
    agent: Agent,
    url: Uri,
    headers: HeaderMap,
    /// How long each step of a request may take.
    timeout: Duration,
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The collector has taken it, but for so many spans, and said why.
    Taken { rejected: u64, why: String },
    /// It will never take it.
    Refused(String),
    /// It may take it another time, if so after this one.
    Later {
        after: Option<Duration>,
        why: String,
    },
}

impl Collector {
    pub(super) fn new(url: Uri, headers: HeaderMap, timeout: Duration) -> Collector {
        let config = Agent::config_builder()
            // Spans go where they are meant to go, and nowhere else.
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!(
                "touchdown-observe/",
                env!("CARGO_PKG_VERSION"),
                " (OTLP)"
            ))
            .max_response_header_size(RESPONSE_HEADERS)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(1)
            .build();
        Collector {
            agent: Agent::new_with_config(config),
            url,
            headers,
            timeout,
        }
    }

    /// Where it is.
    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    /// Sends one request, and waits for the response. Each step of that has the collector's time limit, or this one
    /// if it is shorter. There is no limit over all of them: for that ureq would look up the name on a thread of its
    /// own, which it would start for each request.
    pub(super) fn send(&self, body: &[u8], limit: Duration) -> Verdict {
        let limit = Some(self.timeout.min(limit));
        let mut request = self.agent.post(&self.url);
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
        }
        let request = request
            .header("content-type", "application/x-protobuf")
            .config()
            .timeout_connect(limit)
            .timeout_send_request(limit)
            .timeout_send_body(limit)
            .timeout_recv_response(limit)
            .timeout_recv_body(limit)
            .build();
        let response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return verdict_on(&error),
        };
        let status = response.status();
        match status.as_u16() {
            200..=299 => {
                // It is taken whatever else is said. What is too long is not read to its end, and the connection is
                // closed.
                let mut said = Vec::new();
                let mut body = response.into_body().into_reader().take(RESPONSE + 1);
                let is_whole = body.read_to_end(&mut said).is_ok() && said.len() as u64 <= RESPONSE;
                let (rejected, why) = if is_whole {
                    encode::rejected(&said)
                } else {
                    (0, String::new())
                };
                Verdict::Taken { rejected, why }
            }
            // Those that OTLP has for "try again".
            429 | 502 | 503 | 504 => {
                let after = response.headers().get("retry-after");
                // A date, which is legal as well, is as good as nothing.
                let after = after.and_then(|it| it.to_str().ok()?.trim().parse().ok());
                Verdict::Later {
                    after: after.map(Duration::from_secs),
                    why: format!("it answers {status}"),
                }
            }
            _ => Verdict::Refused(format!("it answers {status}")),
        }
    }

    /// Ends the request that is under way, and makes no other.
    pub(super) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }
}

/// Lost connections are tried again, and what no collector would say is not.
fn verdict_on(error: &Error) -> Verdict {
    let is_lost = match error {
        // What is no HTTP.
        Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed => true,
        _ => false,
    };
    let why = error.to_string();
    match is_lost {
        true => Verdict::Later { after: None, why },
        false => Verdict::Refused(why),
    }
}
