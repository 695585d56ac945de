//! Which export a name stands for at a CUDA version: the fallback where a resolver's answer has
//! an address that the driver does not export.

use std::ffi::CStr;

/// Base name, first CUDA version, export, export under per-thread default streams (or `-`), and
/// where that was read.
const TABLE: &str = include_str!("versions.txt");

/// The export that `cuGetProcAddress` means by `name` at `version`. Allocates nothing.
pub fn export_of(name: &CStr, version: i32, per_thread: bool) -> Option<&'static [u8]> {
    let mut best = None;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split('\t');
        let (Some(base), Some(since), Some(plain), Some(per_thread_name)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(since) = since.parse::<i32>() else {
            continue;
        };
        if base.as_bytes() == name.to_bytes()
            && since <= version
            && best.is_none_or(|(newest, _)| since > newest)
        {
            best = Some((
                since,
                if per_thread && per_thread_name != "-" {
                    per_thread_name
                } else {
                    plain
                },
            ));
        }
    }
    best.map(|(_, export)| export.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_variant_not_newer_than_asked() {
        assert_eq!(
            export_of(c"cuMemAlloc", 2000, false),
            Some(&b"cuMemAlloc"[..])
        );
        assert_eq!(
            export_of(c"cuMemAlloc", 13000, false),
            Some(&b"cuMemAlloc_v2"[..])
        );
        assert_eq!(
            export_of(c"cuMemAllocAsync", 13000, true),
            Some(&b"cuMemAllocAsync_ptsz"[..])
        );
        assert_eq!(
            export_of(c"cuGetProcAddress", 11030, false),
            Some(&b"cuGetProcAddress"[..])
        );
        assert_eq!(
            export_of(c"cuGetProcAddress", 12000, false),
            Some(&b"cuGetProcAddress_v2"[..])
        );
        assert_eq!(export_of(c"cuNothing", 13000, false), None);
    }
}
