//! The HTML around a document.
//!
//! The template is what `npm run build` in `reader/page` makes: the page's program and styles, named
//! by their hashes in its Content-Security-Policy. The document goes into one place of it, compressed
//! and in Base64, so that nothing in it can be taken for HTML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::{self, Write};

const TEMPLATE: &str = include_str!("page.html");
/// Where the document goes.
const PLACE: &str = "@@DOCUMENT@@";

/// Writes the page.
pub fn write(document: &str, out: &mut impl Write) -> io::Result<()> {
    let (before, after) = TEMPLATE.split_once(PLACE).unwrap_or((TEMPLATE, ""));
    out.write_all(before.as_bytes())?;
    let mut encoder = DeflateEncoder::new(
        EncoderWriter::new(&mut *out, &STANDARD),
        Compression::new(6),
    );
    encoder.write_all(document.as_bytes())?;
    encoder.finish()?.finish()?;
    out.write_all(after.as_bytes())
}

/// The document in a page.
pub fn document(page: &str) -> Option<String> {
    let (before, after) = TEMPLATE.split_once(PLACE)?;
    let encoded = page.strip_prefix(before)?.strip_suffix(after)?;
    let compressed = STANDARD.decode(encoded).ok()?;
    let mut text = String::new();
    io::Read::read_to_string(
        &mut flate2::read::DeflateDecoder::new(&compressed[..]),
        &mut text,
    )
    .ok()?;
    Some(text)
}
