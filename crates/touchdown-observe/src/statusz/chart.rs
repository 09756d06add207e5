//! Histograms, and pictures of them.

use std::fmt::{self, Write};

use super::text::{Count, Seconds, Text};

/// How wide a bucket is drawn, the gap included; in pixels, as all sizes here.
const STEP: usize = 14;

/// How high the highest bar is.
const HIGH: f64 = 40.0;

/// How high a picture is, with the words below.
const HEIGHT: usize = 56;

/// Room left and right, for the words below.
const MARGIN: usize = 10;

/// How often a time was seen, in buckets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    /// The upper bounds of the buckets, in seconds, in order. Beyond the last there is one more bucket.
    pub(crate) bounds: Vec<f64>,
    /// How many there are in each bucket alone: one more than bounds.
    pub(crate) counts: Vec<u64>,
    /// The sum of all times, in seconds.
    pub(crate) sum: f64,
}

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, it| sum.saturating_add(*it))
    }

    /// The time within which this part of all was over, as Prometheus' `histogram_quantile` estimates it: as if all
    /// in a bucket lay at equal distances.
    ///
    /// Nothing is estimated in the first bucket and in the last: all may lie close to 0, or anywhere.
    pub(super) fn quantile(&self, part: f64) -> Option<Quantile> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = part * count as f64;
        let mut before = 0.0;
        let mut lower = None;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let count = *count as f64;
            if count > 0.0 && before + count >= rank {
                return Some(match lower {
                    None => Quantile::Below(*bound),
                    Some(lower) => {
                        Quantile::About(lower + (bound - lower) * (rank - before) / count)
                    }
                });
            }
            before += count;
            lower = Some(*bound);
        }
        Some(Quantile::Above(lower.unwrap_or(0.0)))
    }

    /// The mean, in seconds.
    pub(super) fn mean(&self) -> Option<f64> {
        match self.count() {
            0 => None,
            count => Some(self.sum / count as f64),
        }
    }
}

/// An estimated time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quantile {
    About(f64),
    /// Less than the first bound.
    Below(f64),
    /// More than the last bound.
    Above(f64),
}

impl fmt::Display for Quantile {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Quantile::About(time) => Seconds(time).fmt(to),
            Quantile::Below(bound) => write!(to, "&lt; {}", Seconds(bound)),
            Quantile::Above(bound) => write!(to, "&gt; {}", Seconds(bound)),
        }
    }
}

/// The pictures of one page. Those with the same bounds share their scale.
#[derive(Default)]
pub(super) struct Charts<'a> {
    scales: Vec<&'a [f64]>,
}

impl<'a> Charts<'a> {
    /// Draws a histogram, which the title is of.
    pub(super) fn draw(
        &mut self,
        to: &mut String,
        histogram: &'a Histogram,
        title: &str,
    ) -> fmt::Result {
        let known = self.scales.iter().position(|it| *it == histogram.bounds);
        let buckets = histogram.bounds.len() + 1;
        let width = buckets * STEP + 2 * MARGIN;
        write!(
            to,
            "<svg class=chart role=img width={width} height={HEIGHT} viewBox=\"0 0 {width} {HEIGHT}\"><title>{}: ",
            Text(title),
        )?;
        describe(to, histogram)?;
        to.write_str("</title>")?;
        match known {
            Some(number) => write!(to, "<use href=#scale{number} />")?,
            None => {
                write!(to, "<g id=scale{}>", self.scales.len())?;
                scale(to, &histogram.bounds)?;
                to.write_str("</g>")?;
                self.scales.push(&histogram.bounds);
            }
        }
        bars(to, histogram)?;
        to.write_str("</svg>")
    }
}

/// What is below the bars: a line, and the bounds that are powers of ten. Of bounds without any, the first and the
/// last.
fn scale(to: &mut String, bounds: &[f64]) -> fmt::Result {
    let line = bounds.len() * STEP + STEP;
    write!(to, "<path class=axis d=\"M{MARGIN} {HIGH}.5h{line}")?;
    let is_round = |it: f64| it > 0.0 && (it.log10() - it.log10().round()).abs() < 1e-9;
    let round: Vec<_> = (0..bounds.len())
        .filter(|it| is_round(bounds[*it]))
        .collect();
    let marks = match round.is_empty() {
        true if bounds.is_empty() => Vec::new(),
        true => vec![0, bounds.len() - 1],
        false => round,
    };
    let x = |index: usize| MARGIN + (index + 1) * STEP;
    for index in &marks {
        write!(to, "M{}.5 {HIGH}v4", x(*index))?;
    }
    to.write_str("\"/>")?;
    for index in &marks {
        write!(
            to,
            "<text x={} y=54>{}</text>",
            x(*index),
            Seconds(bounds[*index])
        )?;
    }
    Ok(())
}

fn bars(to: &mut String, histogram: &Histogram) -> fmt::Result {
    let most = histogram.counts.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return Ok(());
    }
    to.write_str("<path class=bars d=\"")?;
    let shown = histogram.counts.iter().take(histogram.bounds.len() + 1);
    for (index, count) in shown.enumerate().filter(|it| *it.1 > 0) {
        // A bucket with one of a million is seen, too.
        let high = (HIGH * *count as f64 / most as f64).max(2.0).round();
        let (x, width) = (MARGIN + index * STEP + 1, STEP - 2);
        write!(to, "M{x} {HIGH}v-{high}h{width}v{high}z")?;
    }
    to.write_str("\"/>")
}

/// The picture in words.
fn describe(to: &mut String, histogram: &Histogram) -> fmt::Result {
    let seen = || histogram.counts.iter().enumerate().filter(|it| *it.1 > 0);
    let (Some(fullest), Some(last)) = (seen().rev().max_by_key(|it| it.1), seen().next_back())
    else {
        return to.write_str("none yet");
    };
    let bucket = |to: &mut String, index: usize| {
        let bound = |it: usize| histogram.bounds.get(it).copied().map(Seconds);
        match (index.checked_sub(1).and_then(bound), bound(index)) {
            (None, Some(to_bound)) => write!(to, "up to {to_bound}"),
            (Some(from), Some(to_bound)) => write!(to, "{from} to {to_bound}"),
            (Some(from), None) => write!(to, "more than {from}"),
            (None, None) => to.write_str("any time"),
        }
    };
    write!(
        to,
        "{} in all, {} of them in ",
        Count(histogram.count()),
        Count(*fullest.1)
    )?;
    bucket(to, fullest.0)?;
    to.write_str(", the slowest in ")?;
    bucket(to, last.0)
}
