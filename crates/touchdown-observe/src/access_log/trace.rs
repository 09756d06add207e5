//! The trace that a call is a part of. Without the feature `otel` that is by the caller's word: the header `traceparent` of
//! W3C's [Trace Context](https://www.w3.org/TR/trace-context/).

use touchdown::Call;

/// The ids of a trace and of a span of it, as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    trace: [u8; 32],
    span: [u8; 16],
}

impl Ids {
    pub(super) fn trace(&self) -> &str {
        // They were digits as they were read.
        std::str::from_utf8(&self.trace).unwrap_or_default()
    }

    pub(super) fn span(&self) -> &str {
        std::str::from_utf8(&self.span).unwrap_or_default()
    }
}

/// The ids of a call, if it has any: where there are traces, those that they have for it.
#[cfg(feature = "otel")]
pub(super) fn ids_of(call: &Call) -> Option<Ids> {
    let context = crate::otel::TraceContext::of(call)?;
    let (trace, span) = (
        context.trace_id().to_string(),
        context.span_id().to_string(),
    );
    Some(Ids {
        trace: trace.as_bytes().try_into().ok()?,
        span: span.as_bytes().try_into().ok()?,
    })
}

/// The ids of a call, if its caller has sent any that are valid.
#[cfg(not(feature = "otel"))]
pub(super) fn ids_of(call: &Call) -> Option<Ids> {
    let metadata = call.metadata();
    let mut headers = metadata.get_all("traceparent");
    // With two of them it is not known which one holds.
    match (headers.next(), headers.next()) {
        (Some(header), None) => parse(header),
        _ => None,
    }
}

/// Reads `00-TRACE-SPAN-FLAGS`. A version that is not known yet may have more after it.
#[cfg(any(test, not(feature = "otel")))]
fn parse(header: &str) -> Option<Ids> {
    let header = header.as_bytes();
    let (known, rest) = header.split_at_checked(55)?;
    let is_hex = |bytes: &[u8]| {
        bytes
            .iter()
            .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |bytes: &[u8]| is_hex(bytes) && bytes.iter().any(|it| *it != b'0');
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let ends = match version {
        b"ff" => false,
        b"00" => rest.is_empty(),
        _ => matches!(rest, [] | [b'-', ..]),
    };
    let is_valid = ends
        && [2, 35, 52].iter().all(|dash| known[*dash] == b'-')
        && is_hex(version)
        && is_id(trace)
        && is_id(span)
        && is_hex(flags);
    is_valid.then_some(Ids {
        trace: trace.try_into().ok()?,
        span: span.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_is_valid_is_read() {
        for (version, rest) in [("00", ""), ("01", ""), ("cc", "-more"), ("01", "-")] {
            let ids = parse(&format!("{version}-{TRACE}-{SPAN}-01{rest}")).unwrap();
            assert_eq!((ids.trace(), ids.span()), (TRACE, SPAN));
        }
    }

    #[test]
    fn what_is_not_is_left_out() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{}ü-{SPAN}-01", &TRACE[2..]),
            // A character across the end of what is known.
            format!("00-{TRACE}-{SPAN}-0ü"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong:?}");
        }
    }
}
