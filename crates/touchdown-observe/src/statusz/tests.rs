//! What the page says, and that it says nothing else.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use touchdown::lifecycle::Phase;

use super::chart::{Charts, Quantile};
use super::text::{Count, Seconds, Size, Text, Time};
use super::*;

const BOUNDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn histogram(counts: [u64; 16]) -> Histogram {
    Histogram {
        bounds: BOUNDS.to_vec(),
        counts: counts.to_vec(),
        sum: 12.5,
    }
}

fn method(name: &str, started: u64, latency: Option<Histogram>) -> Method {
    Method {
        service: "meter.v1.Readings".to_owned(),
        name: name.to_owned(),
        kind: "unary".to_owned(),
        started,
        in_flight: 0,
        oldest: None,
        errors: Vec::new(),
        latency,
    }
}

/// A program of which nothing is known.
fn bare() -> Snapshot {
    Snapshot {
        program: "greeter".to_owned(),
        version: None,
        process: 1,
        now: None,
        uptime: Duration::ZERO,
        refresh: None,
        links: Vec::new(),
        phase: Phase::Starting,
        phase_for: None,
        reason: None,
        deadline_in: None,
        not_ready: Vec::new(),
        in_flight: 0,
        load: None,
        connections: None,
        calls: Vec::new(),
        checks: Vec::new(),
        methods: Vec::new(),
        queue_wait: None,
        certificate_days: None,
        figures: None,
        upgrades: Vec::new(),
        reports: Vec::new(),
    }
}

fn check(name: &str, counts_for: &str, state: CheckState) -> Check {
    Check {
        name: name.to_owned(),
        counts_for: counts_for.to_owned(),
        state,
        since: Some(seconds(11_040)),
        checked: Some(seconds(4)),
        took: Some(Duration::from_micros(4230)),
        hangs: None,
        message: None,
    }
}

fn call(method: &str, peer: &str, age: Duration) -> RunningCall {
    RunningCall {
        method: method.to_owned(),
        peer: peer.to_owned(),
        age,
    }
}

/// A board at work.
fn serving() -> Snapshot {
    let fast = histogram([
        181_204, 640_120, 311_200, 80_231, 20_111, 4012, 812, 201, 40, 12, 3, 0, 0, 0, 0, 0,
    ]);
    let slow = histogram([
        0, 0, 12, 40, 122, 391, 702, 911, 640, 204, 88, 31, 12, 4, 1, 0,
    ]);
    let streams = histogram([0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 5, 9, 14, 22, 41]);
    let list = Method {
        in_flight: 3,
        oldest: Some(millis(2310)),
        errors: vec![
            ("DeadlineExceeded".to_owned(), 1204),
            ("Unavailable".to_owned(), 12),
            ("ResourceExhausted".to_owned(), 7),
        ],
        ..method("ListReadings", 3158, Some(slow))
    };
    let watch = Method {
        kind: "server stream".to_owned(),
        in_flight: 2,
        oldest: Some(seconds(11_000)),
        errors: vec![("Canceled".to_owned(), 71)],
        ..method("WatchReadings", 101, Some(streams))
    };
    let get = Method {
        in_flight: 1,
        oldest: Some(millis(1)),
        ..method("GetReading", 1_237_945, Some(fast.clone()))
    };
    let mut disk = check("disk", "information", CheckState::Down);
    disk.message = Some("/var/lib/meter: 97 % full".to_owned());
    disk.since = Some(seconds(300));
    Snapshot {
        program: "meter-gateway".to_owned(),
        version: Some("1.4.2".to_owned()),
        process: 4711,
        now: Some("2026-11-30 20:03:11 UTC".to_owned()),
        uptime: seconds(270_130),
        links: vec!["metrics", "readyz?verbose", "livez?verbose"],
        phase: Phase::Serving,
        phase_for: Some(seconds(270_129)),
        in_flight: 6,
        load: Some(Load {
            workers: 8,
            busy: 4,
            streams: 2,
            waiting: 0,
            backlog: 64,
        }),
        connections: Some(17),
        calls: vec![
            call("/meter.v1.Readings/WatchReadings", "192.168.178.21:51234", seconds(11_000)),
            call("/meter.v1.Readings/WatchReadings", "[2001:db8:85a3::8a2e:370:7334]:443", seconds(733)),
            call("/meter.v1.Readings/ListReadings", "192.168.178.44:40112", millis(2310)),
            call("/meter.v1.Readings/ListReadings", "192.168.178.44:40112", millis(190)),
            call("/meter.v1.Readings/ListReadings", "unix socket", millis(21)),
            call("/meter.v1.Readings/GetReading", "192.168.178.3:59002", Duration::from_micros(640)),
        ],
        checks: vec![
            check("serial line", "readiness", CheckState::Up),
            check("database", "readiness", CheckState::Up),
            disk,
            check("uplink", "information", CheckState::Up),
        ],
        methods: vec![
            get,
            list,
            watch,
            method("PutReading", 812, Some(fast)),
            method("DeleteReading", 0, None),
            Method {
                service: "meter.v1.Settings".to_owned(),
                ..method("GetSettings", 0, None)
            },
        ],
        queue_wait: Some(histogram([
            1_241_000, 640, 210, 81, 40, 21, 12, 4, 3, 1, 0, 0, 0, 0, 0, 0,
        ])),
        certificate_days: Some(61),
        figures: Some(Figures {
            cpu: Some(seconds(812)),
            resident: Some(14_200_000),
            descriptors: Some(41),
            most_descriptors: Some(1024),
            threads: Some(14),
        }),
        upgrades: vec!["3 d 3 h ago: replaced process 4102 (1.4.1), which has drained in 1.8 s".to_owned()],
        reports: vec![
            "process 4102: stopped cleanly (SIGHUP, replaced by process 4711): 12 calls finished, 0 cut, in 1.8 s"
                .to_owned(),
        ],
        ..bare()
    }
}

