//! Answers to probes: a status code for machines, lines for people, JSON for who asks for it.

use crate::checks::{CheckState, CheckStatus};
use crate::door::{Request, Response};
use crate::text::{json, one_line};

/// One thing that is looked at.
pub(super) struct Point {
    pub(super) name: String,
    pub(super) is_good: bool,
    /// Whether the whole depends on it.
    pub(super) counts: bool,
    pub(super) why: String,
}

/// All things that are looked at.
pub(super) struct Verdict {
    pub(super) name: &'static str,
    pub(super) points: Vec<Point>,
}

impl Point {
    pub(super) fn new(name: String, is_good: bool, why: String) -> Point {
        Point {
            name,
            is_good,
            counts: true,
            why,
        }
    }

    pub(super) fn of(check: &CheckStatus) -> Point {
        let state = check.state.as_str();
        let since = check.since;
        let why = match (&check.error, check.hangs) {
            (_, Some(hangs)) => {
                format!("{state} for {since:.0?}: it has not returned for {hangs:.0?}")
            }
            (Some(error), None) => format!("{state} for {since:.0?}: {error}"),
            (None, None) => format!("{state} for {since:.0?}"),
        };
        Point::new(check.name.clone(), check.state == CheckState::Up, why)
    }
}

impl Verdict {
    fn is_good(&self) -> bool {
        self.points.iter().all(|it| it.is_good || !it.counts)
    }

    /// As Kubernetes' own endpoints: `ok` alone, or a line for each.
    pub(super) fn answer(&self, request: &Request<'_>) -> Response {
        let is_good = self.is_good();
        let status = if is_good { 200 } else { 503 };
        if request.accept.is_some_and(wants_json) {
            let body = self.json().into_bytes();
            return Response {
                status,
                content_type: "application/json",
                body,
            };
        }
        if is_good && request.parameters("verbose").next().is_none() {
            return Response::text(status, "ok\n");
        }
        let mut text = String::new();
        for Point {
            name,
            is_good,
            counts,
            why,
        } in &self.points
        {
            let sign = if *is_good { '+' } else { '-' };
            let note = if *counts {
                ""
            } else {
                " (does not count here)"
            };
            text.push_str(&format!(
                "[{sign}]{} {}{note}\n",
                one_line(name),
                one_line(why)
            ));
        }
        let word = if is_good { "passed" } else { "failed" };
        text.push_str(&format!("{} check {word}\n", self.name));
        Response::text(status, text)
    }

    fn json(&self) -> String {
        let one = |it: &Point| {
            let (name, why) = (json(&it.name), json(&it.why));
            format!(
                "{{\"name\":{name},\"ok\":{},\"counts\":{},\"detail\":{why}}}",
                it.is_good, it.counts
            )
        };
        let points: Vec<String> = self.points.iter().map(one).collect();
        let (name, is_good) = (json(self.name), self.is_good());
        format!(
            "{{\"probe\":{name},\"ok\":{is_good},\"checks\":[{}]}}\n",
            points.join(",")
        )
    }
}

/// Whether JSON is asked for by name: who takes anything gets text.
fn wants_json(accept: &str) -> bool {
    quality_of(accept, "application/json") > quality_of(accept, "text/plain")
}

/// Whether OpenMetrics is asked for, and not less than the older text.
#[cfg(feature = "metrics")]
pub(super) fn wants_open_metrics(accept: &str) -> bool {
    let open = quality_of(accept, "application/openmetrics-text");
    open > 0.0 && open >= quality_of(accept, "text/plain")
}

/// How much this media type is wanted, by name: RFC 9110, 12.5.1. Of several with parameters the one wanted most.
fn quality_of(accept: &str, media_type: &str) -> f32 {
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next()?.eq_ignore_ascii_case(media_type);
        let quality = parts.find_map(|it| it.strip_prefix("q=")).unwrap_or("1");
        is_it.then(|| quality.parse::<f32>().unwrap_or(0.0))
    });
    ranges.filter(|it| it.is_finite()).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "metrics")]
    #[test]
    fn open_metrics_is_for_who_asks_for_it() {
        // As Prometheus 2.42 asks.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(wants_open_metrics(prometheus));
        for other in [
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0.1,text/plain",
            "",
            ";;,q=,",
        ] {
            assert!(!wants_open_metrics(other), "{other}");
        }
    }

    #[test]
    fn json_is_for_who_asks_for_it_by_name() {
        assert!(wants_json("application/json"));
        assert!(wants_json("text/html, Application/JSON;q=0.9, */*;q=0.8"));
        assert!(!wants_json("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!wants_json("application/json;q=NaN"));
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let point = Point::new("a\n[+]b".to_owned(), false, "down\r\nok".to_owned());
        let request = Request {
            is_head: false,
            path: "/readyz".into(),
            query: "",
            accept: None,
        };
        let answer = Verdict {
            name: "readyz",
            points: vec![point],
        }
        .answer(&request);
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, b"[-]a [+]b down  ok\nreadyz check failed\n");
    }
}
