//! The whole: a server with checks, an HTTP door and metrics, looked at from outside while it serves and stops.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{
    echo, eventually, free_address, get, get_with, lifecycle, say, value, wait, Switch, LONG,
};
use touchdown::client::CallOptions;
use touchdown::lifecycle::{exit_code, Phase, Plan};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::TestServer;
use touchdown::{Server, ServingStatus};
use touchdown_observe::{HealthCheck, Metrics, Observe, ObserveServer};

/// Runs often, and believes what it sees.
fn quick(check: HealthCheck) -> HealthCheck {
    check.interval(Duration::from_millis(10)).down_after(1)
}

fn is(address: &str, path: &str, status: u16) -> Result<(), (u16, String)> {
    let seen = get(address, path);
    match seen.0 == status {
        true => Ok(()),
        false => Err(seen),
    }
}

#[test]
fn a_component_that_is_down_is_seen_alike_by_all_who_ask() {
    let (service, ..) = echo();
    let (address, switch) = (free_address(), Switch::default());
    let looked = switch.clone();
    let check = quick(HealthCheck::for_readiness("database", move || {
        Ok(looked.look()?)
    }));
    let observe = Observe::at(&address).check(check);
    let server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    let both = |status, serving| {
        eventually("all say the same", || is(&address, "/readyz", status));
        assert_eq!(server.serving_status(""), Some(serving));
        assert_eq!(server.serving_status("test.Echo"), Some(serving));
        assert_eq!(get(&address, "/readyz?service=test.Echo").0, status);
        assert_eq!(get(&address, "/readyz/database").0, status);
    };
    both(200, ServingStatus::Serving);
    assert_eq!(get(&address, "/readyz").1, "ok\n");
    switch.fail("no such\nhost");
    both(503, ServingStatus::NotServing);
    let (_, told) = get(&address, "/readyz");
    assert!(told.contains("[-]database down for"), "{told}");
    assert!(told.contains("no such host\n"), "one line each: {told}");
    let (_, json) = get_with(&address, "/readyz", "Accept: application/json\r\n");
    assert!(
        json.contains("\"name\":\"database\",\"ok\":false"),
        "{json}"
    );
    assert!(json.contains("no such\\nhost"), "{json}");
    assert_eq!(get(&address, "/livez").0, 200, "it need not be restarted");
    server.lifecycle().check(LONG).unwrap();
    say(&server.client(), "it serves on").unwrap();
    switch.mend();
    both(200, ServingStatus::Serving);
    assert_eq!(get(&address, "/readyz/no-such-check").0, 404);
    assert_eq!(get(&address, "/readyz?service=no.Such").0, 404);
    assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
}

#[test]
fn a_check_of_one_service_leaves_the_others_alone() {
    let (service, ..) = echo();
    let address = free_address();
    let check =
        HealthCheck::for_readiness("sensor", || Err("unplugged".into())).of_service("test.Echo");
    let observe = Observe::at(&address).check(quick(check));
    let server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    eventually("it is down", || {
        is(&address, "/readyz?service=test.Echo", 503)
    });
    assert_eq!(
        server.serving_status("test.Echo"),
        Some(ServingStatus::NotServing)
    );
    assert_eq!(server.serving_status(""), Some(ServingStatus::Serving));
    let (status, told) = get(&address, "/readyz?verbose");
    assert_eq!(status, 200);
    assert!(
        told.contains("[-]sensor") && told.contains("(does not count here)"),
        "{told}"
    );
}

#[test]
fn a_component_without_which_the_program_is_to_be_restarted_fails_its_check() {
    let (service, ..) = echo();
    let (address, switch) = (free_address(), Switch::default());
    let looked = switch.clone();
    let check = HealthCheck::for_liveness("heart", move || Ok(looked.look()?));
    let observe = Observe::at(&address).check(quick(check));
    let server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    eventually("it lives", || is(&address, "/livez", 200));
    switch.fail("stands still");
    eventually("it does not", || is(&address, "/livez", 503));
    assert_eq!(get(&address, "/readyz").0, 200);
    // As systemd's watchdog asks.
    let error = server
        .lifecycle()
        .check(Duration::from_millis(50))
        .unwrap_err();
    assert_eq!(error.missing, ["checks: heart down"]);
}

