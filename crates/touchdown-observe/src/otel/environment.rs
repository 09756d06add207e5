//! OpenTelemetry's environment variables.
//!
//! The specification has an implementation warn of a value that it cannot make sense of, and then do as if the
//! variable were not set.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::settings::{Endpoint, Traces, TIMES};

/// The default of OTLP.
const ENDPOINT: &str = "http://localhost:4318";

impl Traces {
    /// As [OpenTelemetry's
    /// variables](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) say. What a
    /// setter of this type sets afterwards holds in their place.
    ///
    /// | variable | default | |
    /// |---|---|---|
    /// | `OTEL_SDK_DISABLED` | false | with `true` nothing is recorded; traces of callers are still handed on |
    /// | `OTEL_TRACES_EXPORTER` | `otlp` | with `none` likewise |
    /// | `OTEL_EXPORTER_OTLP_ENDPOINT` | `http://localhost:4318` | `/v1/traces` is added |
    /// | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | – | as it is, and goes before the one above, as all with `TRACES` do |
    /// | `OTEL_EXPORTER_OTLP_HEADERS`, `…_TRACES_HEADERS` | none | `name=value,…`, percent-encoded |
    /// | `OTEL_EXPORTER_OTLP_TIMEOUT`, `…_TRACES_TIMEOUT` | 10000 | in ms: [`timeout`](Self::timeout) |
    /// | `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_PROTOCOL` | `http/protobuf` | there is no other |
    /// | `OTEL_EXPORTER_OTLP_COMPRESSION`, `…_TRACES_COMPRESSION` | `none` | there is no other |
    /// | `OTEL_SERVICE_NAME` | `unknown_service:` and the program's name | |
    /// | `OTEL_RESOURCE_ATTRIBUTES` | none | `key=value,…`, percent-encoded |
    /// | `OTEL_TRACES_SAMPLER` | `parentbased_traceidratio` | and `always_on`, `always_off`, `traceidratio`, `parentbased_always_on`, `parentbased_always_off` |
    /// | `OTEL_TRACES_SAMPLER_ARG` | 0.1; 1 if a sampler is named that takes it | the share, from 0 to 1 |
    /// | `OTEL_BSP_SCHEDULE_DELAY` | 5000 | in ms: [`delay`](Self::delay) |
    /// | `OTEL_BSP_MAX_QUEUE_SIZE` | 2048 | [`queue`](Self::queue) |
    /// | `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | 512 | how many spans are sent at once |
    /// | `OTEL_BSP_EXPORT_TIMEOUT` | 30000 | in ms: [`give_up_after`](Self::give_up_after) |
    ///
    /// An empty variable is as good as none. A value that makes no sense is ignored, and the log says so at WARN, as
    /// OpenTelemetry wants it. A URL is an exception: nobody wants spans to go elsewhere than was said, so the server
    /// does not start.
    pub fn from_env() -> Traces {
        read(&|name| {
            let value = std::env::var_os(name)?;
            Some(value.to_string_lossy().into_owned())
        })
    }
}

/// The environment, and what is wrong with it.
struct Environment<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

/// What these variables say.
pub(super) fn read(get: &dyn Fn(&str) -> Option<String>) -> Traces {
    let mut environment = Environment {
        get,
        warnings: Vec::new(),
    };
    let mut traces = Traces::new(ENDPOINT);
    traces.is_enabled = environment.is_enabled();
    if let Some(endpoint) = environment.endpoint() {
        traces.endpoint = endpoint;
    }
    environment.read_transport(&mut traces);
    environment.read_resource(&mut traces);
    environment.read_sampler(&mut traces);
    environment.read_limits(&mut traces);
    traces.warnings = environment.warnings;
    traces
}

