//! Names of methods as values, which a compiler can check and text cannot.

use std::fmt;

/// The name of a method, with the service that it belongs to.
///
/// `touchdown-build` generates one for each method: for `service Greeter` with `rpc SayHello` it is
/// `greeter_methods::SAY_HELLO`, beside `greeter_methods::SERVICE`, the name of the service. A method that has
/// been renamed or removed is then an error of the compiler, and not of the start.
///
/// For a service that is written [by hand](super::Service::builder), a constant does the same:
///
/// ```
/// use touchdown::MethodName;
///
/// const SAY: MethodName = MethodName::new("demo.Echo", "Say");
///
/// assert_eq!(SAY.service(), "demo.Echo");
/// assert_eq!(SAY.name(), "Say");
/// assert_eq!(SAY.to_string(), "/demo.Echo/Say");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodName {
    service: &'static str,
    name: &'static str,
}

impl MethodName {
    /// The method `name` of the service with this full name (`package.Service`), both as in the `.proto` file.
    pub const fn new(service: &'static str, name: &'static str) -> MethodName {
        MethodName { service, name }
    }

    /// The full name of the service: `greeter.Greeter`.
    pub const fn service(&self) -> &'static str {
        self.service
    }

    /// The method's own name, as in the `.proto` file: `SayHello`.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// The path of its calls: `/greeter.Greeter/SayHello`.
impl fmt::Display for MethodName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}/{}", self.service, self.name)
    }
}

/// A method for which something was set on a service that does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMethod {
    method: MethodName,
    service: &'static str,
    methods: Vec<&'static str>,
}

impl UnknownMethod {
    /// `service` has `methods`, and `method` is none of them.
    pub(super) fn new(
        method: MethodName,
        service: &'static str,
        methods: impl Iterator<Item = &'static str>,
    ) -> UnknownMethod {
        UnknownMethod {
            method,
            service,
            methods: methods.collect(),
        }
    }

    /// The method that was named.
    pub fn method(&self) -> MethodName {
        self.method
    }

    /// The full name of the service on which something was set for it.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The name of a method of that service which was meant, perhaps.
    pub fn suggestion(&self) -> Option<&'static str> {
        closest(self.method.name, &self.methods)
    }
}

impl fmt::Display for UnknownMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownMethod {
            method,
            service,
            methods,
        } = self;
        write!(
            formatter,
            "a policy or a minimum time for {method} is set on the service {service}, which "
        )?;
        if method.service != *service {
            formatter.write_str("is another one: set it on the service of the method")?;
            return match methods.contains(&method.name) {
                true => write!(formatter, ", or did you mean /{service}/{}?", method.name),
                false => Ok(()),
            };
        }
        formatter.write_str("has no such method")?;
        match self.suggestion() {
            Some(name) => write!(formatter, ": did you mean {name}?"),
            None if methods.is_empty() => formatter.write_str(": it has none at all"),
            None => write!(formatter, ": it has {}", methods.join(", ")),
        }
    }
}

/// The one of `names` that looks like `wanted`: with other case or underscores, or with a third of its letters wrong.
fn closest(wanted: &str, names: &[&'static str]) -> Option<&'static str> {
    // In .proto files names are ASCII.
    let letters = |it: &str| it.replace('_', "").to_ascii_lowercase();
    let wanted = letters(wanted);
    let distances = names
        .iter()
        .map(|it| (distance(&wanted, &letters(it)), *it));
    let (distance, name) = distances.min_by_key(|it| it.0)?;
    (distance * 3 <= wanted.chars().count()).then_some(name)
}

/// How many letters have to be added, removed or replaced to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, it) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(*it != letter);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_letters() {
        for (one, other, expected) in [
            ("", "", 0),
            ("say", "say", 0),
            ("say", "", 3),
            ("", "say", 3),
            ("sayhello", "sayhelo", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn what_looks_alike_is_suggested() {
        let names = ["SayHello", "Subscribe"];
        for (wanted, expected) in [
            ("sayHello", Some("SayHello")),
            ("say_hello", Some("SayHello")),
            ("SayHelo", Some("SayHello")),
            ("Subscibe", Some("Subscribe")),
            ("Backup", None),
            ("", None),
        ] {
            assert_eq!(closest(wanted, &names), expected, "{wanted}");
        }
        assert_eq!(closest("Say", &[]), None);
    }
}
