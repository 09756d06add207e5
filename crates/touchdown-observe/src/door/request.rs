//! A request, once its bytes are whole.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use httparse::{Error, Header, EMPTY_HEADER};

use super::response::Refusal;
use super::MOST_HEADERS;

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Whether the client wants only the head of the answer. The handler need not care: the body is left out for it.
    pub(crate) is_head: bool,
    /// The path, decoded: `%20` is a space in it, and `%2F` a slash like any other. It begins with a slash, and has
    /// no control characters.
    pub(crate) path: Cow<'a, str>,
    /// What follows the question mark, as it was sent; [`parameters`](Self::parameters) decodes it.
    pub(crate) query: &'a str,
    /// The header `Accept`, the first if there are several.
    pub(crate) accept: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Reads the head of a request, which has to be whole.
    pub(super) fn read(head: &'a [u8], local_names_only: bool) -> Result<Self, Refusal> {
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(it) if it.is_complete() => {}
            Ok(_) => return Err(Refusal::MALFORMED),
            Err(Error::TooManyHeaders) => return Err(Refusal::TOO_LARGE),
            Err(Error::Version) => return Err(Refusal::VERSION),
            Err(_) => return Err(Refusal::MALFORMED),
        }
        let is_head = match parsed.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err(Refusal::METHOD),
        };
        refuse_body(parsed.headers)?;
        let (target, authority) = split_target(parsed.path.unwrap_or_default())?;
        let host = host(parsed.headers, parsed.version == Some(0))?;
        // RFC 9112, section 3.2.2: what the target says counts.
        if local_names_only && !is_local(authority.unwrap_or(host)) {
            return Err(Refusal::MISDIRECTED);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let text = |name| values(parsed.headers, name).next();
        let text = |name| text(name).and_then(|it| std::str::from_utf8(it).ok());
        Ok(Request {
            is_head,
            path: decoded(path, false).ok_or(Refusal::PATH)?,
            query,
            accept: text("accept"),
        })
    }

    /// The decoded values of a parameter, such as those of `exclude` in `?exclude=a&exclude=b%20c`. One without a
    /// value has the empty one; one that cannot be decoded is left out.
    pub(crate) fn parameters<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = Cow<'a, str>> + 's {
        let pairs = self.query.split('&');
        let pairs = pairs.map(|it| it.split_once('=').unwrap_or((it, "")));
        pairs
            .filter(move |it| decoded(it.0, true).is_some_and(|it| it == name))
            .filter_map(|it| decoded(it.1, true))
    }
}

fn values<'s, 'a>(
    headers: &'s [Header<'a>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> + use<'s, 'a> {
    let named = move |it: &&Header<'a>| it.name.eq_ignore_ascii_case(name);
    headers.iter().filter(named).map(|it| it.value)
}

/// There is no use for a body here.
fn refuse_body(headers: &[Header<'_>]) -> Result<(), Refusal> {
    for length in values(headers, "content-length") {
        if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::MALFORMED);
        }
        if length.iter().any(|it| *it != b'0') {
            return Err(Refusal::BODY);
        }
    }
    match values(headers, "transfer-encoding").next() {
        Some(_) => Err(Refusal::BODY),
        None => Ok(()),
    }
}

/// The path and query of a request's target, and the host if the target has it.
fn split_target(target: &str) -> Result<(&str, Option<&str>), Refusal> {
    if !target.bytes().all(|it| it.is_ascii_graphic()) {
        return Err(Refusal::PATH);
    }
    if target.starts_with('/') {
        return Ok((target, None));
    }
    let absolute = target.split_at_checked("http://".len());
    let Some((_, rest)) = absolute.filter(|it| it.0.eq_ignore_ascii_case("http://")) else {
        return Err(Refusal::PATH);
    };
    match rest.find(['/', '?']) {
        Some(end) if rest[end..].starts_with('/') => Ok((&rest[end..], Some(&rest[..end]))),
        Some(_) => Err(Refusal::PATH),
        None => Ok(("/", Some(rest))),
    }
}

/// The one `Host`, which only a request of HTTP/1.0 may lack (RFC 9112, section 3.2).
fn host<'a>(headers: &[Header<'a>], may_be_missing: bool) -> Result<&'a str, Refusal> {
    let mut hosts = values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => std::str::from_utf8(host).map_err(|_| Refusal::HOST),
        (None, _) if may_be_missing => Ok(""),
        _ => Err(Refusal::HOST),
    }
}

/// Whether a browser that has this as the host of a page has it from nobody who could have made up what it means.
/// None at all is from no browser.
fn is_local(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|it| it.0.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |it| it.0);
    let name = name.to_ascii_lowercase();
    let is_of_name = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
    name.bytes().all(is_of_name)
        || name.parse::<Ipv4Addr>().is_ok()
        || name
            .strip_suffix(".localhost")
            .is_some_and(|it| it.bytes().all(|it| is_of_name(it) || it == b'.'))
}

/// Without its `%`, and with `+` as a space if that is how it is written; `None` if that is no text or has control
/// characters.
fn decoded(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let is_plain = |it: char| it != '%' && !(plus_is_space && it == '+');
    if text.chars().all(is_plain) {
        return Some(Cow::Borrowed(text));
    }
    let digit = |it: u8| char::from(it).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high * 16 + low) as u8
            }
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    let text = String::from_utf8(decoded).ok()?;
    (!text.contains(char::is_control)).then_some(Cow::Owned(text))
}
