//! The page as a whole: what comes after what.

use std::fmt::{self, Write};

use touchdown::lifecycle::Phase;

use super::chart::Charts;
use super::parts::{calls, checks, lines, methods, queue, tiles};
use super::text::{Text, Time};
use super::Snapshot;

const STYLE: &str = include_str!("style.css");

/// All phases, in their order.
const PHASES: [(Phase, &str); 7] = [
    (Phase::Starting, "Starting"),
    (Phase::Serving, "Serving"),
    (Phase::LameDuck, "Lame duck"),
    (Phase::Draining, "Draining"),
    (Phase::Cancelling, "Cancelling"),
    (Phase::Closing, "Closing"),
    (Phase::Stopped, "Stopped"),
];

/// How many reasons are shown why the program is not ready.
const MOST_REASONS: usize = 20;

pub(super) fn write(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    head(to, snapshot)?;
    to.write_str("<body><header>")?;
    title(to, snapshot)?;
    to.write_str("</header>")?;
    process(to, snapshot)?;
    to.write_str("<main>")?;
    phases(to, snapshot)?;
    notes(to, snapshot)?;
    tiles(to, snapshot)?;
    match (snapshot.checks.is_empty(), snapshot.calls.is_empty()) {
        (false, false) => {
            to.write_str("<div class=pair>")?;
            checks(to, &snapshot.checks)?;
            calls(to, &snapshot.calls)?;
            to.write_str("</div>")?;
        }
        _ => {
            checks(to, &snapshot.checks)?;
            calls(to, &snapshot.calls)?;
        }
    }
    let mut charts = Charts::default();
    methods(to, &snapshot.methods, &mut charts)?;
    if let Some(histogram) = &snapshot.queue_wait {
        queue(to, histogram, &mut charts)?;
    }
    lines(to, "Upgrades", &snapshot.upgrades)?;
    lines(to, "Last stops", &snapshot.reports)?;
    to.write_str("</main>")?;
    footer(to, snapshot)?;
    to.write_str("</body></html>\n")
}

fn head(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    to.write_str(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\"><meta name=robots content=noindex>",
    )?;
    if let Some(seconds) = snapshot.refresh {
        write!(to, "<meta http-equiv=refresh content={}>", seconds.max(1))?;
    }
    let word = word(snapshot).0;
    let program = Text(&snapshot.program);
    write!(
        to,
        "<title>{program}: {word}</title><style>{STYLE}</style></head>"
    )
}

fn title(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    write!(to, "<h1>{}", Text(&snapshot.program))?;
    if let Some(version) = &snapshot.version {
        write!(to, " <small>{}</small>", Text(version))?;
    }
    let (word, class) = word(snapshot);
    write!(to, "</h1><p class=\"tag state {class}\">{word}</p>")
}

fn process(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let (process, uptime) = (snapshot.process, Time(snapshot.uptime));
    write!(
        to,
        "<p class=dim>process {process}&nbsp;· <span>up {uptime}</span>"
    )?;
    if let Some(now) = &snapshot.now {
        write!(to, "&nbsp;· <span>{}</span>", Text(now))?;
    }
    to.write_str("</p>")
}

/// How the program is, in a word, and the class of that.
fn word(snapshot: &Snapshot) -> (&'static str, &'static str) {
    let is_ready = snapshot.not_ready.is_empty();
    match snapshot.phase {
        Phase::Serving if is_ready => ("Serving", "ok"),
        Phase::Serving => ("Serving, not ready", "bad"),
        Phase::Stopped => ("Stopped", "off"),
        phase => (name(phase), "warn"),
    }
}

fn name(phase: Phase) -> &'static str {
    let known = PHASES.iter().find(|it| it.0 == phase);
    known.map_or(phase.as_str(), |it| it.1)
}

/// The way through the phases, and where on it the program is.
fn phases(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    to.write_str("<ol class=phases aria-label=Phases>")?;
    for (phase, name) in PHASES {
        let class = match phase.cmp(&snapshot.phase) {
            std::cmp::Ordering::Less => " class=past",
            std::cmp::Ordering::Equal => " class=here aria-current=step",
            std::cmp::Ordering::Greater => "",
        };
        write!(to, "<li{class}>{name}")?;
        if let (true, Some(time)) = (phase == snapshot.phase, snapshot.phase_for) {
            write!(to, " <small>{}</small>", Time(time))?;
        }
        to.write_str("</li>")?;
    }
    to.write_str("</ol>")?;
    // Where there is no room for all the names.
    if let Some(time) = snapshot.phase_for {
        let phase = name(snapshot.phase);
        write!(
            to,
            "<p class=dim aria-hidden=true>{phase} for {}</p>",
            Time(time)
        )?;
    }
    Ok(())
}

/// What is to be seen before anything else.
fn notes(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    if snapshot.reason.is_some() || snapshot.deadline_in.is_some() {
        to.write_str("<div class=\"note warn\"><b>Stopping</b><p>")?;
        let reason = snapshot.reason.as_deref();
        write!(to, "Why: {}.", Text(reason.unwrap_or("not known")))?;
        if let Some(left) = snapshot.deadline_in {
            write!(to, " <b>{}</b> left until the hard deadline.", Time(left))?;
        }
        to.write_str("</p></div>")?;
    }
    if snapshot.not_ready.is_empty() {
        return Ok(());
    }
    let class = match snapshot.phase {
        Phase::Serving => "bad",
        _ => "warn",
    };
    write!(to, "<div class=\"note {class}\"><b>Not ready</b><ul>")?;
    for why in snapshot.not_ready.iter().take(MOST_REASONS) {
        write!(to, "<li>{}</li>", Text(why))?;
    }
    to.write_str("</ul></div>")
}

fn footer(to: &mut String, snapshot: &Snapshot) -> fmt::Result {
    to.write_str("<footer class=dim>")?;
    match snapshot.refresh {
        Some(seconds) => write!(
            to,
            "<span>Fetched again every {seconds} s · <a href=\"?\">stop that</a></span>"
        )?,
        None => to.write_str("<a href=\"?refresh=5\">Fetch again every 5 s</a>")?,
    }
    for link in &snapshot.links {
        write!(to, "<a href=\"{0}\">{0}</a>", Text(link))?;
    }
    to.write_str("</footer>")
}
