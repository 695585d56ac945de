//! Flame graphs: that they are whole XML whatever functions are called, and show what is there.

use super::program::{HOSTILE, hostile, random, story};
use super::{leaked, vramtrace};
use std::path::Path;

fn draw(trace: &Path, args: &[&str]) -> String {
    let all = [&["flamegraph", "-o", "-"], args, &[trace.to_str().unwrap()]].concat();
    let out = vramtrace(&all, trace.parent().unwrap());
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Elements by name with their text, of a picture as we write them. Fails on what is not well formed.
fn elements(svg: &str) -> Vec<(String, String)> {
    let mut open: Vec<(String, String)> = Vec::new();
    let mut all = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        assert!(!text.contains('>') || text.trim().is_empty(), "{text}");
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        for (at, _) in text.match_indices('&') {
            assert!(entities.iter().any(|e| text[at..].starts_with(e)), "{text}");
        }
        if let Some((_, content)) = open.last_mut() {
            content.push_str(text);
        }
        rest = &rest[at..];
        if let Some(data) = rest.strip_prefix("<![CDATA[") {
            let (data, after) = data.split_once("]]>").unwrap();
            open.last_mut().unwrap().1.push_str(data);
            rest = after;
            continue;
        }
        let (tag, after) = rest[1..].split_once('>').unwrap();
        rest = after;
        assert!(!tag.contains('<'), "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            let (own, content) = open.pop().unwrap();
            assert_eq!(own, name);
            all.push((own, content));
        } else if !tag.ends_with('/') {
            let name = tag.split([' ', '\n']).next().unwrap();
            open.push((name.to_owned(), String::new()));
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    all
}

/// Texts of the tips of boxes.
fn tips(svg: &str) -> Vec<String> {
    let titles = elements(svg)
        .into_iter()
        .filter(|(name, _)| name == "title");
    titles.skip(1).map(|(_, text)| text).collect()
}

#[test]
fn boxes_say_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let tips_live = tips(&draw(&trace, &[]));
    assert_eq!(tips_live[0], "GPU 0\n10.00 MiB in 10 allocations (100.0 %)");
    for tip in [
        "train+0x600\n4.00 MiB in 4 allocations (40.0 %)\n/opt/app/train",
        "Model.forward model.py:12\n3.00 MiB in 3 allocations (30.0 %)\n/opt/app/model.py",
        "host memory\n2.00 MiB in 1 allocation (100.0 %)",
    ] {
        assert!(
            tips_live.iter().any(|own| own == tip),
            "{tip}: {tips_live:#?}"
        );
    }
    let svg = draw(
        &trace,
        &["--what", "total", "--count", "--title", "Mine & yours"],
    );
    let elements = elements(&svg);
    assert!(elements.contains(&("title".into(), "Mine &amp; yours".into())));
    assert_eq!(
        tips(&svg)[0],
        "GPU 0\n13.00 MiB in 13 allocations (100.0 %)"
    );
    assert!(svg.contains("all memory that was ever allocated · width: allocations"));
    let svg = draw(&trace, &["--what", "growth", "--from", "3s"]);
    assert!(
        svg.contains("others hold 3.00 MiB less · width: bytes"),
        "{svg}"
    );
}

#[test]
fn nothing_but_our_script_runs() {
    let dir = tempfile::tempdir().unwrap();
    let trace = hostile().write(dir.path(), "a.vrt");
    for args in [
        &["--by", "range"][..],
        &["--by", "thread", "--title", HOSTILE[1]],
    ] {
        let svg = draw(&trace, args);
        let elements = elements(&svg);
        let scripts: Vec<_> = elements
            .iter()
            .filter(|(name, _)| name == "script")
            .collect();
        assert_eq!(scripts.len(), 1);
        assert_eq!(elements.iter().filter(|(name, _)| name == "svg").count(), 1);
        let forbidden = |c: char| c < ' ' && c != '\n' || matches!(c, '\u{fffe}' | '\u{ffff}');
        assert!(!svg.contains(forbidden));
        // One box each, one above it, and the GPU.
        assert_eq!(tips(&svg).len(), 2 * HOSTILE.len() + 1);
        assert!(
            !svg.contains("http") || svg.matches("http").count() == 1,
            "it loads something"
        );
    }
}

#[test]
fn an_empty_picture_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let trace = story().write(dir.path(), "a.vrt");
    let svg = draw(&trace, &["--kind", "array"]);
    assert!(svg.contains("There is none."));
    assert!(tips(&svg).is_empty());
}

#[test]
fn outermost_boxes_hold_what_leaks_says() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let trace = random(seed, 1 << 20, 4_000).write(dir.path(), "a.vrt");
        let [gpu, host] = leaked(&trace, &[]);
        let svg = draw(&trace, &[]);
        let mut sum = 0;
        for line in svg.lines().filter(|line| line.contains("class=\"box\"")) {
            let title = line.split("<title>").nth(1).unwrap();
            if title.starts_with("GPU") || title.starts_with("host memory") {
                let value = line.split("data-v=\"").nth(1).unwrap();
                sum += value.split('"').next().unwrap().parse::<u64>().unwrap();
            }
        }
        assert_eq!(sum, gpu.0 + host.0, "seed {seed}");
    }
}
