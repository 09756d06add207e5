//! What is set of traces, and whether it makes sense.

use std::fmt;
use std::ops::RangeInclusive;
use std::process;
use std::time::Duration;

use touchdown::StartError;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::counts::SpanCounts;
use super::encode::{Resource, ResourceValue};
use super::queue::Limits;

/// Where the path of a collector's URL begins, by OTLP.
const PATH: &str = "/v1/traces";

/// Headers that the exporter sets.
const OWN_HEADERS: [&str; 4] = [
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
];

/// The longest time that can be set. None is of use that is longer, and sums of it never overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What times may be set.
pub(super) const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// Sends a span of some calls to a collector: for [`ObserveServer::traces`](crate::ObserveServer::traces).
///
/// ```no_run
/// use touchdown::Server;
/// use touchdown_observe::otel::Traces;
/// use touchdown_observe::ObserveServer;
///
/// let traces = Traces::new("http://127.0.0.1:4318").service_name("greeter").sample(0.01);
/// let report = Server::builder().address("0.0.0.0:50051").traces(traces).serve();
/// ```
///
/// What makes no sense keeps the server from starting, with a
/// [`StartError::Setting`](touchdown::StartError::Setting) that names it.
#[derive(Clone)]
#[must_use = "it does nothing until a server has it"]
pub struct Traces {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Vec<(String, String)>,
    pub(super) service_name: Option<String>,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) share: f64,
    pub(super) parent_based: bool,
    pub(super) trust_parent: bool,
    pub(super) cap: u32,
    pub(super) limits: Limits,
    pub(super) timeout: Duration,
    pub(super) export_limit: Duration,
    /// Whether anything is recorded.
    pub(super) is_enabled: bool,
    /// What the log is to say as the server starts.
    pub(super) warnings: Vec<String>,
    pub(super) counts: SpanCounts,
}

/// Where the collector is.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Who has said so.
    pub(super) setting: &'static str,
    pub(super) url: String,
    /// Whether [`PATH`] is to be added.
    pub(super) is_base: bool,
}

/// What was set, and makes sense.
pub(super) struct Checked {
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    pub(super) resource: Resource,
}

impl Traces {
    /// To the collector at this URL, such as `http://127.0.0.1:4318`, to which `/v1/traces` is added. It has to be
    /// `http`: there is no TLS here. A collector on the same machine, or a proxy there, speaks it to others.
    ///
    /// The rest is as in the table of [`from_env`](Self::from_env), without a look at the environment.
    pub fn new(endpoint: impl Into<String>) -> Traces {
        Traces {
            endpoint: Endpoint {
                setting: "endpoint",
                url: endpoint.into(),
                is_base: true,
            },
            headers: Vec::new(),
            service_name: None,
            attributes: Vec::new(),
            share: 0.1,
            parent_based: true,
            trust_parent: true,
            cap: 100,
            limits: Limits {
                capacity: 2048,
                batch: 512,
                delay: Duration::from_secs(5),
            },
            timeout: Duration::from_secs(10),
            export_limit: Duration::from_secs(30),
            is_enabled: true,
            warnings: Vec::new(),
            counts: SpanCounts::default(),
        }
    }

