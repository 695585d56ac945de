//! Spans of time as people write them.

use std::time::Duration;

/// Reads `250ms`, `30s`, `10m`, `2h`, `7d`; a number alone is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time; accepted are 250ms, 30s, 10m, 2h, 7d");
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    // Ten years; more would be a mistake, and would not fit into everything that is computed with it.
    const MOST: f64 = 10.0 * 365.0 * 86_400.0;
    let all = number * seconds;
    if !all.is_finite() || all > MOST {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            ("7", 7_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "m", "-1s", "1w", "1e9d", "99999999d", "1 h", "..s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
