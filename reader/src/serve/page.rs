//! The status page: what runs, what it has, what could not be read. Plain HTML without scripts; every
//! name in it is foreign, and escaped.

use crate::live::{ProcessSample, Sample};
use crate::report::words::{bytes, counted, duration, foreign};
use std::fmt::Write;
use std::path::Path;

/// Processes on the page.
const MOST: usize = 500;

/// The page.
pub fn page(sample: &Sample, directory: &Path) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>vramtrace</title>\
         <style>body{font:14px/1.5 system-ui,sans-serif;margin:2em;color-scheme:light dark}\
         table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:left;\
         border-bottom:1px solid #8884;vertical-align:top}td.n{text-align:right;\
         font-variant-numeric:tabular-nums}.bad{color:#c33}</style><h1>vramtrace</h1>",
    );
    let _ = write!(
        out,
        "<p>{} running or just ended in <code>{}</code>, read in {}. <a href=\"/metrics\">metrics</a> · \
         <a href=\"/debug/pprof/heap\">profile of all</a> · <a href=\"/healthz\">health</a></p>",
        counted(sample.processes.len() as u64, "traced program"),
        escaped(&directory.to_string_lossy()),
        duration(sample.took.as_nanos() as u64),
    );
    if let Some(why) = &sample.directory_error {
        let _ = write!(
            out,
            "<p class=\"bad\">The directory cannot be read: {}</p>",
            escaped(why)
        );
    }
    devices(&mut out, sample);
    processes(&mut out, sample);
    failed(&mut out, sample);
    let _ = write!(
        out,
        "<p>{} ended, {} quiet, {} not followed, {} not looked at.</p></html>",
        sample.ended, sample.quiet, sample.omitted_processes, sample.omitted_entries
    );
    out
}

fn devices(out: &mut String, sample: &Sample) {
    if let Some(why) = &sample.nvml_error {
        let _ = write!(
            out,
            "<p>Without what nvidia-smi shows: {}.</p>",
            escaped(why)
        );
    }
    if sample.devices.is_empty() {
        return;
    }
    out.push_str("<h2>GPUs</h2><table><tr><th>GPU<th>UUID<th>name<th>used<th>of</tr>");
    for device in &sample.devices {
        let number = device
            .number
            .map_or("?".to_owned(), |number| number.to_string());
        let _ = write!(
            out,
            "<tr><td>{number}<td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
            escaped(&device.uuid),
            escaped(&device.name),
            bytes(device.used_bytes),
            bytes(device.total_bytes)
        );
    }
    out.push_str("</table>");
}

fn processes(out: &mut String, sample: &Sample) {
    out.push_str(
        "<h2>Programs</h2><table><tr><th>pid<th>program<th>rank<th>state<th>where<th>live<th>peak\
         <th>failures<th>largest call site<th>trace</tr>",
    );
    for process in sample.processes.iter().take(MOST) {
        rows_of(out, process);
    }
    out.push_str("</table>");
    if sample.processes.len() > MOST {
        let _ = write!(out, "<p>and {} more</p>", sample.processes.len() - MOST);
    }
}

fn rows_of(out: &mut String, process: &ProcessSample) {
    let rank = process
        .identity
        .rank
        .map_or(String::new(), |rank| rank.to_string());
    let head = format!(
        "<td>{}<td>{}<td>{rank}<td>{}",
        process.identity.pid,
        escaped(&process.identity.name),
        process.state.name()
    );
    let trace = format!(
        "<td>{} (<a href=\"/process/{}/debug/pprof/heap\">profile</a>)",
        escaped(&process.trace.to_string_lossy()),
        process.id
    );
    if process.accounts.is_empty() {
        let _ = write!(
            out,
            "<tr>{head}<td>nothing allocated<td><td><td><td>{trace}</tr>"
        );
    }
    for account in &process.accounts {
        let place = match account.device {
            Some(device) => format!("GPU {device}, {}", account.layer.name()),
            None => account.layer.name().to_owned(),
        };
        let mut sites = process.sites.iter();
        let site =
            sites.find(|site| (site.device, site.kind.layer()) == (account.device, account.layer));
        let site = site.map_or(String::new(), |site| {
            format!("{} ({})", escaped(&site.site), bytes(site.live_bytes))
        });
        let _ = write!(
            out,
            "<tr>{head}<td>{place}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td>{site}{trace}</tr>",
            bytes(account.live_bytes),
            bytes(account.peak_bytes),
            account.failed_count
        );
    }
}

fn failed(out: &mut String, sample: &Sample) {
    if sample.failed.is_empty() {
        return;
    }
    out.push_str("<h2 class=\"bad\">Not readable</h2><ul>");
    for failed in &sample.failed {
        let _ = write!(
            out,
            "<li>{} {}</li>",
            escaped(&failed.trace.to_string_lossy()),
            escaped(&failed.why)
        );
    }
    let _ = write!(out, "</ul><p>{} in all.</p>", sample.unreadable);
}

/// A foreign text inside an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in foreign(text).chars().take(500) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Failed;

    #[test]
    fn foreign_names_stay_text() {
        let sample = Sample {
            failed: vec![Failed {
                trace: "<script>alert(1)</script>\"'&.vrt".into(),
                identity: None,
                why: "is <b>".to_owned(),
            }],
            unreadable: 1,
            ..Sample::default()
        };
        let page = page(&sample, Path::new("/tmp/<i>"));
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("<i>"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;.vrt"));
    }
}
