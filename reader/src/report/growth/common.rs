//! What stacks that grow have in common: where to look first.

use super::Shown;
use crate::analysis::growth::rate;
use crate::report::frames::{ShownFrame, up_to_main};

/// Of what grows, at least this much comes through the common frames.
const SHARE: f64 = 0.9;

/// The innermost frames that nearly all of what grows has come through.
#[derive(Clone, Debug, PartialEq)]
pub struct Common<'a> {
    /// Share of the growth that comes through them.
    pub share: f64,
    /// Groups that do.
    pub groups: usize,
    /// The frames, innermost first.
    pub frames: &'a [ShownFrame],
}

/// Of several groups; `None` where they have nothing in common but what calls everything.
pub fn common<'a>(shown: &'a Shown<'_>) -> Option<Common<'a>> {
    let groups = shown.growths.growing.iter().zip(&shown.growing);
    let stacks: Vec<(f64, &[ShownFrame])> = groups
        .filter(|(placed, _)| placed.group.value.is_none() && !placed.group.not_sampled)
        .map(|(placed, stack)| (rate(&placed.group).max(0.0), &stack[..up_to_main(stack)]))
        .collect();
    of(&stacks)
}

fn of<'a>(stacks: &[(f64, &'a [ShownFrame])]) -> Option<Common<'a>> {
    let all: f64 = stacks.iter().map(|(rate, _)| rate).sum();
    if stacks.len() < 2 || all <= 0.0 {
        return None;
    }
    let mut through: Vec<(f64, &[ShownFrame])> = stacks.to_vec();
    let mut depth = 0;
    loop {
        // The frame at this depth, from outside, that most comes through.
        let at = |stack: &'a [ShownFrame]| stack.len().checked_sub(depth + 1).map(|at| &stack[at]);
        let mut best: Option<(f64, &ShownFrame)> = None;
        for (_, stack) in &through {
            let Some(frame) = at(stack) else { continue };
            if best.is_some_and(|(_, best)| best == frame) {
                continue;
            }
            let same = through.iter().filter(|(_, stack)| at(stack) == Some(frame));
            let sum: f64 = same.map(|(rate, _)| rate).sum();
            if best.is_none_or(|(most, _)| sum > most) {
                best = Some((sum, frame));
            }
        }
        match best {
            Some((sum, frame)) if sum >= SHARE * all => {
                through.retain(|(_, stack)| at(stack) == Some(frame));
                depth += 1;
            }
            _ => break,
        }
    }
    // What calls everything says nothing.
    if depth < 2 {
        return None;
    }
    let sum: f64 = through.iter().map(|(rate, _)| rate).sum();
    let (_, stack) = through.first()?;
    Some(Common {
        share: sum / all,
        groups: through.len(),
        frames: &stack[stack.len() - depth..],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(words: &str) -> Vec<ShownFrame> {
        let frames = words.split(' ').map(|word| ShownFrame {
            function: Some(word.into()),
            ..ShownFrame::default()
        });
        frames.collect()
    }

    fn named(common: &Common<'_>) -> String {
        let names = common.frames.iter().filter_map(|f| f.function.clone());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn where_nearly_all_of_it_comes_through() {
        let stacks = [
            (50.0, stack("relu forward validate main module")),
            (45.0, stack("loss validate main module")),
            (5.0, stack("randint main module")),
        ];
        let given: Vec<(f64, &[ShownFrame])> = stacks.iter().map(|(r, s)| (*r, &s[..])).collect();
        let found = of(&given).unwrap();
        assert_eq!(named(&found), "validate main module");
        assert_eq!((found.groups, found.share), (2, 0.95));
        let even: Vec<(f64, &[ShownFrame])> = stacks.iter().map(|(_, s)| (1.0, &s[..])).collect();
        assert_eq!(named(&of(&even).unwrap()), "main module");
    }

    #[test]
    fn nothing_in_common() {
        let (one, other) = (stack("a b main"), stack("c d main"));
        assert_eq!(of(&[(1.0, &one), (1.0, &other)]), None);
        assert_eq!(of(&[(1.0, &one)]), None);
        assert_eq!(of(&[(0.0, &one), (0.0, &one)]), None);
        assert_eq!(of(&[(1.0, &[]), (1.0, &[])]), None);
        // The same stack twice is common to the last frame.
        assert_eq!(of(&[(1.0, &one), (1.0, &one)]).unwrap().frames.len(), 3);
    }
}
