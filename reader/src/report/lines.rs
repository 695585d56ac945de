//! Frames as lines for people: short enough to be read, and without what frameworks put between every two
//! calls. JSON has all of them, whole.

use super::frames::ShownFrame;
use super::words::foreign;
use std::borrow::Cow;

/// More equal frames in succession than this are one line, and their number.
const REPEATED: usize = 3;
/// A function's name that is longer than this loses its parameters, characters.
const LONG: usize = 80;
/// What is still longer then is cut off here.
const LONGEST: usize = 120;

/// The frames of a stack, numbered, one a line; a recursion does not fill pages.
pub(crate) fn lines(stack: &[ShownFrame]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut index = 0;
    let same = |a: &ShownFrame, b: &ShownFrame| {
        let name = |frame: &ShownFrame| (frame.function.clone(), frame.file.clone(), frame.line);
        // Places that have no names are told apart by where they are.
        let place = |frame: &ShownFrame| (frame.module.clone(), frame.offset);
        let named = a.function.is_some() || a.file.is_some();
        name(a) == name(b) && (named || place(a) == place(b))
    };
    for same in stack.chunk_by(same) {
        let shown = if same.len() > REPEATED { 1 } else { same.len() };
        for one in &same[..shown] {
            lines.push(format!("#{index:<2} {}", frame(one)));
            index += 1;
        }
        let more = same.len() - shown;
        if more > 0 {
            lines.push(format!("    … {more} more times"));
            index += more;
        }
    }
    lines
}

/// One frame on one line.
pub(crate) fn frame(frame: &ShownFrame) -> String {
    let module = frame.module.as_deref().unwrap_or("");
    let module = module.rsplit('/').next().unwrap_or(module);
    let offset = frame.offset.unwrap_or(0);
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("  {}:{line}", foreign(in_its_package(file))),
        (Some(file), None) => format!("  {}", foreign(in_its_package(file))),
        _ if module.is_empty() => String::new(),
        _ => format!("  ({}+{offset:#x})", foreign(module)),
    };
    match &frame.function {
        Some(function) => format!("{}{place}", foreign(&short_name(function))),
        None if place.is_empty() => format!("{offset:#x}"),
        None => format!("??{place}"),
    }
}

/// Without frames that stand between every two calls of a framework and say nothing: PyTorch calls each
/// module through two of its own.
pub(crate) fn without_plumbing(stack: &[ShownFrame]) -> Cow<'_, [ShownFrame]> {
    // Where memory was allocated in one of them, it says something.
    if !stack.iter().skip(1).any(is_plumbing) {
        return Cow::Borrowed(stack);
    }
    let first = stack.first().into_iter();
    let others = stack.iter().skip(1).filter(|frame| !is_plumbing(frame));
    Cow::Owned(first.chain(others).cloned().collect())
}

/// Whether a frame is one of PyTorch's between two modules.
pub(crate) fn is_plumbing(frame: &ShownFrame) -> bool {
    let file = frame.file.as_deref().unwrap_or("");
    let function = frame.function.as_deref().unwrap_or("");
    let function = function.rsplit('.').next().unwrap_or(function);
    file.ends_with("/torch/nn/modules/module.py")
        && matches!(function, "_call_impl" | "_wrapped_call_impl")
}

/// `torch/nn/functional.py` of a file in an installed package.
fn in_its_package(file: &str) -> &str {
    let packages = ["/site-packages/", "/dist-packages/"];
    let place = packages.iter().find_map(|folder| {
        let at = file.rfind(folder)?;
        file.get(at + folder.len()..)
    });
    place.filter(|rest| !rest.is_empty()).unwrap_or(file)
}

/// A C++ name without template arguments and parameters, if it is long.
pub(crate) fn short_name(name: &str) -> Cow<'_, str> {
    if name.chars().nth(LONG).is_none() {
        return Cow::Borrowed(name);
    }
    let mut short = without_arguments(name);
    if let Some((at, _)) = short.char_indices().nth(LONGEST) {
        short.truncate(at);
        short.push('…');
    }
    Cow::Owned(short)
}

