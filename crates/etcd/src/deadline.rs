//! How long a client is willing to wait.

use std::time::Duration;
use tonic::metadata::MetadataMap;

/// The most that is kept back of a client's time, so that an answer with its reason still reaches it.
const MARGIN_MAX: Duration = Duration::from_millis(50);

/// Kept back is one part in this many, up to [`MARGIN_MAX`].
const MARGIN_PARTS: u32 = 20;

/// The most digits that gRPC allows in a timeout.
const DIGITS_MAX: usize = 8;

/// How long the node may take for a request; `None` when the client did not say.
pub(crate) fn timeout_of(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    parse(value).map(with_margin)
}

/// What is left of a client's time for the node.
pub(crate) fn with_margin(timeout: Duration) -> Duration {
    timeout - MARGIN_MAX.min(timeout / MARGIN_PARTS)
}

/// Reads digits and a unit, as gRPC's protocol over HTTP/2 defines them.
pub(crate) fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty()
        || digits.len() > DIGITS_MAX
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let check = |value: &str, expected: Option<Duration>| {
            assert_eq!(parse(value), expected, "{value:?}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("5S", Some(Duration::from_secs(5)));
        check("4999m", Some(Duration::from_millis(4999)));
        check("4999321u", Some(Duration::from_micros(4_999_321)));
        check("12n", Some(Duration::from_nanos(12)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5é", "5 S"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_little_of_the_clients_time_is_kept_for_the_answer() {
        let check = |value: &str, expected: Duration| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", value.parse().expect("ASCII"));
            assert_eq!(timeout_of(&metadata), Some(expected));
        };
        check("5S", Duration::from_millis(4950));
        check("100m", Duration::from_millis(95));
        assert_eq!(timeout_of(&MetadataMap::new()), None);
    }
}
