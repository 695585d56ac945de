//! Two builds of a program, compared through the real library and the real command.

use serde_json::Value;
use vramtrace_tests::{Build, Run, vramtrace};

#[test]
fn builds_are_compared_by_their_functions() {
    let before = Run::new(Build::of("rebuilt").build()).succeeds();
    let after = Run::new(Build::of("rebuilt").flag("-DLATER").build()).succeeds();
    let traces = [before.trace(), after.trace()];
    let output = vramtrace([
        "diff".as_ref(),
        "--json".as_ref(),
        traces[0].as_os_str(),
        traces[1].as_os_str(),
    ]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["same"]["groups"], 1, "{document:#}");
    assert_eq!(document["same"]["bytes"], 4096);
    let changes = document["changes"].as_array().expect("changes");
    assert_eq!(changes.len(), 1, "{document:#}");
    assert_eq!(changes[0]["change"], "grown");
    assert_eq!(changes[0]["delta"], 1000);
    assert_eq!(changes[0]["stack"][0]["function"], "cache");
    // They are other builds indeed.
    let place = |trace: &std::path::Path| {
        let document = vramtrace_tests::read_json("leaks", trace, &[]);
        document["groups"][0]["stack"][0].clone()
    };
    let [before, after] = traces.each_ref().map(|trace| place(trace));
    assert_eq!(before["function"], after["function"]);
    assert_ne!(before["offset"], after["offset"]);
    assert_ne!(before["line"], after["line"]);
}