/// The same board, as it stops and not all goes well.
fn draining() -> Snapshot {
    let mut line = check("serial line", "readiness", CheckState::Down);
    line.hangs = Some(seconds(7));
    line.message = Some(
        "the last answer was: /dev/ttyUSB0: no answer to 3 requests within 500 ms each".to_owned(),
    );
    Snapshot {
        phase: Phase::Draining,
        phase_for: Some(millis(4200)),
        reason: Some("SIGTERM".to_owned()),
        deadline_in: Some(millis(22_800)),
        not_ready: vec![
            "the program is draining".to_owned(),
            "serial line: it has not returned for 7 s".to_owned(),
        ],
        load: Some(Load {
            workers: 8,
            busy: 8,
            streams: 2,
            waiting: 41,
            backlog: 64,
        }),
        checks: vec![
            line,
            check("database", "readiness", CheckState::Up),
            Check {
                since: None,
                checked: None,
                took: None,
                ..check("uplink", "information", CheckState::Unknown)
            },
        ],
        certificate_days: Some(6),
        refresh: Some(5),
        ..serving()
    }
}

/// A board that is not ready although it serves, with many methods and calls.
fn crowded() -> Snapshot {
    let latency = serving().methods[1].latency.clone();
    let methods = (0..20).map(|it| Method {
        service: format!("company.department.product.v{}.LongNamedService", it / 5),
        errors: vec![
            ("FailedPrecondition".to_owned(), 1_000_000 + it),
            ("Internal".to_owned(), it),
        ],
        in_flight: 12,
        oldest: Some(millis(12_345)),
        ..method(
            &format!("MethodWithARatherLongName{it}"),
            9_999_999_999,
            latency.clone(),
        )
    });
    let calls = (0..35).map(|it| {
        let method = "/company.department.product.v1.LongNamedService/MethodWithARatherLongName7";
        call(
            method,
            "[2001:db8:85a3::8a2e:370:7334]:44321",
            seconds(100 - it),
        )
    });
    Snapshot {
        program: "a-program-with-a-rather-long-name-for-a-phone".to_owned(),
        not_ready: vec!["database: connection refused (os error 111)".to_owned()],
        methods: methods.collect(),
        calls: calls.collect(),
        certificate_days: Some(-1),
        ..serving()
    }
}

