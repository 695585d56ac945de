//! Where traces end up.

use crate::fixture::{DEAD, Scene};
use std::fs;

#[test]
fn a_trace_goes_where_it_belongs() {
    let scene = Scene::new();
    let home = scene.out().join("fake.1.vrt");
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&home));
    let ran = scene
        .run_leaving(&[], &[&trace])
        .expect(0)
        .says("next: vramtrace leaks fake.1.vrt");
    assert!(!ran.stderr.contains("No CUDA"), "{}", ran.stderr);
    assert!(fs::read(&home).unwrap() == fs::read(&trace).unwrap());
    assert!(scene.left_over().is_empty());
}

#[test]
fn a_trace_that_does_not_say_goes_to_the_output_directory() {
    let scene = Scene::new();
    let trace = scene.trace("1.vrt", DEAD, 1, None);
    scene
        .run_leaving(&["-o", "there/%p.vrt"], &[&trace])
        .expect(0);
    let home = scene.out().join(format!("there/vramtrace.fake.{DEAD}.vrt"));
    assert!(home.exists());
}

#[test]
fn missing_directories_are_made() {
    let scene = Scene::new();
    let home = scene.out().join("a/host-1/x.vrt");
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&home));
    scene
        .run_leaving(&["-o", "a/%h/x.vrt"], &[&trace])
        .expect(0);
    assert!(home.exists());
}

#[test]
fn traces_of_one_name_are_numbered_in_order_also_with_force() {
    for options in [&[][..], &["-f"]] {
        let scene = Scene::new();
        let home = scene.out().join("x.vrt");
        let later = scene.trace("1.vrt", DEAD + 2, 20, Some(&home));
        let earlier = scene.trace("2.vrt", DEAD + 1, 10, Some(&home));
        let mut arguments = options.to_vec();
        arguments.extend(["-o", "x.vrt"]);
        scene.run_leaving(&arguments, &[&later, &earlier]).expect(0);
        let same = |name: &str, trace: &str| {
            fs::read(scene.out().join(name)).unwrap() == fs::read(trace).unwrap()
        };
        assert!(same("x.vrt", &earlier) && same("x.2.vrt", &later));
    }
}

#[test]
fn a_file_of_a_fixed_name_is_refused_before_anything_runs() {
    let scene = Scene::new();
    fs::write(scene.out().join("x.vrt"), "precious").unwrap();
    scene
        .run(&["-o", "x.vrt", "touch", "ran"])
        .expect(2)
        .says("x.vrt exists already; use -f");
    assert!(!scene.out().join("ran").exists());
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&scene.out().join("x.vrt")));
    scene
        .run_leaving(&["-f", "-o", "x.vrt"], &[&trace])
        .expect(0);
    assert!(fs::read(scene.out().join("x.vrt")).unwrap() == fs::read(&trace).unwrap());
    assert!(!scene.out().join("x.2.vrt").exists());
}

#[test]
fn a_file_that_nobody_could_foresee_is_left_alone() {
    let scene = Scene::new();
    let home = scene.out().join("fake.vrt");
    fs::write(&home, "precious").unwrap();
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&home));
    scene
        .run_leaving(&["-o", "%e.vrt"], &[&trace])
        .expect(0)
        .says("fake.vrt existed already and was left alone");
    assert_eq!(fs::read(&home).unwrap(), b"precious");
    assert!(fs::read(scene.out().join("fake.2.vrt")).unwrap() == fs::read(&trace).unwrap());
}

#[test]
fn a_trace_that_cannot_be_moved_stays_and_is_named() {
    let scene = Scene::new();
    // A file where a directory should be stops root as well, unlike a mode.
    fs::write(scene.out().join("blocked"), "").unwrap();
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&scene.out().join("blocked/x.vrt")));
    let ran = scene
        .run_leaving(&[], &[&trace])
        .expect(0)
        .says("it stays at ");
    let [left] = &scene.left_over()[..] else {
        panic!("{:?}", scene.left_over());
    };
    let path = left.join("1.vrt");
    assert!(fs::read(&path).unwrap() == fs::read(&trace).unwrap());
    assert!(
        ran.stderr.contains(path.to_str().unwrap()),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_trace_of_a_process_that_goes_on_stays_readable() {
    let scene = Scene::new();
    let home = scene.out().join("x.vrt");
    let running = scene.trace("1.vrt", std::process::id(), 1, Some(&home));
    let ended = scene.trace("2.vrt", DEAD, 2, Some(&home));
    let ran = scene
        .run_leaving(&[], &[&running, &ended])
        .expect(0)
        .says("still runs; its trace stays at ");
    assert!(fs::read(&home).unwrap() == fs::read(&ended).unwrap());
    let left = scene.left_over()[0].join("1.vrt");
    assert!(
        left.exists() && ran.stderr.contains(left.to_str().unwrap()),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_process_that_ends_soon_is_waited_for() {
    let scene = Scene::new();
    let home = scene.out().join("x.vrt");
    let mut other = std::process::Command::new("sleep")
        .arg("1")
        .spawn()
        .unwrap();
    let trace = scene.trace("1.vrt", other.id(), 1, Some(&home));
    scene.run_leaving(&[], &[&trace]).expect(0);
    other.wait().unwrap();
    assert!(home.exists() && scene.left_over().is_empty());
}

#[test]
fn what_is_no_trace_stays_and_what_never_became_one_goes() {
    let scene = Scene::new();
    let program =
        r#"cd "$VRAMTRACE_RUN_DIR"; : >1.vrt; echo >.vramtrace-1-2.tmp; mkdir -p d; rmdir d"#;
    scene.run(&["sh", "-c", program]).expect(0).says("No CUDA");
    assert!(scene.left_over().is_empty());
    let program = r#"echo hello >"$VRAMTRACE_RUN_DIR/note""#;
    scene
        .run(&["sh", "-c", program])
        .expect(0)
        .says("note is not a trace");
    assert!(scene.left_over()[0].join("note").exists());
}

#[test]
fn a_trace_too_damaged_to_read_still_arrives() {
    let scene = Scene::new();
    let trace = scene.trace("1.vrt", DEAD, 1, Some(&scene.out().join("x.vrt")));
    let mut bytes = fs::read(&trace).unwrap();
    bytes.truncate(9000);
    fs::write(&trace, &bytes).unwrap();
    scene
        .run_leaving(&[], &[&trace])
        .expect(0)
        .says("next: vramtrace leaks");
    let arrived: Vec<_> = fs::read_dir(scene.out()).unwrap().flatten().collect();
    assert_eq!(arrived.len(), 1);
    assert!(fs::read(arrived[0].path()).unwrap() == bytes);
}
