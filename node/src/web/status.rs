//! What an answer's head says about its body: pure (RFC 9110).

use std::ops::Range;
use std::time::Duration;

/// Longest that a server may ask us to wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The wait where a server is busy and does not say for how long.
const WAIT: Duration = Duration::from_secs(5);

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Exactly the range that was asked for.
    Part,
    /// The whole file, whatever was asked for.
    Whole,
    /// It is not there, or not for us, or not that long.
    Missing,
    /// Later perhaps.
    Busy(Duration),
    /// Nothing that makes sense; what.
    Nonsense(String),
}

/// Judges status and headers of the answer to a request for `range` of a file of `size` bytes.
pub fn judge(
    status: u16,
    content_range: Option<&str>,
    retry_after: Option<&str>,
    range: &Range<u64>,
    size: u64,
) -> Body {
    match status {
        200 => Body::Whole,
        206 => match content_range.and_then(parse_range) {
            Some((sent, total)) if sent == *range && total.is_none_or(|total| total == size) => Body::Part,
            // Another version of the file, or another range.
            Some((_, Some(total))) if total != size => Body::Missing,
            _ => Body::Nonsense("another range than was asked for".to_owned()),
        },
        401 | 403 | 404 | 410 | 416 => Body::Missing,
        429 | 503 => {
            let seconds = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            Body::Busy(seconds.unwrap_or(WAIT).min(MAX_WAIT))
        }
        other => Body::Nonsense(format!("status {other}")),
    }
}

/// `bytes FIRST-LAST/TOTAL`, as a range and the total where it is told.
fn parse_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    (first <= last).then(|| last.checked_add(1)).flatten().map(|end| (first..end, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let judge = |status, range, retry| judge(status, range, retry, &(10..20), 100);
        for (status, range, retry, expected) in [
            (206, Some("bytes 10-19/100"), None, Body::Part),
            (206, Some("bytes 10-19/*"), None, Body::Part),
            (206, Some("bytes 10-19/101"), None, Body::Missing),
            (200, None, None, Body::Whole),
            (404, None, None, Body::Missing),
            (416, Some("bytes */90"), None, Body::Missing),
            (503, None, Some("7"), Body::Busy(Duration::from_secs(7))),
            (429, None, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Body::Busy(WAIT)),
            (429, None, Some("99999999"), Body::Busy(MAX_WAIT)),
        ] {
            assert_eq!(judge(status, range, retry), expected, "{status} {range:?}");
        }
        let wrong = [
            (206, None),
            (206, Some("bytes 9-19/100")),
            (206, Some("bytes 10-18446744073709551615/100")),
            (206, Some("bytes 20-10/100")),
            (206, Some("10-19/100")),
            (500, None),
            (302, None),
        ];
        for (status, range) in wrong {
            assert!(matches!(judge(status, range, None), Body::Nonsense(_)), "{status} {range:?}");
        }
    }
}