/// The page in words, as it is read out.
fn words(page: &str) -> String {
    let body = page.split_once("<body>").unwrap().1;
    let body = body.replace("<wbr>", "").replace("&nbsp;", " ");
    let mut words = String::new();
    let mut is_tag = false;
    for char in body.chars() {
        match char {
            '<' => {
                is_tag = true;
                words.push(' ');
            }
            '>' => is_tag = false,
            char if !is_tag => words.push(char),
            _ => {}
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_says(page: &str, what: &str) {
    let words = words(page);
    assert!(words.contains(what), "{what:?} is not in {words}");
}

#[test]
fn what_is_known_is_said() {
    let page = render(&serving());
    for what in [
        "meter-gateway 1.4.2 Serving process 4711 · up 3 d 3 h · 2026-11-30 20:03:11 UTC ",
        "Calls in flight 6 oldest 3 h 3 min",
        "Workers busy 4 of 8",
        "Backlog 0 of 64",
        "Connections 17",
        "Memory 13.5 MiB",
        "Descriptors 41 of 1,024",
        "Certificate 61 days",
        "disk down for information · down for 5 min · took 4.2 ms · 4 s ago /var/lib/meter: 97 % full",
        "640 µs GetReading meter.v1.Readings 192.168.178.3:59002",
        "ListReadings meter.v1.Readings · unary 3,158 3 oldest 2.3 s 1,223 DeadlineExceeded 1,204",
        "p50 &lt; 500 µs p90 &lt; 500 µs p99 &lt; 500 µs mean 10 µs calls 1,242,012",
        "2 methods not called yet DeleteReading",
    ] {
        assert_says(&page, what);
    }
    assert!(!page.contains("http-equiv=refresh"));
}

#[test]
fn a_stop_is_said_first() {
    let page = render(&draining());
    assert_says(
        &page,
        "Draining 4.2 s Cancelling Closing Stopped Draining for 4.2 s \
         Stopping Why: SIGTERM. 23 s left until the hard deadline.",
    );
    assert_says(
        &page,
        "Not ready the program is draining serial line: it has not returned for 7 s",
    );
    assert_says(&page, "serial line hangs for readiness");
    assert!(page.contains("<li class=here aria-current=step>Draining "));
    assert!(page.contains("<meta http-equiv=refresh content=5>"));
}

#[test]
fn what_is_not_known_is_not_said() {
    let page = render(&bare());
    assert_eq!(
        words(&page),
        "greeter Starting process 1 · up 0 s Starting Serving Lame duck Draining Cancelling Closing Stopped \
         Calls in flight 0 Fetch again every 5 s"
    );
}

#[test]
fn a_page_of_twenty_methods_is_small() {
    let page = render(&crowded());
    assert!(page.len() < 40 << 10, "{}", page.len());
    assert_says(&page, "The 20 oldest; 15 more run");
    assert_eq!(page.matches("<g id=scale").count(), 1);
}

#[test]
fn percentiles_are_as_prometheus_estimates_them() {
    let of = |counts: [u64; 4]| Histogram {
        bounds: vec![1.0, 2.0, 4.0],
        counts: counts.to_vec(),
        sum: 15.0,
    };
    assert_eq!(of([0, 10, 0, 0]).quantile(0.5), Some(Quantile::About(1.5)));
    assert_eq!(of([0, 10, 0, 0]).quantile(1.0), Some(Quantile::About(2.0)));
    assert_eq!(of([5, 0, 5, 0]).quantile(0.75), Some(Quantile::About(3.0)));
    assert_eq!(of([5, 5, 0, 0]).quantile(0.5), Some(Quantile::Below(1.0)));
    assert_eq!(of([1, 0, 0, 9]).quantile(0.5), Some(Quantile::Above(4.0)));
    assert_eq!(of([0; 4]).quantile(0.5), None);
}

#[test]
fn a_bucket_with_one_of_a_million_is_seen() {
    let rare = Histogram {
        bounds: vec![0.01, 0.1],
        counts: vec![1_000_000, 0, 1],
        sum: 1.0,
    };
    let mut picture = String::new();
    let mut charts = Charts::default();
    charts.draw(&mut picture, &rare, "a<b").unwrap();
    assert!(
        picture.contains("d=\"M11 40v-40h12v40zM39 40v-2h12v2z\""),
        "{picture}"
    );
    let title = "<title>a&lt;b: 1,000,001 in all, 1,000,000 of them in up to 10 ms, \
                 the slowest in more than 100 ms</title>";
    assert!(picture.contains(title), "{picture}");
    let marks = "<text x=24 y=54>10 ms</text><text x=38 y=54>100 ms</text>";
    assert!(picture.contains(marks), "{picture}");
}

#[test]
fn times_sizes_and_counts_are_short() {
    let times = [
        (Duration::ZERO, "0 s"),
        (Duration::from_nanos(400), "0.4 µs"),
        (Duration::from_micros(999), "999 µs"),
        (Duration::from_nanos(999_600), "1 ms"),
        (millis(5), "5 ms"),
        (Duration::from_micros(12_340), "12 ms"),
        (millis(999), "999 ms"),
        (millis(1000), "1 s"),
        (millis(1234), "1.2 s"),
        (millis(59_600), "60 s"),
        (seconds(60), "1 min"),
        (seconds(61), "1 min 1 s"),
        (seconds(86_399), "23 h 59 min"),
        (seconds(86_400), "1 d"),
        (Duration::MAX, "213503982334601 d 7 h"),
    ];
    for (time, text) in times {
        assert_eq!(Time(time).to_string(), text);
    }
    assert_eq!(Seconds(f64::INFINITY).to_string(), "∞");
    assert_eq!(Seconds(f64::NAN).to_string(), "∞");
    assert_eq!(Seconds(0.0025).to_string(), "2.5 ms");
    for (count, text) in [
        (0, "0"),
        (999, "999"),
        (1000, "1,000"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ] {
        assert_eq!(Count(count).to_string(), text);
    }
    for (size, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1 << 20, "1.0 MiB"),
        (3 << 30, "3.0 GiB"),
    ] {
        assert_eq!(Size(size).to_string(), text);
    }
}

#[test]
fn text_is_escaped_on_one_line_and_cut() {
    let hostile = "<script>&\"'\r\n\0\u{202e}ä";
    let escaped = "&lt;script&gt;&amp;&quot;&#39;   \u{fffd}ä";
    assert_eq!(Text(hostile).to_string(), escaped);
    assert_eq!(Text(&"x".repeat(10_000)).to_string().chars().count(), 401);
}

/// Every text of the page is this one.
fn saying(text: &str, number: u64) -> Snapshot {
    let own = || text.to_owned();
    let histogram = Histogram {
        bounds: vec![number as f64, f64::MAX, f64::INFINITY],
        counts: vec![number, u64::MAX, 0],
        sum: f64::NAN,
    };
    let time = Duration::from_nanos(number);
    Snapshot {
        program: own(),
        version: Some(own()),
        now: Some(own()),
        refresh: Some(number as u32),
        reason: Some(own()),
        not_ready: vec![own()],
        calls: vec![call(text, text, time)],
        checks: vec![Check {
            name: own(),
            counts_for: own(),
            message: Some(own()),
            ..check("", "", CheckState::Down)
        }],
        methods: vec![Method {
            service: own(),
            name: own(),
            kind: own(),
            started: number,
            in_flight: number as usize,
            oldest: Some(time),
            errors: vec![(own(), u64::MAX), (own(), number)],
            latency: Some(histogram.clone()),
        }],
        queue_wait: Some(histogram),
        load: Some(Load {
            workers: 0,
            busy: number as usize,
            streams: 0,
            waiting: usize::MAX,
            backlog: 0,
        }),
        certificate_days: Some(number as i64),
        figures: Some(Figures {
            cpu: Some(Duration::MAX),
            resident: Some(number),
            descriptors: Some(number),
            most_descriptors: Some(0),
            threads: Some(number),
        }),
        upgrades: vec![own()],
        reports: vec![own()],
        ..bare()
    }
}

proptest! {
    /// Tags and attributes are the same, whatever the program and its callers say.
    #[test]
    fn no_text_becomes_markup(
        text in "[<>&\"'=/. a-cA-C!\\-\\u{0}-\\u{20}\\u{80}-\\u{2100}]{0,30}",
        number in any::<u64>(),
    ) {
        let tags = |page: &str| -> Vec<String> {
            let tags = page.split('<').skip(1).map(|it| it.split_once('>').expect("an end").0.to_owned());
            tags.collect()
        };
        let is_same = |it: &String| !it.starts_with("path") && !it.starts_with("text") && it != "wbr";
        let quiet: Vec<_> = tags(&render(&saying("x", number))).into_iter().filter(is_same).collect();
        let said = tags(&render(&saying(&text, number)));
        let said: Vec<_> = said.into_iter().filter(is_same).collect();
        prop_assert_eq!(said, quiet);
    }
}

/// Writes pages for `tests/statusz_pictures.py`, which makes pictures of them: into the folder `STATUSZ_PAGES`.
#[test]
#[ignore = "for the eye: it writes files"]
fn pages_are_written_for_pictures() {
    let folder =
        PathBuf::from(std::env::var_os("STATUSZ_PAGES").expect("STATUSZ_PAGES is a folder"));
    let pages = [
        ("serving", serving()),
        ("draining", draining()),
        ("crowded", crowded()),
        ("bare", bare()),
    ];
    for (name, snapshot) in pages {
        std::fs::write(folder.join(format!("{name}.html")), render(&snapshot)).unwrap();
    }
}
