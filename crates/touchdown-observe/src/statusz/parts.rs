//! The parts of the page, one by one.

use std::fmt::{self, Write};

use super::chart::{Charts, Histogram};
use super::text::{Count, Name, Size, Text, Time};
use super::{Check, CheckState, Method, RunningCall, Snapshot, MOST_CALLS, MOST_LINES};

/// The percentiles that are shown, and what part of all they are of.
const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// From how many days on a certificate is due.
const DUE: i64 = 14;

/// The figures that are looked at first.
pub(super) fn tiles(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let count = |it: usize| Count(it as u64).to_string();
    to.write_str("<dl class=tiles>")?;
    let oldest = snapshot.calls.iter().map(|it| it.age).max();
    let oldest = oldest.map(|it| format!("oldest {}", Time(it)));
    tile(to, "Calls in flight", &count(snapshot.in_flight), oldest)?;
    if let Some(load) = snapshot.load {
        let busy = format!("{} of {}", load.busy, load.workers);
        share(
            to,
            "Workers busy",
            &busy,
            load.busy as u64,
            load.workers as u64,
        )?;
        let waiting = format!("{} of {}", load.waiting, load.backlog);
        share(
            to,
            "Backlog",
            &waiting,
            load.waiting as u64,
            load.backlog as u64,
        )?;
        tile(to, "Streams", &count(load.streams), None)?;
    }
    if let Some(connections) = snapshot.connections {
        tile(to, "Connections", &count(connections), None)?;
    }
    let figures = snapshot.figures.unwrap_or_default();
    if let Some(cpu) = figures.cpu {
        let share = 100.0 * cpu.as_secs_f64() / snapshot.uptime.as_secs_f64().max(0.001);
        let text = Time(cpu).to_string();
        tile(
            to,
            "Processor",
            &text,
            Some(format!("{share:.1} % on average")),
        )?;
    }
    if let Some(bytes) = figures.resident {
        tile(to, "Memory", &Size(bytes).to_string(), None)?;
    }
    match (figures.descriptors, figures.most_descriptors) {
        (Some(open), Some(most)) => {
            let text = format!("{} of {}", Count(open), Count(most));
            share(to, "Descriptors", &text, open, most)?;
        }
        (Some(open), None) => tile(to, "Descriptors", &Count(open).to_string(), None)?,
        _ => {}
    }
    if let Some(threads) = figures.threads {
        tile(to, "Threads", &Count(threads).to_string(), None)?;
    }
    if let Some(days) = snapshot.certificate_days {
        certificate(to, days)?;
    }
    to.write_str("</dl>")
}

fn tile(to: &mut String, name: &str, value: &str, note: Option<String>) -> fmt::Result {
    let note = note.unwrap_or_default();
    write!(
        to,
        "<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"
    )
}

/// A figure of which there can only be so much.
fn share(to: &mut String, name: &str, value: &str, part: u64, whole: u64) -> fmt::Result {
    let percent = part.saturating_mul(100) / whole.max(1);
    let percent = percent.min(100);
    write!(
        to,
        "<div><dt>{name}</dt><dd>{value}<span class=bar aria-hidden=true><i style=width:{percent}%></i></span></dd></div>"
    )
}

fn certificate(to: &mut String, days: i64) -> fmt::Result {
    let (value, note) = match days {
        ..0 => (
            "expired".to_owned(),
            "<span class=\"tag bad\">renew it</span>",
        ),
        0..DUE => (days_in_words(days), "<span class=\"tag warn\">due</span>"),
        _ => (days_in_words(days), "until it expires"),
    };
    tile(to, "Certificate", &value, Some(note.to_owned()))
}

fn days_in_words(days: i64) -> String {
    match days {
        1 => "1 day".to_owned(),
        _ => format!("{days} days"),
    }
}

pub(super) fn checks(to: &mut String, checks: &[Check]) -> fmt::Result {
    if checks.is_empty() {
        return Ok(());
    }
    to.write_str("<section><h2>Checks</h2><ul class=checks>")?;
    checks.iter().try_for_each(|it| check(to, it))?;
    to.write_str("</ul></section>")
}

