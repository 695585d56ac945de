//! A flame graph as one SVG file: a picture in any viewer, and in a browser one to click through
//! and to search. It loads nothing from anywhere.
//!
//! Callers are above what they called, as wide as the memory below them. There is no box for
//! everything: GPU and host memory, and the peaks of layers, stand side by side and are never
//! added up.

mod tree;

use super::samples::{Measure, Samples};
use super::stacks::Stacks;
use crate::report::words::{bytes, counted, foreign};
use std::io::{self, Write};
use tree::{Node, Tree};

/// Widths and heights, in units of the picture.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 76.0;
const FOOT: f64 = 34.0;
/// A character of the text in boxes.
const CHARACTER: f64 = 6.62;
/// Narrower boxes are not drawn.
const NARROWEST: f64 = 0.2;

/// What is in the picture.
pub struct Picture<'a> {
    /// Above it.
    pub title: &'a str,
    /// What is summed.
    pub measure: Measure,
    /// Whether boxes are as wide as the number of allocations, instead of their bytes.
    pub count: bool,
}

/// Draws samples.
pub fn write(
    samples: &Samples,
    stacks: &Stacks,
    picture: &Picture<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let tree = Tree::of(samples, stacks, picture.count);
    let scale = (WIDTH - 2.0 * MARGIN) / tree.value().max(1) as f64;
    let depth = tree.depth(NARROWEST / scale);
    let height = HEAD + FOOT + ROW * depth as f64;
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"100%\" \
         preserveAspectRatio=\"xMidYMin\">\n<title>{}</title>\n<style>\n{}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escaped(picture.title),
        include_str!("style.css"),
    )?;
    let middle = WIDTH / 2.0;
    writeln!(
        out,
        "<text class=\"heading\" x=\"{middle}\" y=\"28\">{}</text>\n\
         <text class=\"remark\" x=\"{middle}\" y=\"47\">{}</text>\n\
         <text class=\"button\" id=\"reset\" x=\"{MARGIN}\" y=\"28\" visibility=\"hidden\">whole \
         picture</text>\n\
         <text class=\"button\" id=\"search\" x=\"{}\" y=\"28\">search (/)</text>\n\
         <text class=\"remark end\" id=\"matched\" x=\"{}\" y=\"47\"></text>",
        escaped(picture.title),
        escaped(&remark(picture, samples)),
        WIDTH - MARGIN,
        WIDTH - MARGIN,
    )?;
    if tree.value() == 0 {
        let y = HEAD - 8.0;
        writeln!(
            out,
            "<text class=\"remark\" x=\"{middle}\" y=\"{y}\">There is none.</text>"
        )?;
    }
    writeln!(out, "<g id=\"boxes\">")?;
    let mut at = MARGIN;
    for root in tree.roots() {
        draw(root, root.value, at, 0, scale, picture.count, out)?;
        at += root.value as f64 * scale;
    }
    write!(
        out,
        "</g>\n<text id=\"details\" x=\"{MARGIN}\" y=\"{}\"></text>\n\
         <script><![CDATA[\n{}]]></script>\n</svg>\n",
        height - 12.0,
        include_str!("script.js"),
    )
}

fn remark(picture: &Picture<'_>, samples: &Samples) -> String {
    let width = if picture.count {
        "width: allocations"
    } else {
        "width: bytes"
    };
    let what = match picture.measure {
        Measure::Live => "memory that is allocated and not freed".to_owned(),
        Measure::Peak => {
            "what each layer held at its own peak; not to be added up: framework memory lies \
             inside device memory"
                .to_owned()
        }
        Measure::Total => "all memory that was ever allocated".to_owned(),
        Measure::Growth if samples.less.bytes > 0 => format!(
            "what stacks hold more of than then; others hold {} less",
            bytes(samples.less.bytes)
        ),
        Measure::Growth => "what stacks hold more of than then".to_owned(),
    };
    format!("{what} · {width}")
}

/// A box with those below it. `of_all` is what the whole root holds.
fn draw(
    node: &Node,
    of_all: u64,
    x: f64,
    depth: usize,
    scale: f64,
    count: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    // Stacks have at most some hundred frames, so this does not go deep.
    let width = node.value as f64 * scale;
    if width < NARROWEST {
        return Ok(());
    }
    let y = HEAD + depth as f64 * ROW;
    let percent = node.value as f64 / of_all.max(1) as f64 * 100.0;
    let label = foreign(&node.label);
    let size = if count {
        counted(node.sum.count, "allocation")
    } else {
        bytes(node.sum.bytes)
    };
    let mut tip = format!(
        "{label}\n{} in {} ({percent:.1} %)",
        bytes(node.sum.bytes),
        counted(node.sum.count, "allocation"),
    );
    if !node.place.is_empty() {
        tip += "\n";
        tip += &foreign(&node.place);
    }
    let amount = if count {
        node.sum.count
    } else {
        node.sum.bytes
    };
    writeln!(
        out,
        "<g class=\"box\" data-v=\"{amount}\" data-size=\"{size}\"><title>{}</title>\
         <rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" fill=\"{}\"/>\
         <text x=\"{:.2}\" y=\"{}\">{}</text></g>",
        escaped(&tip),
        ROW - 1.0,
        node.colour(),
        x + 3.0,
        y + 13.0,
        escaped(&fitting(&label, &size, width)),
    )?;
    let mut at = x;
    for child in &node.children {
        draw(child, of_all, at, depth + 1, scale, count, out)?;
        at += child.value as f64 * scale;
    }
    Ok(())
}

/// As much of a label as a box has room for; behind it the size, if both fit.
fn fitting(label: &str, size: &str, width: f64) -> String {
    let room = ((width - 6.0) / CHARACTER) as usize;
    let letters = label.chars().count();
    if letters + 3 + size.len() <= room {
        return format!("{label} · {size}");
    }
    if letters <= room {
        return label.to_owned();
    }
    if room < 3 {
        return String::new();
    }
    let mut cut: String = label.chars().take(room - 1).collect();
    cut.push('…');
    cut
}

/// Text for XML. Characters that XML forbids are gone: `foreign` wrote them out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not characters at all, and no XML reader takes them.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_their_boxes() {
        let wide = |letters: f64| 6.0 + letters * CHARACTER + 0.1;
        assert_eq!(fitting("main", "1 B", wide(4.0)), "main");
        assert_eq!(fitting("main", "1 B", wide(10.0)), "main · 1 B");
        assert_eq!(fitting("mainly", "1 B", wide(4.0)), "mai…");
        assert_eq!(fitting("main", "1 B", wide(2.0)), "");
    }

    #[test]
    fn nothing_gets_out_of_text() {
        assert_eq!(
            escaped("</title><script>'\"&\u{1}\u{ffff}"),
            "&lt;/title&gt;&lt;script&gt;&#39;&quot;&amp;\u{fffd}\u{fffd}"
        );
    }
}