/// It is named, has failed, and is not started a second time.
#[test]
fn a_check_that_hangs_has_failed() {
    let (service, ..) = echo();
    let (address, metrics) = (free_address(), Metrics::new());
    let (go, gate) = channel::<()>();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let check = HealthCheck::for_readiness("device", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(gate.recv()?)
    });
    let check = quick(check.time_limit(Duration::from_millis(20))).down_after(3);
    let observe = Observe::at(&address).metrics(metrics.clone()).check(check);
    let server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    eventually("it hangs", || match get(&address, "/readyz/device") {
        (503, told) if told.contains("it has not returned for") => Ok(()),
        seen => Err(seen),
    });
    let up = "touchdown_health_check_up{check=\"device\",counts_for=\"readiness\"}";
    assert_eq!(value(&metrics.text(), up), Some(0.0));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert!(
        server.lifecycle().describe().contains("device"),
        "{}",
        server.lifecycle().describe()
    );
    // Twice: the first of them was late.
    go.send(()).unwrap();
    go.send(()).unwrap();
    eventually("it is up again", || is(&address, "/readyz", 200));
    drop(go);
    assert_eq!(server.stop().exit_code(), exit_code::CLEAN);
}

struct Unlucky;

impl Drop for Unlucky {
    fn drop(&mut self) {
        panic!("once more");
    }
}

#[test]
fn a_check_that_panics_has_failed_and_runs_again() {
    let (service, ..) = echo();
    let address = free_address();
    let mut runs = 0;
    let (looked, look) = channel();
    let check = HealthCheck::for_readiness("frail", move || {
        runs += 1;
        if runs == 1 {
            panic!("out of luck");
        }
        if runs == 2 {
            // Whoever drops this panics, too.
            std::panic::panic_any(Unlucky);
        }
        Ok(look.recv()?)
    });
    let observe = Observe::at(&address).check(quick(check).time_limit(LONG));
    let server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    eventually("it has failed", || match get(&address, "/readyz") {
        (503, told) if told.contains("the check frail panicked: ") => Ok(()),
        seen => Err(seen),
    });
    looked.send(()).unwrap();
    eventually("it is up", || is(&address, "/readyz", 200));
    drop(looked);
    drop(server);
}

