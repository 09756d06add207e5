//! The keys of a line in JSON: none is there twice, and none stands in the way of the schema's.

use std::ops::Range;

use super::escape::{self, Form};
use super::NAME;

/// What stands before the pairs of a line, with which none of those may collide, in this order (ecs-logging asks for the
/// first three to come first), and what may stand after them.
pub(crate) const FIXED: [&str; 9] = [
    "@timestamp",
    "log.level",
    "message",
    "ecs.version",
    "service.name",
    "log.logger",
    "process.thread.name",
    "process.pid",
    "log.cut",
];

/// What is an object in ECS 9: a number or text under one of these names is refused by who has the schema.
#[rustfmt::skip]
const OBJECTS: [&str; 57] = [
    "agent", "as", "client", "cloud", "code_signature", "container", "data_stream", "destination", "device", "dll", "dns",
    "ecs", "elf", "email", "entity", "error", "event", "faas", "file", "gen_ai", "geo", "group", "hash", "host", "http",
    "interface", "labels", "log", "macho", "network", "observer", "orchestrator", "organization", "os", "package", "pe",
    "process", "registry", "related", "risk", "rule", "server", "service", "source", "span", "threat", "tls", "trace",
    "transaction", "url", "user", "user_agent", "vlan", "volume", "vulnerability", "x509", "kv",
];

/// What is put before a key that collides.
const PREFIX: &str = "kv.";

fn collides(key: &str) -> bool {
    let is_inside = |key: &str, of: &str| {
        key.strip_prefix(of)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    key.is_empty()
        || OBJECTS.contains(&key)
        || FIXED
            .iter()
            .any(|fixed| key == *fixed || is_inside(key, fixed) || is_inside(fixed, key))
}

/// Where the keys are that a line has.
pub(crate) struct Keys(Vec<Range<usize>>);

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes a key, without quotes: the one that is asked for, or one close to it that is still free.
    pub(crate) fn push(&mut self, line: &mut String, key: &str) {
        let begin = line.len();
        if collides(key) {
            line.push_str(PREFIX);
        }
        escape::push(line, Form::Json, NAME, key);
        let end = line.len();
        let mut number = 1;
        while self.has(line, begin) {
            number += 1;
            line.truncate(end);
            line.push('_');
            line.push_str(&number.to_string());
        }
        self.0.push(begin..line.len());
    }

    /// Whether what stands at the end of the line is a key that it has already.
    fn has(&self, line: &str, begin: usize) -> bool {
        self.0.iter().any(|it| line[it.clone()] == line[begin..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(keys: &[&str]) -> Vec<String> {
        let (mut line, mut taken) = (String::new(), Keys::new());
        keys.iter().for_each(|key| taken.push(&mut line, key));
        taken
            .0
            .iter()
            .map(|it| line[it.clone()].to_owned())
            .collect()
    }

    #[test]
    fn a_key_that_collides_is_prefixed() {
        let keys = [
            "phase",
            "message",
            "log",
            "log.level.x",
            "message.x",
            "device",
            "log.dropped",
            "",
            "error.message",
        ];
        let expected = [
            "phase",
            "kv.message",
            "kv.log",
            "kv.log.level.x",
            "kv.message.x",
            "kv.device",
            "log.dropped",
            "kv.",
        ];
        assert_eq!(pushed(&keys)[..8], expected);
        assert_eq!(pushed(&keys)[8], "error.message");
    }

    #[test]
    fn a_key_that_is_there_twice_is_numbered() {
        let keys = ["a", "a", "a_2", "a", "kv.log", "log"];
        assert_eq!(
            pushed(&keys),
            ["a", "a_2", "a_2_2", "a_3", "kv.log", "kv.log_2"]
        );
    }
}
