//! Which trace a call belongs to, as W3C's [Trace Context](https://www.w3.org/TR/trace-context-2/) writes it down.

use std::fmt;

use touchdown::client::Metadata;
use touchdown::Call;

use super::ids::{SpanId, TraceId};
use super::state::handed_on;

/// The names of the metadata.
const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Bits of the flags: whether the caller may have recorded the trace, and whether the id's seven right-most bytes are
/// random.
pub(super) const SAMPLED: u8 = 1;
pub(super) const RANDOM: u8 = 1 << 1;

/// How long a `traceparent` of version 00 is.
const LENGTH: usize = 55;

/// Which trace a call belongs to, and which span what it does hangs under.
///
/// This is for programs that hand the trace on by themselves, and for those with a tracing library of their own:
///
/// ```
/// use touchdown::{Call, Status};
/// use touchdown_observe::otel::TraceContext;
///
/// fn handler(call: &Call) -> Result<String, Status> {
///     // To be given to the library as the remote parent.
///     let parent = TraceContext::of(call).map(|it| it.traceparent());
///     Ok(format!("part of {parent:?}"))
/// }
/// # let _ = handler;
/// ```
///
/// # What it is
///
/// | the call | ids | flags |
/// |---|---|---|
/// | is recorded | its trace, and the span that is recorded of it | sampled |
/// | is not recorded, and its caller is in a trace | as the caller sent them: what the call does hangs under the caller's span | as the caller sent them |
/// | is not recorded, and its caller is in none, or is not [trusted](super::Traces::trust_parent) | new ones, the same each time | not sampled |
///
/// So a call that is left out makes no hole in the trace of others.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: u8,
    state: Box<str>,
}

impl TraceContext {
    /// Reads what another process has sent; `None` if that is no `traceparent`. A `tracestate` that is none is left
    /// out, and of one that is longer than 512 bytes the last entries.
    ///
    /// ```
    /// use touchdown_observe::otel::TraceContext;
    ///
    /// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let context = TraceContext::parse(parent, "rojo=00f067aa0ba902b7").unwrap();
    /// assert!(context.is_sampled());
    /// assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    /// assert_eq!(context.traceparent(), parent);
    /// assert_eq!(TraceContext::parse("00-0-0-00", ""), None);
    /// ```
    pub fn parse(traceparent: &str, tracestate: &str) -> Option<TraceContext> {
        let caller = Caller::parse(traceparent)?;
        Some(caller.with(handed_on([tracestate].into_iter())))
    }

    pub(super) fn new(trace: TraceId, span: SpanId, flags: u8, state: Box<str>) -> TraceContext {
        TraceContext {
            trace,
            span,
            flags,
            state,
        }
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// The span under which what the call does hangs.
    pub fn span_id(&self) -> SpanId {
        self.span
    }

    /// Whether the trace is recorded. Where it is not, none of the servers that are called from here should record it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags, as they stand in [`traceparent`](Self::traceparent).
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// What other tracing systems have added; empty if none has.
    pub fn tracestate(&self) -> &str {
        &self.state
    }

    /// The line for other processes: `00-<trace>-<span>-<flags>`.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }

    /// Puts it into the metadata of a call that is to be made, in the place of any other that is there.
    ///
    /// [`traced`](super::traced) does so for all calls of a client.
    pub fn inject(&self, metadata: &mut Metadata) {
        metadata.remove(PARENT);
        metadata.remove(STATE);
        // Both names are legal, and both values printable.
        let _ = metadata.add(PARENT, self.traceparent());
        if !self.state.is_empty() {
            let _ = metadata.add(STATE, self.tracestate());
        }
    }

    /// Whether there is one in this metadata already.
    pub(super) fn is_in(metadata: &Metadata) -> bool {
        metadata.get_bin(PARENT).is_some()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = formatter.debug_struct("TraceContext");
        it.field("traceparent", &self.traceparent());
        it.field("tracestate", &self.state).finish()
    }
}

/// What a caller says of its trace, but for the state, which is looked for once it is wanted. It takes no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) flags: u8,
}

impl Caller {
    /// `None` if the caller of this call is in no trace, says so in a way that nobody understands, or
    /// [says it twice](https://www.w3.org/TR/trace-context/#a-traceparent-is-received).
    pub(super) fn of(call: &Call) -> Option<Caller> {
        let metadata = call.metadata();
        let mut all = metadata.get_all(PARENT);
        let first = all.next()?;
        match all.next() {
            None => Caller::parse(first),
            Some(_) => None,
        }
    }

    /// By the rules of [W3C](https://www.w3.org/TR/trace-context/#traceparent-header): lower-case digits, no ids that
    /// are all zero, no version ff. Of a version that is not known yet, what stands where version 00 has it.
    pub(super) fn parse(text: &str) -> Option<Caller> {
        let text = text.as_bytes();
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let [version] = bytes_at(known, 0)?;
        let is_whole = match version {
            0xff => false,
            0 => rest.is_empty(),
            _ => matches!(rest.first(), None | Some(b'-')),
        };
        let dashes = [2, 35, 52].iter().all(|it| known[*it] == b'-');
        if !is_whole || !dashes {
            return None;
        }
        let [flags] = bytes_at(known, 53)?;
        Some(Caller {
            trace: TraceId::from_bytes(bytes_at(known, 3)?)?,
            span: SpanId::from_bytes(bytes_at(known, 36)?)?,
            // Others have no meaning yet, and are not handed on.
            flags: flags & (SAMPLED | RANDOM),
        })
    }

    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// All that came with this call, which is this caller's.
    pub(super) fn context(self, call: &Call) -> TraceContext {
        self.with(state_of(call))
    }