#[test]
fn settings_that_cannot_be_kept_keep_the_server_from_starting() {
    let check = |name: &str| HealthCheck::for_information(name, || Ok(()));
    let start = |observe: Observe| {
        let (service, ..) = echo();
        let error =
            TestServer::start(Server::builder().service(service).observe(observe)).map(|_| ());
        error.unwrap_err().to_string()
    };
    let twice = Observe::new().check(check("disk")).check(check("disk"));
    assert!(
        start(twice).contains("name of the check \"disk\" is"),
        "twice"
    );
    let error = start(Observe::new().check(check("disk").interval(Duration::ZERO)));
    assert!(
        error.contains("interval of the check \"disk\" is 0ns, and must be from 10 ms"),
        "{error}"
    );
    let error = start(Observe::new().check(check("")));
    assert!(error.contains("1 to 64 bytes"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let held = std::net::TcpListener::bind(&taken);
    let error = start(Observe::at(&taken));
    assert!(held.is_err() || error.contains(&taken), "{error}");
    let error = start(Observe::at("127.0.0.1:0").last_scrape(Plan::new().closing()));
    assert!(
        error.contains("must be shorter (Plan::with_closing)"),
        "{error}"
    );
    let error = start(Observe::new().file("/tmp/touchdown.txt", LONG));
    assert!(error.contains("must end with .prom"), "{error}");
    let error = start(Observe::new().file("/no/such/folder/x.prom", LONG));
    assert!(
        error.contains("there is no folder /no/such/folder"),
        "{error}"
    );
}

#[test]
fn a_server_that_does_not_start_leaves_no_door_open() {
    let address = free_address();
    let nobody = Server::builder()
        .address("256.0.0.1:x")
        .observe(Observe::at(&address));
    TestServer::start(nobody).map(|_| ()).unwrap_err();
    eventually("the port is free", || {
        std::net::TcpListener::bind(&address).map(|_| ())
    });
}

/// What clients count is what a scrape says, however many threads counted.
#[test]
fn the_counts_are_those_of_the_clients() {
    let (service, ..) = echo();
    let (address, metrics) = (free_address(), Metrics::new());
    let observe = Observe::at(&address).metrics(metrics.clone());
    let builder = Server::builder()
        .workers(4)
        .service(service)
        .observe(observe);
    let server = TestServer::start(builder).unwrap();
    let (threads, calls) = (8, 200);
    let together = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let client = server.client();
                together.wait();
                for number in 0..calls {
                    match number % 4 {
                        // NOT_FOUND.
                        0 => drop(say(&client, "5").unwrap_err()),
                        1 => {
                            let path: &'static str = format!("/test.Echo/No{number}").leak();
                            let options = CallOptions::new().timeout(LONG);
                            let answer = client.unary::<StringValue, StringValue>(
                                path,
                                &common::text(""),
                                options,
                            );
                            answer.unwrap_err();
                        }
                        _ => drop(say(&client, "word").unwrap()),
                    }
                }
            });
        }
    });
    let all = (threads * calls) as f64;
    let echo = "grpc_type=\"unary\",grpc_service=\"test.Echo\",grpc_method=\"Say\"";
    let other = "grpc_type=\"unary\",grpc_service=\"other\",grpc_method=\"other\"";
    // Each end is told by the time that its status is with the kernel, which may be a moment behind the client.
    eventually("all have ended", || {
        let text = metrics.text();
        let flying = "touchdown_calls_in_flight{grpc_service=\"test.Echo\",grpc_method=\"Say\"}";
        match value(&text, flying) {
            Some(0.0) => Ok(()),
            seen => Err(seen),
        }
    });
    let (status, text) = get(&address, "/metrics");
    assert_eq!(status, 200);
    let is = |series: &str, count: f64| assert_eq!(value(&text, series), Some(count), "{series}");
    is(&format!("grpc_server_started_total{{{echo}}}"), all * 0.75);
    is(
        &format!("grpc_server_handled_total{{{echo},grpc_code=\"OK\"}}"),
        all / 2.0,
    );
    is(
        &format!("grpc_server_handled_total{{{echo},grpc_code=\"NotFound\"}}"),
        all / 4.0,
    );
    is(
        &format!("grpc_server_handled_total{{{echo},grpc_code=\"Internal\"}}"),
        0.0,
    );
    is(
        &format!("grpc_server_msg_received_total{{{echo}}}"),
        all * 0.75,
    );
    is(&format!("grpc_server_msg_sent_total{{{echo}}}"), all / 2.0);
    is(
        &format!("grpc_server_handling_seconds_count{{{echo}}}"),
        all * 0.75,
    );
    is(
        &format!("grpc_server_handled_total{{{other},grpc_code=\"Unimplemented\"}}"),
        all / 4.0,
    );
    is(
        "touchdown_calls_refused_total{reason=\"unknown_method\"}",
        all / 4.0,
    );
    is("touchdown_connections_opened_total", threads as f64);
    is("touchdown_workers{state=\"idle\"}", 4.0);
    is("touchdown_phase{phase=\"serving\"}", 1.0);
    assert!(!text.contains("No1"), "no label is a caller's");
    let (_, open) = get_with(
        &address,
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
    );
    assert!(open.ends_with("# EOF\n"));
}