    /// Sets `service.name`, by which the spans of a service are found.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Adds something that is the same for all spans of the program, such as `deployment.environment.name`.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((key.into(), value.into()));
        self
    }

    /// Adds a header to the requests to the collector, such as one with a token. Its value is not logged.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets which share of the traces that begin here are recorded, from 0 to 1. Of traces that began elsewhere
    /// those are that are recorded there. 0.1 by default.
    pub fn sample(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets how many spans are recorded in a second at the most, whoever has decided that they should be. So callers
    /// that want all of theirs recorded cannot keep the server busy with it. Calls beyond that are
    /// [counted](SpanCounts::capped), and served like any other. 100 by default: enough to see what goes on, and
    /// nothing that a small board would feel.
    pub fn cap(mut self, spans_per_second: u32) -> Self {
        self.cap = spans_per_second;
        self
    }

    /// Sets whether what a caller says of its trace is believed. A server that strangers reach should not: they could
    /// have each of their calls recorded, up to the [cap](Self::cap), and mix theirs into the traces of others
    /// ([W3C's advice](https://www.w3.org/TR/trace-context/#security-considerations)). A trace begins then with each
    /// call, and nothing of the caller's is handed on. True by default.
    pub fn trust_parent(mut self, trust: bool) -> Self {
        self.trust_parent = trust;
        self
    }

    /// Sets how many spans wait to be sent at the most. What comes on top is [dropped](SpanCounts::dropped). 2,048 by
    /// default. A span takes some 300 bytes, and no more than 1.5 KiB.
    pub fn queue(mut self, spans: usize) -> Self {
        self.limits.capacity = spans;
        self.limits.batch = self.limits.batch.min(spans);
        self
    }

    /// Sets for how long a span waits for others to be sent with. 5 s by default.
    pub fn delay(mut self, time: Duration) -> Self {
        self.limits.delay = time;
        self
    }

    /// Sets how long each step of a request may take: to connect, to send it, to wait for the response, and to read
    /// that. 10 s by default.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Sets for how long it is tried to send spans before they are dropped. 30 s by default. When the program stops,
    /// it is half of its plan's [Closing](touchdown::lifecycle::Plan::closing) at the most.
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.export_limit = time;
        self
    }

    /// What becomes of the spans, to be kept for later. Those of a clone are counted along.
    pub fn counts(&self) -> SpanCounts {
        self.counts.clone()
    }

    pub(super) fn checked(&self) -> Result<Checked, StartError> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(setting("sample", self.share, "from 0 to 1"));
        }
        if self.limits.capacity == 0 {
            return Err(setting("queue", 0, "at least 1"));
        }
        for (name, time) in [
            ("delay", self.limits.delay),
            ("timeout", self.timeout),
            ("give_up_after", self.export_limit),
        ] {
            if !TIMES.contains(&time) {
                return Err(setting(
                    name,
                    format_args!("{time:?}"),
                    "from 1 ms to 24 hours",
                ));
            }
        }
        Ok(Checked {
            url: self.endpoint.checked()?,
            headers: self.checked_headers()?,
            resource: self.resource(),
        })
    }

    fn checked_headers(&self) -> Result<HeaderMap, StartError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let legal = "a header's name and value, and none that the exporter sets";
            // The value may be a secret.
            let error = || setting("header", name, legal);
            let name = HeaderName::try_from(name).map_err(|_| error())?;
            if OWN_HEADERS.contains(&name.as_str()) {
                return Err(error());
            }
            let mut value = HeaderValue::try_from(value).map_err(|_| error())?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn resource(&self) -> Resource {
        let set = |key: &str| self.attributes.iter().any(|it| it.0 == key);
        let mut resource = Resource::new();
        let mut add = |key: &str, value: ResourceValue| resource.push((key.to_owned(), value));
        match &self.service_name {
            Some(name) => add("service.name", ResourceValue::Text(name.clone())),
            None if set("service.name") => {}
            None => add("service.name", ResourceValue::Text(unknown_service())),
        }
        for (key, value) in &self.attributes {
            if key != "service.name" || self.service_name.is_none() {
                add(key, ResourceValue::Text(value.clone()));
            }
        }
        for (key, value) in [
            ("telemetry.sdk.name", "touchdown"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ] {
            if !set(key) {
                add(key, ResourceValue::Text(value.to_owned()));
            }
        }
        if !set("process.pid") {
            add("process.pid", ResourceValue::Number(process::id().into()));
        }
        resource
    }
}

impl Endpoint {
    fn checked(&self) -> Result<Uri, StartError> {
        let expected = "http://HOST:PORT, with a path or without (a collector or a proxy on this machine can speak TLS \
                        to others)";
        let error = |value: &str| setting(self.setting, value, expected);
        let uri: Uri = self.url.parse().map_err(|_| error(&self.url))?;
        let authority = uri.authority().filter(|it| !it.host().is_empty());
        let authority = authority.ok_or_else(|| error(&self.url))?;
        if authority.as_str().contains('@') {
            let hint = "without a user and a password: set a header in their place";
            return Err(setting(self.setting, "a URL with a user", hint));
        }
        if uri.scheme_str() != Some("http") || (self.is_base && uri.query().is_some()) {
            return Err(error(&self.url));
        }
        if !self.is_base {
            return Ok(uri);
        }
        let path = format!("{}{PATH}", uri.path().trim_end_matches('/'));
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority.clone())
            .path_and_query(path);
        uri.build().map_err(|_| error(&self.url))
    }
}