    fn with(self, state: Box<str>) -> TraceContext {
        TraceContext::new(self.trace, self.span, self.flags, state)
    }
}

/// What is handed on of the call's `tracestate`.
pub(super) fn state_of(call: &Call) -> Box<str> {
    handed_on(call.metadata().get_all(STATE))
}

/// So many bytes, written in lower-case digits from this place on.
fn bytes_at<const N: usize>(text: &[u8], place: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Every call is read, so this has no branch for each digit.
    let mut all = 0;
    let digits = text.get(place..place + 2 * N)?.chunks_exact(2);
    for (byte, pair) in bytes.iter_mut().zip(digits) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        all |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (all < 0x10).then_some(bytes)
}

/// What a lower-case digit of hexadecimal stands for; 0xff for what is none.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn is_read(text: &str) -> bool {
        TraceContext::parse(text, "").is_some()
    }

    #[test]
    fn a_traceparent_is_read_and_written_again() {
        let context = TraceContext::parse(PARENT, "a=1").unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.trace_id().to_string(), &PARENT[3..35]);
        assert_eq!(context.span_id().to_string(), &PARENT[36..52]);
        assert!(context.is_sampled());
        assert_eq!(context.tracestate(), "a=1");
    }

    #[test]
    fn what_is_no_traceparent_is_not_read() {
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            // Version 00 is not longer, whatever follows.
            &format!("{PARENT}-"),
            &format!("{PARENT}-00"),
            &format!("{PARENT} "),
            &PARENT.to_uppercase(),
            &PARENT.replace("4b", "4B"),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replacen("00-", "0x-", 1),
            &PARENT.replacen("00-", "FF-", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace('-', "_"),
            &PARENT.replace("b7-01", "b7-0g"),
            // One byte more, and no longer at its place.
            &PARENT.replace("4bf9", "ä4bf"),
        ] {
            assert!(!is_read(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn of_a_version_to_come_what_is_known_is_read() {
        let later = PARENT.replacen("00-", "cc-", 1);
        let known = TraceContext::parse(PARENT, "");
        for text in [
            later.clone(),
            format!("{later}-"),
            format!("{later}-what-the-future-holds"),
        ] {
            assert_eq!(TraceContext::parse(&text, ""), known, "{text}");
        }
        assert!(!is_read(&format!("{later}.what")));
    }

    #[test]
    fn flags_that_mean_nothing_yet_are_not_handed_on() {
        for (sent, handed_on) in [("00", "00"), ("02", "02"), ("ff", "03"), ("fc", "00")] {
            let text = PARENT.replace("b7-01", &format!("b7-{sent}"));
            let written = TraceContext::parse(&text, "").unwrap().traceparent();
            assert!(written.ends_with(handed_on), "{sent}: {written}");
        }
    }

    #[test]
    fn what_was_in_the_metadata_is_replaced() {
        let mut metadata = Metadata::new();
        metadata.add("traceparent", "another").unwrap();
        metadata.add("tracestate", "another=1").unwrap();
        metadata.add("tenant", "north").unwrap();
        assert!(TraceContext::is_in(&metadata));
        TraceContext::parse(PARENT, "")
            .unwrap()
            .inject(&mut metadata);
        let pairs: Vec<_> = metadata.iter().collect();
        assert_eq!(
            pairs,
            [
                ("tenant", &b"north"[..]),
                ("traceparent", PARENT.as_bytes())
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..80), state in vec(any::<u8>(), 0..80)) {
            let (text, state) = (String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&state));
            let _ = TraceContext::parse(&text, &state);
        }

        /// Close to what is right, where the mistakes are.
        #[test]
        fn any_byte_may_be_another(place in 0..PARENT.len(), byte in any::<u8>(), cut in 0..=PARENT.len()) {
            let mut bytes = PARENT.as_bytes().to_vec();
            bytes[place] = byte;
            let text = String::from_utf8_lossy(&bytes);
            if let Some(context) = TraceContext::parse(&text, "") {
                prop_assert_eq!(&context.traceparent()[2..53], &text[2..53]);
            }
            let _ = TraceContext::parse(text.get(..cut).unwrap_or_default(), "");
        }

        #[test]
        fn what_is_valid_comes_back_as_it_was(trace in 1_u128.., span in 1_u64.., flags in 0_u8..4) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let context = TraceContext::parse(&text, "").unwrap();
            prop_assert_eq!(context.traceparent(), text);
            prop_assert_eq!(context.is_sampled(), flags & 1 != 0);
        }

        /// What is handed on is read again by whoever gets it, and is the same then.
        #[test]
        fn a_state_is_handed_on_once_as_the_second_time(state in "[a-z0-9=,@ ]{0,700}") {
            let once = handed_on([&*state].into_iter());
            prop_assert!(once.len() <= 512);
            prop_assert_eq!(handed_on([&*once].into_iter()), once);
        }
    }
}
