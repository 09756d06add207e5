//! From the counts to the lines of a scrape.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Weak;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector;
use prometheus_client::encoding::DescriptorEncoder;
use touchdown::lifecycle::{Reason, Remote};
use touchdown::WeakServerHandle;

use super::encoder::Encoder;
use super::names::{
    code_name, place_of, CODES, CONNECTION_REFUSALS, PHASES, REFUSALS, SENT_AWAY, WATCHED,
};
use super::process::Process;
use super::{Inner, MethodSums};
use crate::checks::CheckState;
use crate::Checks;

/// What is looked at as somebody scrapes.
pub(super) struct Source {
    pub(super) server: WeakServerHandle,
    pub(super) remote: Remote,
    pub(super) checks: Option<Checks>,
}

pub(super) struct Collector(pub(super) Weak<Inner>);

impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collector")
    }
}

impl collector::Collector for Collector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self.0.upgrade() {
            Some(inner) => encode(&inner, &mut Encoder(encoder)),
            None => Ok(()),
        }
    }
}

fn encode(inner: &Inner, to: &mut Encoder<'_>) -> fmt::Result {
    let methods = inner.by_method();
    calls(&methods, to)?;
    own_calls(inner, &methods, to)?;
    connections(inner, to)?;
    phases(inner, to)?;
    {
        let source = inner.source.lock();
        if let Some(source) = &*source {
            state(source, to)?;
        }
    }
    let build = [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)];
    to.gauges(
        "touchdown_build_info",
        "The version of touchdown-observe",
        build,
    )?;
    process(&Process::now(), to)
}

/// The families of go-grpc-middleware.
fn calls(methods: &[MethodSums], to: &mut Encoder<'_>) -> fmt::Result {
    let counts = |get: fn(&MethodSums) -> u64| methods.iter().map(move |it| (typed(it), get(it)));
    let help = "RPCs that have arrived, refused ones included";
    to.counters("grpc_server_started", help, counts(|it| it.started))?;
    let watched = WATCHED.map(place_of);
    let handled = methods.iter().flat_map(|method| {
        let codes = (0..CODES).map(|code| (code, method.handled[code]));
        // An unknown method has only the codes that it got.
        let shown = codes.filter(|(code, count)| {
            *count > 0 || (method.service != "other" && watched.contains(code))
        });
        shown.map(|(code, count)| ((typed(method), [("grpc_code", code_name(code))]), count))
    });
    to.counters(
        "grpc_server_handled",
        "RPCs that have ended, by their code",
        handled,
    )?;
    let help = "Messages that handlers have received";
    to.counters("grpc_server_msg_received", help, counts(|it| it.received))?;
    let help = "Messages that were sent";
    to.counters("grpc_server_msg_sent", help, counts(|it| it.sent))?;
    let help = "Time from the arrival of an RPC until its end, the wait for a worker included; without refused RPCs";
    let times = methods.iter().map(|it| (typed(it), &it.times));
    to.histograms("grpc_server_handling_seconds", help, times)
}

fn own_calls(inner: &Inner, methods: &[MethodSums], to: &mut Encoder<'_>) -> fmt::Result {
    let in_flight = methods.iter().map(|it| (named(it), it.in_flight()));
    to.gauges(
        "touchdown_calls_in_flight",
        "RPCs that have arrived and not ended",
        in_flight,
    )?;
    let counts = |get: fn(&MethodSums) -> u64| methods.iter().map(move |it| (named(it), get(it)));
    let help = "RPCs that the server has ended before their handler did, in a drain or for want of threads";
    to.counters("touchdown_calls_cut", help, counts(|it| it.cut))?;
    let help = "Bytes of messages that handlers have received, as they are on the wire";
    to.counters(
        "touchdown_message_received_bytes",
        help,
        counts(|it| it.received_bytes),
    )?;
    let help = "Bytes of messages that were sent, as they are on the wire";
    to.counters(
        "touchdown_message_sent_bytes",
        help,
        counts(|it| it.sent_bytes),
    )?;
    let common = inner.common();
    let help = "Time that an RPC has waited for a worker";
    to.histogram("touchdown_queue_wait_seconds", help, &common.waited)?;
    let refused = REFUSALS.iter().zip(common.refused);
    let refused = refused.map(|(reason, count)| ([("reason", *reason)], count));
    to.counters(
        "touchdown_calls_refused",
        "RPCs that no handler has seen",
        refused,
    )?;
    let help = "RPCs whose handler did not return, and that the server has given up";
    to.counter("touchdown_calls_abandoned", help, common.abandoned)?;
    let help = "RPCs whose caller did not wait for the end";
    to.counter("touchdown_calls_caller_left", help, common.caller_left)?;
    let help = "RPCs whose connection was cut before their answer had gone out";
    to.counter("touchdown_calls_undelivered", help, common.undelivered)
}

