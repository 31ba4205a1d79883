//! Sizes and durations as people write them.

use std::time::Duration;

use thiserror::Error;

use crate::service::Rates;

/// Binary prefixes, each 1024 times the one before (rsync(1), `--max-size`).
const PREFIXES: &str = "BKMGTP";
/// Digits behind the point that are looked at.
const MAX_DECIMALS: usize = 6;

/// A number with a unit that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Not a size.
    #[error("not a size: give a number with B, K, M, G, T or P (powers of 1024), such as 10K or 1.5G")]
    Size,
    /// Not a duration.
    #[error("not a duration: give a whole number with s, m, h, d or w, such as 30s, 24h or 14d")]
    Duration,
    /// Over 64 bits.
    #[error("too large")]
    TooLarge,
}

/// Bytes of `10`, `10K`, `1.5G` (`KB` and `KiB` mean the same; units are powers of 1024 as in rsync).
///
/// # Errors
/// [`UnitError`].
pub fn size(text: &str) -> Result<u64, UnitError> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.to_ascii_uppercase();
    let prefix = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B').filter(|rest| !rest.is_empty()));
    let power = match prefix.unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        prefix if prefix.len() == 1 => PREFIXES.find(prefix).ok_or(UnitError::Size)?,
        _ => return Err(UnitError::Size),
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || decimals.contains('.') || decimals.len() > MAX_DECIMALS || number.ends_with('.') {
        return Err(UnitError::Size);
    }
    // Scaled to whole numbers: floating point would round sizes over 2^53.
    let digits: u128 = format!("{whole}{decimals}").parse().map_err(|_| UnitError::TooLarge)?;
    let scale = (0..decimals.len()).fold(1, |scale: u128, _| scale * 10);
    let factor = (0..power).fold(1, |factor: u128, _| factor * 1024);
    let bytes = digits.checked_mul(factor).ok_or(UnitError::TooLarge)? / scale;
    u64::try_from(bytes).map_err(|_| UnitError::TooLarge)
}

/// Bytes per second of rsync's `--bwlimit`, for both ways, or as `UP:DOWN`: KiB where no unit is given; 0 or nothing is no limit.
///
/// # Errors
/// [`UnitError`].
pub fn rates(text: &str) -> Result<Rates, UnitError> {
    let (up, down) = text.split_once(':').unwrap_or((text, text));
    if text.is_empty() {
        return Err(UnitError::Size);
    }
    Ok(Rates { up: rate(up)?, down: rate(down)? })
}

fn rate(text: &str) -> Result<Option<u64>, UnitError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let rate = if bare { size(&format!("{text}K"))? } else { size(text)? };
    Ok(Some(rate).filter(|rate| *rate > 0))
}

/// Longest time: a hundred years.
const MAX_SECONDS: u64 = 100 * 365 * 24 * 60 * 60;

/// The time of `30s`, `90m`, `24h`, `14d`, `2w`. A bare number is refused: nobody remembers of what.
///
/// # Errors
/// [`UnitError`].
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err(UnitError::Duration),
    };
    if number.is_empty() {
        return Err(UnitError::Duration);
    }
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= MAX_SECONDS);
    seconds.map(Duration::from_secs).ok_or(UnitError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("10", 10),
            ("10B", 10),
            ("10K", 10 << 10),
            ("10k", 10 << 10),
            ("10KB", 10 << 10),
            ("10KiB", 10 << 10),
            ("1.5G", 3 << 29),
            ("2P", 2 << 50),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "K", ".5K", "1.", "1..5K", "1.2.3", "10X", "10KX", "-1", "1 K", "1.2345678K", "KiB", "1iB", "1é"]
        {
            assert_eq!(size(text), Err(UnitError::Size), "{text}");
        }
        for text in ["18446744073709551616", "16384P", "9999999999999999999999999999999999999999P"] {
            assert_eq!(size(text), Err(UnitError::TooLarge), "{text}");
        }
    }

    #[test]
    fn limits_of_rates() {
        let limits = |up, down| Ok(Rates { up, down });
        for (text, expected) in [
            ("100", limits(Some(100 << 10), Some(100 << 10))),
            ("1.5m", limits(Some(3 << 19), Some(3 << 19))),
            ("0", limits(None, None)),
            ("512B:1", limits(Some(512), Some(1024))),
            ("0:7", limits(None, Some(7 << 10))),
            (":7", limits(None, Some(7 << 10))),
            ("7:", limits(Some(7 << 10), None)),
        ] {
            assert_eq!(rates(text), expected, "{text}");
        }
        for text in ["", "fast", "1:2:3", "1 :2", "-1", "1:x"] {
            assert_eq!(rates(text), Err(UnitError::Size), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("30s", 30), ("90m", 5400), ("24h", 86_400), ("14d", 1_209_600), ("2w", 1_209_600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "s", "1.5h", "1y", "-1s", "1h30m", "1é"] {
            assert_eq!(duration(text), Err(UnitError::Duration), "{text}");
        }
        for text in ["18446744073709551615w", "18446744073709551615s", "36501d"] {
            assert_eq!(duration(text), Err(UnitError::TooLarge), "{text}");
        }
    }
}