/// Both from the same moment, before anybody is refused; and the last scrape has every call.
#[test]
fn a_drain_is_seen_from_outside_until_its_end() {
    let (service, go, has_begun) = echo();
    let address = free_address();
    let observe = Observe::at(&address).last_scrape(Duration::from_secs(10));
    let builder = Server::builder()
        .service(service)
        .observe(observe)
        .lifecycle(lifecycle());
    let server = TestServer::start(builder).unwrap();
    assert_eq!(get(&address, "/startupz").0, 200);
    let client = server.client();
    say(&client, "before").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| wait(&client).unwrap());
        has_begun.recv_timeout(LONG).unwrap();
        let running = server.lifecycle().remote();
        running.shutdown("test");
        // The call is in flight yet.
        assert_eq!(server.serving_status(""), Some(ServingStatus::NotServing));
        let (status, told) = get(&address, "/readyz");
        assert_eq!(status, 503, "{told}");
        assert!(told.contains("NOT_SERVING"), "{told}");
        assert_eq!(
            get(&address, "/livez").0,
            200,
            "nobody restarts a program that drains"
        );
        assert_eq!(get(&address, "/startupz").0, 200);
        eventually("it drains", || match running.phase() {
            Phase::Draining => Ok(()),
            seen => Err(seen),
        });
        let (_, text) = get(&address, "/metrics");
        assert_eq!(
            value(&text, "touchdown_phase{phase=\"draining\"}"),
            Some(1.0)
        );
        let flying = "touchdown_calls_in_flight{grpc_service=\"test.Echo\",grpc_method=\"Wait\"}";
        assert_eq!(value(&text, flying), Some(1.0));
        go.send(()).unwrap();
        waits.join().unwrap();
        eventually("it is closing", || match running.phase() {
            Phase::Closing => Ok(()),
            seen => Err(seen),
        });
        // What is scraped before the hooks of Closing is not the last: a server may count until then.
        let described = || running.describe();
        eventually("it waits for a scrape", || match described() {
            text if text.contains("last scrape") => Ok(()),
            seen => Err(seen),
        });
        let (_, text) = get(&address, "/metrics");
        let ok = |method| {
            let labels =
                format!("grpc_type=\"unary\",grpc_service=\"test.Echo\",grpc_method=\"{method}\"");
            value(
                &text,
                &format!("grpc_server_handled_total{{{labels},grpc_code=\"OK\"}}"),
            )
        };
        assert_eq!((ok("Say"), ok("Wait")), (Some(1.0), Some(1.0)));
        assert_eq!(
            value(&text, "touchdown_phase{phase=\"closing\"}"),
            Some(1.0)
        );
        assert!(value(&text, "touchdown_drain_duration_seconds").is_some());
    });
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN);
    assert!(
        report.took < Duration::from_secs(10),
        "the scrape ended the wait: {:?}",
        report.took
    );
}

#[test]
fn metrics_are_in_a_file_from_the_beginning_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greeter.prom");
    let (service, ..) = echo();
    let observe = Observe::new().file(&path, Duration::from_secs(3600));
    let server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("it is written", || match read() {
        text if text.contains("touchdown_phase{phase=\"serving\"}") => Ok(()),
        seen => Err(seen),
    });
    say(&server.client(), "word").unwrap();
    server.stop();
    let labels =
        "grpc_type=\"unary\",grpc_service=\"test.Echo\",grpc_method=\"Say\",grpc_code=\"OK\"";
    assert_eq!(
        value(&read(), &format!("grpc_server_handled_total{{{labels}}}")),
        Some(1.0)
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing else is left"
    );
}

#[test]
fn a_program_has_metrics_of_its_own_in_the_same_place() {
    use prometheus_client::metrics::counter::Counter;
    let (service, ..) = echo();
    let (address, metrics) = (free_address(), Metrics::new());
    let readings: Counter = Counter::default();
    metrics.register(|it| it.register("meter_readings", "Readings", readings.clone()));
    let observe = Observe::at(&address).metrics(metrics);
    let _server = TestServer::start(Server::builder().service(service).observe(observe)).unwrap();
    readings.inc_by(3);
    assert_eq!(
        value(&get(&address, "/metrics").1, "meter_readings_total"),
        Some(3.0)
    );
}