fn connections(inner: &Inner, to: &mut Encoder<'_>) -> fmt::Result {
    let connections = &inner.connections;
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let help = "Connections that were accepted and served";
    to.counter(
        "touchdown_connections_opened",
        help,
        get(&connections.opened),
    )?;
    let refused = CONNECTION_REFUSALS.iter().zip(&connections.refused);
    let refused = refused.map(|(reason, count)| ([("reason", *reason)], get(count)));
    let help = "Connections that were closed as soon as they were accepted";
    to.counters("touchdown_connections_refused", help, refused)?;
    let sent = SENT_AWAY.iter().zip(&connections.sent_away);
    let sent = sent.map(|(reason, count)| ([("reason", *reason)], get(count)));
    let help =
        "Connections whose client was told to make no more RPCs on it, while the server went on";
    to.counters("touchdown_connections_sent_away", help, sent)?;
    let help = "TLS handshakes that have failed";
    to.counter(
        "touchdown_tls_handshakes_failed",
        help,
        get(&connections.handshakes_failed),
    )
}

fn phases(inner: &Inner, to: &mut Encoder<'_>) -> fmt::Result {
    let (now, entered, drained) = {
        let phases = inner.phases.lock();
        (phases.now, phases.entered, phases.drained)
    };
    let states = PHASES
        .iter()
        .map(|(phase, name)| ([("phase", *name)], u64::from(*phase == now)));
    to.gauges(
        "touchdown_phase",
        "1 for the phase that the program is in",
        states,
    )?;
    let help = "When the program has entered its phase, in seconds since 1970";
    to.gauge(
        "touchdown_phase_entered_timestamp_seconds",
        help,
        seconds_of(entered),
    )?;
    match drained {
        Some(drained) => to.gauge(
            "touchdown_drain_duration_seconds",
            "How long the drain of this process took",
            drained.as_secs_f64(),
        ),
        None => Ok(()),
    }
}

/// What is known at this moment, and not counted.
fn state(source: &Source, to: &mut Encoder<'_>) -> fmt::Result {
    let (Some(load), Some(connections)) = (source.server.load(), source.server.connections())
    else {
        return Ok(());
    };
    let idle = load.workers.saturating_sub(load.busy);
    let workers = [
        ([("state", "busy")], load.busy),
        ([("state", "idle")], idle),
    ];
    to.gauges("touchdown_workers", "Threads that run handlers", workers)?;
    to.gauge(
        "touchdown_stream_threads",
        "Handlers of streams on threads of their own",
        load.streams,
    )?;
    to.gauge(
        "touchdown_backlog_calls",
        "RPCs that wait for a worker",
        load.waiting,
    )?;
    to.gauge(
        "touchdown_backlog_limit_calls",
        "RPCs that may wait for a worker",
        load.backlog,
    )?;
    to.gauge(
        "touchdown_connections",
        "Connections that are open",
        connections,
    )?;
    let replaced = matches!(source.remote.reason(), Some(Reason::Replaced(_)));
    let replaced = [([("outcome", "replaced")], u64::from(replaced))];
    let help = "Hot restarts of this process, which ends after the first that succeeds";
    to.counters("touchdown_upgrades", help, replaced)?;
    #[cfg(feature = "tls")]
    if let Some(expires) = source.server.certificate_expires() {
        let expires = seconds_of(expires);
        let help = "When the first of the certificates expires, in seconds since 1970";
        to.gauge(
            "touchdown_tls_certificate_expiry_timestamp_seconds",
            help,
            expires,
        )?;
        let help = "Days until the first of the certificates expires, by this machine's clock";
        let left = (expires - seconds_of(SystemTime::now())) / 86_400.0;
        to.gauge("touchdown_tls_certificate_days_left", help, left)?;
    }
    let drops = drops(&source.remote);
    if !drops.is_empty() {
        let help = "Records of calls that were left out, since whoever takes them was too slow";
        to.counters("touchdown_telemetry_dropped", help, drops)?;
    }
    match &source.checks {
        Some(checks) => show_checks(checks, to),
        None => Ok(()),
    }
}