fn check(to: &mut String, check: &Check) -> fmt::Result {
    let (word, class) = match (check.hangs, check.state) {
        (Some(_), _) => ("hangs", "bad"),
        (None, CheckState::Up) => ("up", "ok"),
        (None, CheckState::Down) => ("down", "bad"),
        (None, CheckState::Unknown) => ("not known yet", "off"),
    };
    let name = Text(&check.name);
    write!(
        to,
        "<li><div class=row><b>{name}</b><span class=\"tag {class}\">{word}</span></div><p class=dim><span>for {}</span>",
        Text(&check.counts_for),
    )?;
    // Lines are broken between these, after the dots.
    if let Some(since) = check.since {
        let state = match check.state {
            CheckState::Up => "up",
            CheckState::Down => "down",
            CheckState::Unknown => "not known",
        };
        write!(to, "&nbsp;· <span>{state} for {}</span>", Time(since))?;
    }
    if let Some(took) = check.took {
        write!(to, "&nbsp;· <span>took {}</span>", Time(took))?;
    }
    if let Some(checked) = check.checked {
        write!(to, "&nbsp;· <span>{} ago</span>", Time(checked))?;
    }
    to.write_str("</p>")?;
    if let Some(hangs) = check.hangs {
        write!(to, "<p>It has not returned for {}.</p>", Time(hangs))?;
    }
    if let Some(message) = &check.message {
        write!(to, "<p>{}</p>", Text(message))?;
    }
    to.write_str("</li>")
}

/// What a table is made of keeps its meaning, however it is laid out.
const ROW: &str = "<tr role=row>";

pub(super) fn calls(to: &mut String, calls: &[RunningCall]) -> fmt::Result {
    if calls.is_empty() {
        return Ok(());
    }
    to.write_str("<section><h2>Running calls</h2><table class=calls role=table>")?;
    let more = calls.len().saturating_sub(MOST_CALLS);
    match more {
        0 => to.write_str("<caption>The oldest first</caption>")?,
        _ => write!(
            to,
            "<caption>The {MOST_CALLS} oldest; {} more run</caption>",
            Count(more as u64)
        )?,
    }
    to.write_str(
        "<thead role=rowgroup><tr role=row><th role=columnheader>Age<th role=columnheader>Method\
         <th role=columnheader>Peer</thead><tbody role=rowgroup>",
    )?;
    for call in calls.iter().take(MOST_CALLS) {
        let path = call.method.strip_prefix('/').unwrap_or(&call.method);
        let (service, name) = path.rsplit_once('/').unwrap_or(("", path));
        write!(
            to,
            "{ROW}<td role=cell>{}<td role=cell>{}<span class=service>{}</span><td role=cell class=peer>{}",
            Time(call.age),
            Name(name),
            Name(service),
            Text(&call.peer),
        )?;
    }
    to.write_str("</tbody></table></section>")
}

pub(super) fn methods<'a>(
    to: &mut String,
    methods: &'a [Method],
    charts: &mut Charts<'a>,
) -> fmt::Result {
    if methods.is_empty() {
        return Ok(());
    }
    let (idle, called): (Vec<_>, Vec<_>) = methods
        .iter()
        .partition(|it| it.started == 0 && it.in_flight == 0 && it.errors.is_empty());
    to.write_str("<section><h2>Methods</h2>")?;
    if !called.is_empty() {
        to.write_str(
            "<table class=methods role=table><caption>Percentiles are estimated from the histogram</caption>\
             <thead role=rowgroup><tr role=row><th role=columnheader>Method",
        )?;
        for column in ["Started", "In flight", "Errors"] {
            write!(to, "<th role=columnheader class=n>{column}")?;
        }
        to.write_str("<th role=columnheader>By code")?;
        for (name, _) in PARTS {
            write!(to, "<th role=columnheader class=n>{name}")?;
        }
        to.write_str("<th role=columnheader>Time taken</thead><tbody role=rowgroup>")?;
        called
            .into_iter()
            .try_for_each(|it| method(to, it, charts))?;
        to.write_str("</tbody></table>")?;
    }
    if !idle.is_empty() {
        let count = idle.len();
        let noun = if count == 1 { "method" } else { "methods" };
        write!(
            to,
            "<details><summary>{count} {noun} not called yet</summary><ul>"
        )?;
        for method in idle {
            write!(
                to,
                "<li>{} <span class=service>{}</span></li>",
                Name(&method.name),
                Name(&method.service)
            )?;
        }
        to.write_str("</ul></details>")?;
    }
    to.write_str("</section>")
}