impl Environment<'_> {
    /// What is set, and not empty.
    fn get(&self, name: &str) -> Option<String> {
        let value = (self.get)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn warn(&mut self, name: &str, value: impl Display, expected: &str) {
        self.warnings.push(format!(
            "{name} is {value:.200}, which is ignored: it must be {expected}"
        ));
    }

    /// The variable for traces, or the one for all signals, with the name of that.
    fn of_otlp(
        &self,
        of_traces: &'static str,
        of_all: &'static str,
    ) -> Option<(&'static str, String)> {
        let names = [of_traces, of_all];
        names.into_iter().find_map(|it| Some((it, self.get(it)?)))
    }

    fn is_enabled(&mut self) -> bool {
        let name = "OTEL_SDK_DISABLED";
        let is_disabled = match self.get(name) {
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if !value.eq_ignore_ascii_case("false") => {
                self.warn(name, value, "true or false");
                false
            }
            _ => false,
        };
        let name = "OTEL_TRACES_EXPORTER";
        let is_sent = match self.get(name).as_deref() {
            Some("none") => false,
            Some("otlp") | None => true,
            Some(other) => {
                self.warn(name, other, "otlp or none");
                true
            }
        };
        is_sent && !is_disabled
    }

    fn endpoint(&self) -> Option<Endpoint> {
        let (of_traces, of_all) = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        );
        let (setting, url) = self.of_otlp(of_traces, of_all)?;
        Some(Endpoint {
            setting,
            url,
            is_base: setting == of_all,
        })
    }

    fn read_transport(&mut self, traces: &mut Traces) {
        let headers = self.of_otlp(
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_EXPORTER_OTLP_HEADERS",
        );
        if let Some((name, value)) = headers {
            match pairs(&value) {
                Some(pairs) => traces.headers = pairs,
                // They may be secrets.
                None => self.warn(
                    name,
                    "not shown here",
                    "name=value,name=value, percent-encoded",
                ),
            }
        }
        let timeout = self.of_otlp(
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        );
        if let Some((name, value)) = timeout {
            self.set_time(name, &value, &mut traces.timeout);
        }
        let protocol = self.of_otlp(
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        );
        if let Some((name, value)) = protocol.filter(|it| it.1 != "http/protobuf") {
            self.warn(
                name,
                value,
                "http/protobuf, which is the only protocol here",
            );
        }
        let compression = self.of_otlp(
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        );
        if let Some((name, value)) = compression.filter(|it| it.1 != "none") {
            self.warn(name, value, "none: spans are sent as they are");
        }
    }

    fn read_resource(&mut self, traces: &mut Traces) {
        traces.service_name = self.get("OTEL_SERVICE_NAME");
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        if let Some(value) = self.get(name) {
            match pairs(&value) {
                Some(pairs) => traces.attributes = pairs,
                None => self.warn(name, value, "key=value,key=value, percent-encoded"),
            }
        }
    }

    fn read_sampler(&mut self, traces: &mut Traces) {
        let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        let sampler = self.get(name);
        let (parent_based, share) = match sampler.as_deref() {
            Some("always_on") => (false, Some(1.0)),
            Some("always_off") => (false, Some(0.0)),
            Some("traceidratio") => (false, None),
            Some("parentbased_always_on") => (true, Some(1.0)),
            Some("parentbased_always_off") => (true, Some(0.0)),
            Some("parentbased_traceidratio") | None => (true, None),
            Some(other) => {
                let expected = "always_on, always_off, traceidratio, or one of these with parentbased_ before it";
                self.warn(name, other, expected);
                return;
            }
        };
        traces.parent_based = parent_based;
        if let Some(share) = share {
            traces.share = share;
            return;
        }
        // By the specification all are sampled if a share is wanted, and none was said.
        if sampler.is_some() {
            traces.share = 1.0;
        }
        if let Some(value) = self.get(argument) {
            match f64::from_str(&value) {
                Ok(share) if (0.0..=1.0).contains(&share) => traces.share = share,
                _ => self.warn(argument, value, "a number from 0 to 1"),
            }
        }
    }

    fn read_limits(&mut self, traces: &mut Traces) {
        for (name, time) in [
            ("OTEL_BSP_SCHEDULE_DELAY", &mut traces.limits.delay),
            ("OTEL_BSP_EXPORT_TIMEOUT", &mut traces.export_limit),
        ] {
            if let Some(value) = self.get(name) {
                self.set_time(name, &value, time);
            }
        }
        for (name, count) in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", &mut traces.limits.capacity),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &mut traces.limits.batch),
        ] {
            match self.get(name).map(|it| (usize::from_str(&it), it)) {
                Some((Ok(value @ 1..), _)) => *count = value,
                Some((_, value)) => self.warn(name, value, "a whole number, at least 1"),
                None => {}
            }
        }
        // More than that never wait.
        traces.limits.batch = traces.limits.batch.min(traces.limits.capacity);
    }

    fn set_time(&mut self, name: &str, value: &str, time: &mut Duration) {
        match u64::from_str(value).map(Duration::from_millis) {
            Ok(value) if TIMES.contains(&value) => *time = value,
            _ => self.warn(name, value, "a time in milliseconds, from 1 to 86400000"),
        }
    }
}