/// By [OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/resource/service/).
fn unknown_service() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_ref().and_then(|it| it.file_name());
    match name {
        Some(name) => format!("unknown_service:{}", name.to_string_lossy()),
        None => "unknown_service".to_owned(),
    }
}

fn setting(setting: &'static str, value: impl fmt::Display, expected: &'static str) -> StartError {
    StartError::Setting {
        setting,
        value: value.to_string(),
        expected,
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL, and the values of headers, may have secrets.
        let headers: Vec<_> = self.headers.iter().map(|it| &it.0).collect();
        formatter
            .debug_struct("Traces")
            .field("service_name", &self.service_name)
            .field("attributes", &self.attributes)
            .field("headers", &headers)
            .field("sample", &self.share)
            .field("cap", &self.cap)
            .field("trust_parent", &self.trust_parent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(traces: &Traces) -> String {
        traces.checked().unwrap().url.to_string()
    }

    fn error(traces: &Traces) -> String {
        traces.checked().err().unwrap().to_string()
    }

    #[test]
    fn the_path_is_added_to_what_was_set() {
        for (set, sent_to) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            (
                "http://[::1]:4318/tenant/",
                "http://[::1]:4318/tenant/v1/traces",
            ),
            ("http://collector", "http://collector/v1/traces"),
        ] {
            assert_eq!(url(&Traces::new(set)), sent_to);
        }
    }

    #[test]
    fn a_url_that_cannot_be_sent_to_is_an_error_that_says_so() {
        for wrong in [
            "",
            "127.0.0.1:4318",
            "https://collector:4318",
            "http://",
            "grpc://c:1",
            "http://c:1?a=b",
            "http://c c",
        ] {
            let error = error(&Traces::new(wrong));
            let begins = format!("endpoint is {wrong}, and must be http://HOST:PORT");
            assert!(error.starts_with(&begins), "{error}");
        }
        let secret = error(&Traces::new("http://me:secret@collector:4318"));
        assert!(
            !secret.contains("secret") && secret.contains("header"),
            "{secret}"
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_errors_that_name_them() {
        let traces = || Traces::new("http://127.0.0.1:4318");
        for (traces, begins) in [
            (traces().sample(1.5), "sample is 1.5,"),
            (traces().sample(-0.1), "sample is -0.1,"),
            (traces().sample(f64::NAN), "sample is NaN,"),
            (traces().queue(0), "queue is 0,"),
            (traces().delay(Duration::ZERO), "delay is 0ns,"),
            (traces().timeout(Duration::MAX), "timeout is"),
            (
                traces().give_up_after(Duration::ZERO),
                "give_up_after is 0ns,",
            ),
            (traces().header("a b", "1"), "header is a b,"),
            (traces().header("a", "secret\n"), "header is a,"),
            (
                traces().header("Content-Type", "secret"),
                "header is Content-Type,",
            ),
        ] {
            let error = error(&traces);
            assert!(error.starts_with(begins), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let traces = Traces::new("http://c:1").header("api-key", "secret");
        let shown = format!("{traces:?} {:?}", traces.checked().unwrap().headers);
        assert!(
            shown.contains("api-key") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn the_resource_names_the_service_once() {
        let names = |traces: Traces| {
            let resource = traces.checked().unwrap().resource;
            let names = resource.into_iter().filter(|it| it.0 == "service.name");
            names.map(|it| it.1).collect::<Vec<_>>()
        };
        let text = |text: &str| vec![ResourceValue::Text(text.to_owned())];
        let traces = || Traces::new("http://c:1");
        let unknown = names(traces()).remove(0);
        assert!(matches!(unknown, ResourceValue::Text(it) if it.starts_with("unknown_service:")));
        assert_eq!(names(traces().attribute("service.name", "a")), text("a"));
        let both = traces().attribute("service.name", "a").service_name("b");
        assert_eq!(names(both), text("b"));
    }
}
