//! Trace: the W3C `traceparent` header, read and written. It must not panic on any input, and must not sample.

use http::{HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

/// `traceparent` (Trace Context §3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The sampled bit (Trace Context §3.2.2.5.1).
const SAMPLED: u8 = 1;

/// A trace, the span in it that we follow, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The parent span.
    pub span_id: SpanId,
    /// Whether the caller records it.
    pub sampled: bool,
}

/// Reads a `traceparent`. Anything that is not one is none: "If parsing fails … the implementation … MUST NOT use the traceparent".
pub fn parse(value: &[u8]) -> Option<TraceParent> {
    // version "-" trace-id "-" parent-id "-" trace-flags; a higher version may go on after another dash (§3.2.4).
    let head: &[u8; 55] = value.first_chunk()?;
    let version = hex(&head[..2])?;
    let length_fits = match version {
        0 => value.len() == 55,
        0xff => false,
        _ => value.len() == 55 || value[55] == b'-',
    };
    if !length_fits || head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
        return None;
    }
    let trace_id = hex(&head[3..35])?;
    let span_id = u64::try_from(hex(&head[36..52])?).ok()?;
    let flags = hex(&head[53..])?;
    // "All bytes as zero … is considered an invalid value."
    (trace_id != 0 && span_id != 0).then(|| TraceParent {
        trace_id: TraceId::from(trace_id),
        span_id: SpanId::from(span_id),
        sampled: flags & u128::from(SAMPLED) != 0,
    })
}

/// Lower case hexadecimal only, as the specification says; at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |n, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u128::from(value))
    })
}

/// Writes bytes as lower case hexadecimal digits, two for each, as far as there is room.
pub fn digits(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

impl TraceParent {
    /// A new trace that begins here, from 192 random bits.
    pub fn begin(random: u128, span: u64, sampled: bool) -> Self {
        // Zero means "none"; one in 2^128 is moved aside.
        Self { trace_id: TraceId::from(random.max(1)), span_id: SpanId::from(span.max(1)), sampled }
    }

    /// The header that passes it on.
    pub fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&self.trace_id.to_bytes(), &mut text[3..35]);
        digits(&self.span_id.to_bytes(), &mut text[36..52]);
        digits(&[if self.sampled { SAMPLED } else { 0 }], &mut text[53..]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_survives_reading_and_writing() {
        let parsed = parse(GOOD.as_bytes()).unwrap();
        assert!(parsed.sampled);
        assert_eq!(parsed.header(), GOOD);
        assert!(!parse(GOOD.replace("-01", "-02").as_bytes()).unwrap().sampled, "only the lowest bit counts");
    }

    #[test]
    fn later_versions_may_be_longer_and_version_0_may_not() {
        assert!(parse(format!("01{}-what-comes", &GOOD[2..]).as_bytes()).is_some());
        assert!(parse(format!("01{}", &GOOD[2..]).as_bytes()).is_some());
        assert!(parse(format!("01{}.x", &GOOD[2..]).as_bytes()).is_none());
        assert!(parse(format!("{GOOD}-more").as_bytes()).is_none());
    }

    #[test]
    fn what_the_specification_forbids_is_no_parent() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        for bad in [
            "",
            "00",
            "00-",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replace("00-", "ff-"),
            &zero_trace,
            &zero_span,
            &GOOD.replace('-', "_"),
            &GOOD.replace("0af7", "0ag7"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn every_trace_survives_its_header(trace in any::<u128>(), span in any::<u64>(), sampled in any::<bool>()) {
            let parent = TraceParent::begin(trace, span, sampled);
            prop_assert_eq!(parse(parent.header().as_bytes()), Some(parent));
        }
    }
}