/// Reads `key=value,key=value`, as [W3C's Baggage](https://www.w3.org/TR/baggage/#header-content) writes it. `None` if
/// it is not that: then nothing of it holds.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let pair = |pair: &str| {
        // What follows a semicolon is about the value, and not of it.
        let pair = pair.split(';').next()?;
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        (!key.is_empty()).then_some(())?;
        Some((decoded(key)?, decoded(value)?))
    };
    pairs.map(pair).collect()
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let byte = digit()? << 4 | digit()?;
        bytes.push(byte as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(variables: &[(&str, &str)]) -> Traces {
        read(&|name| {
            let found = variables.iter().find(|it| it.0 == name);
            found.map(|it| it.1.to_owned())
        })
    }

    #[test]
    fn without_variables_the_defaults_hold() {
        for traces in [
            from(&[]),
            from(&[("OTEL_SERVICE_NAME", " "), ("OTEL_BSP_MAX_QUEUE_SIZE", "")]),
        ] {
            assert!(traces.is_enabled && traces.parent_based && traces.trust_parent);
            assert_eq!(traces.share, 0.1);
            assert_eq!(
                traces.checked().unwrap().url,
                "http://localhost:4318/v1/traces"
            );
            assert_eq!((traces.limits.capacity, traces.limits.batch), (2048, 512));
            assert_eq!(traces.warnings, [""; 0]);
        }
    }

    #[test]
    fn all_variables_are_read() {
        let traces = from(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/tenant"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b , x=1;about=it"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_SERVICE_NAME", "greeter"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test,a=%C3%BC",
            ),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "3000"),
        ]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            traces.checked().unwrap().url,
            "http://c:4318/tenant/v1/traces"
        );
        assert_eq!(traces.headers, [pair("api-key", "a b"), pair("x", "1")]);
        assert_eq!(traces.timeout, Duration::from_secs(2));
        assert_eq!(traces.service_name.as_deref(), Some("greeter"));
        let attributes = [pair("deployment.environment.name", "test"), pair("a", "ü")];
        assert_eq!(traces.attributes, attributes);
        assert_eq!((traces.parent_based, traces.share), (false, 0.25));
        assert_eq!(traces.limits.delay, Duration::from_millis(100));
        // No more are sent at once than wait.
        assert_eq!((traces.limits.capacity, traces.limits.batch), (64, 64));
        assert_eq!(traces.export_limit, Duration::from_secs(3));
        assert_eq!(traces.warnings, [""; 0]);
    }

    #[test]
    fn a_variable_for_traces_goes_before_the_one_for_all() {
        let traces = from(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "http://traces:1/here?a=b",
            ),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
        ]);
        assert_eq!(traces.checked().unwrap().url, "http://traces:1/here?a=b");
        assert_eq!(traces.timeout, Duration::from_millis(2));
    }

    #[test]
    fn a_url_that_makes_no_sense_names_its_variable() {
        for name in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ] {
            for url in ["https://collector:4318", "localhost:4318", "nonsense"] {
                let error = from(&[(name, url)]).checked().err().unwrap().to_string();
                assert!(
                    error.starts_with(&format!("{name} is {url}, and must be http://")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn samplers_are_known_by_their_names() {
        for (name, parent_based, share) in [
            ("always_on", false, 1.0),
            ("always_off", false, 0.0),
            ("traceidratio", false, 1.0),
            ("parentbased_always_on", true, 1.0),
            ("parentbased_always_off", true, 0.0),
            ("parentbased_traceidratio", true, 1.0),
        ] {
            let traces = from(&[("OTEL_TRACES_SAMPLER", name)]);
            assert_eq!(
                (traces.parent_based, traces.share),
                (parent_based, share),
                "{name}"
            );
        }
        // The share of what is the default here.
        assert_eq!(from(&[("OTEL_TRACES_SAMPLER_ARG", "0.5")]).share, 0.5);
    }

    #[test]
    fn nothing_is_recorded_if_that_is_said() {
        assert!(!from(&[("OTEL_SDK_DISABLED", "TRUE")]).is_enabled);
        assert!(!from(&[("OTEL_TRACES_EXPORTER", "none")]).is_enabled);
        assert!(
            from(&[
                ("OTEL_SDK_DISABLED", "false"),
                ("OTEL_TRACES_EXPORTER", "otlp")
            ])
            .is_enabled
        );
    }

    #[test]
    fn a_value_that_makes_no_sense_is_ignored_and_said() {
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "99999999999999999999"),
        ] {
            let traces = from(&[(name, value)]);
            let [warning] = &*traces.warnings else {
                panic!("{name}: {:?}", traces.warnings);
            };
            assert!(
                warning.starts_with(&format!("{name} is {value}, which is ignored: it must be ")),
                "{warning}"
            );
            assert!(traces.checked().is_ok() && traces.is_enabled, "{name}");
            assert_eq!(
                (traces.share, traces.limits.capacity),
                (0.1, 2048),
                "{name}"
            );
            assert!(traces.attributes.is_empty());
        }
    }

    #[test]
    fn headers_are_not_shown_even_if_they_make_no_sense() {
        let traces = from(&[("OTEL_EXPORTER_OTLP_HEADERS", "secret")]);
        assert_eq!(traces.warnings.len(), 1);
        assert!(
            !traces.warnings[0].contains("secret"),
            "{:?}",
            traces.warnings
        );
    }

    proptest! {
        #[test]
        fn any_value_of_any_variable_is_read_or_ignored(value in "\\PC{0,40}", pairs in "[a-z=,;% 0-9]{0,40}") {
            for name in [
                "OTEL_SDK_DISABLED",
                "OTEL_TRACES_EXPORTER",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_HEADERS",
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "OTEL_RESOURCE_ATTRIBUTES",
                "OTEL_TRACES_SAMPLER",
                "OTEL_TRACES_SAMPLER_ARG",
                "OTEL_BSP_SCHEDULE_DELAY",
                "OTEL_BSP_MAX_QUEUE_SIZE",
            ] {
                for value in [&value, &pairs] {
                    let _ = from(&[(name, value)]).checked();
                }
            }
        }
    }
}
