//! What the user sees: lines with the time since the start, from any thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Terminal {
    start: Arc<Instant>,
}

impl Terminal {
    pub fn new() -> Terminal {
        Terminal {
            start: Arc::new(Instant::now()),
        }
    }

    pub fn line(&self, text: &str) {
        println!("{:>6.2} s  {text}", self.start.elapsed().as_secs_f64());
    }
}

/// With commas between the thousands.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn time(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