/// What other parts of this crate have left out. They keep their counts with the lifecycle.
fn drops(program: &Remote) -> Vec<([Label; 1], u64)> {
    let counts: [(&'static str, Option<u64>); 2] = [
        #[cfg(feature = "access-log")]
        (
            "access_log",
            program
                .attached::<crate::access_log::Counts>()
                .map(|it| it.dropped()),
        ),
        #[cfg(not(feature = "access-log"))]
        ("access_log", None),
        #[cfg(feature = "otel")]
        (
            "span",
            program
                .attached::<crate::otel::SpanCounts>()
                .map(|it| it.dropped()),
        ),
        #[cfg(not(feature = "otel"))]
        ("span", None),
    ];
    let _ = program;
    let there = counts.into_iter();
    there
        .filter_map(|(kind, count)| Some(([("kind", kind)], count?)))
        .collect()
}

fn show_checks(checks: &Checks, to: &mut Encoder<'_>) -> fmt::Result {
    let all = checks.statuses();
    if all.is_empty() {
        return Ok(());
    }
    let up = all.iter().map(|it| {
        let labels = [
            ("check", it.name.as_str()),
            ("counts_for", it.counts_for.as_str()),
        ];
        (labels, u64::from(it.state == CheckState::Up))
    });
    to.gauges(
        "touchdown_health_check_up",
        "1 if the component is there",
        up,
    )?;
    let took = all
        .iter()
        .map(|it| ([("check", it.name.as_str())], it.took.as_secs_f64()));
    let help = "How long the check took the last time";
    to.gauges("touchdown_health_check_duration_seconds", help, took)?;
    let last = all
        .iter()
        .filter_map(|it| Some(([("check", it.name.as_str())], seconds_of(it.last?))));
    let help = "When the check last had an outcome, in seconds since 1970";
    to.gauges("touchdown_health_check_timestamp_seconds", help, last)
}

fn process(process: &Process, to: &mut Encoder<'_>) -> fmt::Result {
    if let Some(seconds) = process.cpu_seconds {
        to.counter(
            "process_cpu_seconds",
            "Processor time, of user and system",
            seconds,
        )?;
    }
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory that is in RAM",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Memory that is addressed",
            process.virtual_bytes,
        ),
        (
            "process_open_fds",
            "Descriptors that are open",
            process.open_fds,
        ),
        (
            "process_max_fds",
            "Descriptors that may be open",
            process.max_fds,
        ),
        ("process_threads", "Threads", process.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            to.gauge(name, help, value)?;
        }
    }
    match process.started {
        Some(started) => {
            let help = "When the process was started, in seconds since 1970";
            to.gauge("process_start_time_seconds", help, started)
        }
        None => Ok(()),
    }
}

type Label = (&'static str, &'static str);

fn typed(method: &MethodSums) -> [Label; 3] {
    [
        ("grpc_type", method.kind),
        ("grpc_service", method.service),
        ("grpc_method", method.name),
    ]
}

fn named(method: &MethodSums) -> [Label; 2] {
    [
        ("grpc_service", method.service),
        ("grpc_method", method.name),
    ]
}

fn seconds_of(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(error) => -error.duration().as_secs_f64(),
    }
}
