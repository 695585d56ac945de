//! What a frame is called in every build of its program.

use crate::analysis::diff::{Names, Site};
use crate::analysis::leaks::Group;
use crate::model::Process;
use crate::report::frames::{Frames, ShownFrame, up_to_main};

impl Names for Frames {
    fn prepare(&mut self, process: &Process, groups: &[Group]) {
        self.look_up(groups.iter().map(|group| (process, &group.stack)));
    }

    /// As other builds may have them too. What calls `main` is left out: that is the system's.
    fn sites(&mut self, id: usize, process: &Process, group: &Group) -> Vec<Site> {
        let stack = self.of(id, process, &group.stack, group.api.as_deref());
        stack[..up_to_main(&stack)].iter().map(site).collect()
    }
}

fn site(frame: &ShownFrame) -> Site {
    let file = frame.file.as_deref().map(|file| match frame.language {
        // Of many Python files only the directory says which they are.
        "python" => last_parts(file, 2),
        _ => last_parts(file, 1),
    });
    let name = match (&frame.function, file, &frame.module) {
        (Some(function), Some(file), _) => format!("{} in {file}", plain(function)),
        (Some(function), None, _) => plain(function).to_owned(),
        (None, Some(file), _) => format!("in {file}"),
        // Without names only the place is left, which is the same in the same build.
        (None, None, module) => {
            let module = last_parts(module.as_deref().unwrap_or_default(), 1);
            format!("{module}+{:#x}", frame.offset.unwrap_or(0))
        }
    };
    Site {
        name,
        line: frame.line,
    }
}

/// The last so many parts of a path.
fn last_parts(path: &str, parts: usize) -> &str {
    let slash = path.rmatch_indices('/').nth(parts - 1);
    slash.map_or(path, |(at, _)| &path[at + 1..])
}

/// A function without what compilers append to its clones, which changes from build to build.
fn plain(function: &str) -> &str {
    const CLONES: [&str; 5] = [".constprop.", ".isra.", ".part.", ".cold", ".llvm."];
    let ends = CLONES.iter().filter_map(|clone| function.find(clone));
    &function[..ends.min().unwrap_or(function.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_have_in_common() {
        let frame = |language, function: &str, file: &str, line| ShownFrame {
            language,
            function: Some(function.into()),
            file: Some(file.into()),
            line: Some(line),
            module: Some("/opt/v1/app".into()),
            offset: Some(0x10 + u64::from(line)),
        };
        let name = |frame: ShownFrame| site(&frame).name;
        assert_eq!(
            name(frame("native", "f.constprop.0", "/build/1/a.c", 3)),
            name(frame("native", "f", "/build/2/a.c", 9))
        );
        assert_ne!(
            name(frame("python", "f", "/env/a/__init__.py", 3)),
            name(frame("python", "f", "/env/b/__init__.py", 3))
        );
        assert_eq!(last_parts("a.c", 2), "a.c");
        let unknown = ShownFrame {
            language: "native",
            module: Some("/opt/v1/app".into()),
            offset: Some(0x500),
            ..ShownFrame::default()
        };
        assert_eq!(name(unknown), "app+0x500");
    }
}
