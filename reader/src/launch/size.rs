//! Sizes as users write them: `1048576`, `512KiB`, `64MiB`, `4GiB`.

/// Reads a size. Accepted are bytes, or a whole number with a binary unit: `KiB` or `K`, and so on
/// to `TiB` (any case, a space allowed between).
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(explain(text)),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| explain(text))
}

fn explain(text: &str) -> String {
    format!("`{text}` is not a size: write bytes, or a number with a unit (512KiB, 64MiB, 4GiB)")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn bytes_and_units() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("512KiB"), Ok(512 << 10));
        assert_eq!(parse("64mib"), Ok(64 << 20));
        assert_eq!(parse("4 GiB"), Ok(4 << 30));
    }

    #[test]
    fn anything_else_is_named() {
        for bad in ["", "MiB", "-1", "1.5GiB", "64MB", "99999999999TiB", "1 2"] {
            assert!(parse(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