/// `at::native::sum(…)` of `at::native::sum(at::Tensor const&)`; names with operators made of brackets are
/// left as they are.
fn without_arguments(name: &str) -> String {
    if ["operator<", "operator>", "operator-", "operator("]
        .iter()
        .any(|operator| name.contains(operator))
    {
        return name.to_owned();
    }
    const ANONYMOUS: &str = "(anonymous namespace)";
    let mut short = String::new();
    let (mut angles, mut rounds) = (0usize, 0usize);
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        if angles == 0 && rounds == 0 && rest.starts_with(ANONYMOUS) {
            short.push_str(ANONYMOUS);
            rest = &rest[ANONYMOUS.len()..];
            continue;
        }
        let outside = angles == 0 && rounds == 0;
        match next {
            '<' => angles += 1,
            '>' => angles = angles.saturating_sub(1),
            '(' => rounds += 1,
            ')' => rounds = rounds.saturating_sub(1),
            _ if outside => short.push(next),
            _ => {}
        }
        match next {
            '<' if outside => short.push_str("<…>"),
            '(' if outside => short.push_str("(…)"),
            _ => {}
        }
        rest = &rest[next.len_utf8()..];
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_names_are_no_recursion() {
        let frame = |offset: u64| ShownFrame {
            module: Some("/opt/app".into()),
            offset: Some(offset),
            ..ShownFrame::default()
        };
        let stack: Vec<ShownFrame> = (1..=5).map(frame).collect();
        assert_eq!(lines(&stack).len(), 5);
        assert_eq!(lines(&vec![frame(1); 5]).len(), 2);
    }

    fn python(function: &str, file: &str, line: u32) -> ShownFrame {
        ShownFrame {
            function: Some(function.into()),
            file: Some(file.into()),
            line: Some(line),
            ..ShownFrame::default()
        }
    }

    #[test]
    fn a_recursion_is_one_line_and_numbers_go_on() {
        let frame = |function: &str, line: u32| python(function, "f.py", line);
        let mut stack = vec![frame("alloc", 1), frame("f", 2), frame("f", 2)];
        stack.extend(vec![frame("f", 3); 200]);
        stack.push(frame("<module>", 9));
        assert_eq!(
            lines(&stack),
            [
                "#0  alloc  f.py:1",
                "#1  f  f.py:2",
                "#2  f  f.py:2",
                "#3  f  f.py:3",
                "    … 199 more times",
                "#203 <module>  f.py:9",
            ]
        );
    }

    #[test]
    fn long_names_lose_their_arguments() {
        for (name, short) in [
            ("cudaMalloc", "cudaMalloc"),
            (
                "at::detail::empty_generic(c10::ArrayRef<long>, c10::Allocator*, c10::DispatchKeySet, c10::ScalarType)",
                "at::detail::empty_generic(…)",
            ),
            (
                "std::vector<at::Tensor, std::allocator<at::Tensor> > at::native::(anonymous namespace)::f<float>(at::Tensor const&) const",
                "std::vector<…> at::native::(anonymous namespace)::f<…>(…) const",
            ),
            ("f(unbalanced<((<", "f(unbalanced<((<"),
        ] {
            assert_eq!(short_name(name), short);
        }
        let hostile = "é<(".repeat(4000);
        assert!(short_name(&hostile).chars().count() <= LONGEST + 1);
        let operators = format!("operator<<({})", "x".repeat(500));
        assert_eq!(short_name(&operators).chars().count(), LONGEST + 1);
    }

    #[test]
    fn frames_between_every_two_calls_are_left_out() {
        let module = "/v/site-packages/torch/nn/modules/module.py";
        let stack = [
            python(
                "Linear.forward",
                "/v/site-packages/torch/nn/modules/linear.py",
                134,
            ),
            python("Module._call_impl", module, 1790),
            python("Module._wrapped_call_impl", module, 1779),
            python("Module.to", module, 1355),
            python("main", "/home/x/train.py", 3),
        ];
        assert_eq!(
            lines(&without_plumbing(&stack)),
            [
                "#0  Linear.forward  torch/nn/modules/linear.py:134",
                "#1  Module.to  torch/nn/modules/module.py:1355",
                "#2  main  /home/x/train.py:3",
            ]
        );
        assert_eq!(without_plumbing(&stack[1..3]).len(), 1);
    }
}