fn method<'a>(to: &mut String, method: &'a Method, charts: &mut Charts<'a>) -> fmt::Result {
    write!(
        to,
        "{ROW}<th role=rowheader scope=row><b>{}</b><span class=service>{} · {}</span>",
        Name(&method.name),
        Name(&method.service),
        Text(&method.kind),
    )?;
    write!(
        to,
        "<td role=cell class=n data-l=Started>{}",
        Count(method.started)
    )?;
    let in_flight = Count(method.in_flight as u64);
    write!(to, "<td role=cell class=n data-l=\"In flight\">{in_flight}")?;
    if let Some(oldest) = method.oldest {
        write!(to, "<small>oldest {}</small>", Time(oldest))?;
    }
    errors(to, &method.errors)?;
    let histogram = method.latency.as_ref().filter(|it| it.count() > 0);
    for (name, part) in PARTS {
        write!(to, "<td role=cell class=n data-l={name}>")?;
        match histogram.and_then(|it| it.quantile(part)) {
            Some(time) => write!(to, "{time}")?,
            None => to.write_str("–")?,
        }
    }
    to.write_str("<td role=cell class=wide>")?;
    match histogram {
        Some(histogram) => charts.draw(to, histogram, &method.name),
        None => Ok(()),
    }
}

/// How many calls have failed, and with which codes.
fn errors(to: &mut String, errors: &[(String, u64)]) -> fmt::Result {
    let seen = errors.iter().filter(|it| it.1 > 0);
    let sum = seen.clone().fold(0_u64, |sum, it| sum.saturating_add(it.1));
    let class = if sum == 0 { "" } else { " class=wrong" };
    write!(
        to,
        "<td role=cell class=n data-l=Errors><span{class}>{}</span>",
        Count(sum)
    )?;
    to.write_str("<td role=cell class=codes>")?;
    for (code, count) in seen {
        write!(to, "<span>{} {}</span> ", Text(code), Count(*count))?;
    }
    Ok(())
}

/// How long calls wait for a worker.
pub(super) fn queue<'a>(
    to: &mut String,
    histogram: &'a Histogram,
    charts: &mut Charts<'a>,
) -> fmt::Result {
    if histogram.count() == 0 {
        return Ok(());
    }
    to.write_str("<section><h2>Waiting for a worker</h2><div class=wait>")?;
    charts.draw(to, histogram, "waiting for a worker")?;
    to.write_str("<dl class=quants>")?;
    for (name, part) in PARTS {
        if let Some(time) = histogram.quantile(part) {
            write!(to, "<div><dt>{name}</dt><dd>{time}</dd></div>")?;
        }
    }
    if let Some(mean) = histogram.mean() {
        write!(
            to,
            "<div><dt>mean</dt><dd>{}</dd></div>",
            super::text::Seconds(mean)
        )?;
    }
    write!(
        to,
        "<div><dt>calls</dt><dd>{}</dd></div>",
        Count(histogram.count())
    )?;
    to.write_str("</dl></div></section>")
}

pub(super) fn lines(to: &mut String, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    write!(to, "<section><h2>{title}</h2><ul class=lines>")?;
    for line in lines.iter().take(MOST_LINES) {
        write!(to, "<li>{}</li>", Text(line))?;
    }
    to.write_str("</ul></section>")
}
