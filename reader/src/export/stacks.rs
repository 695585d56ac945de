//! Stacks with their frames named: each frame once, each stack once.

use crate::analysis::leaks::By;
use crate::model::{Process, Remembered, Unhidden, VisibleStack, is_own_file};
use crate::report::frames::{Frames, ShownFrame, up_to_main};
use rustc_hash::FxHashMap;

/// The innermost frames that are kept of a stack. Recorders keep fewer; inlined ones come to these, and
/// a damaged trace may say anything.
const MOST_FRAMES: usize = 600;

/// A stack's number among those of all processes.
pub type Id = u32;

/// A stack whose frames have names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Frames, innermost first; numbers in [`Stacks::frames`].
    pub frames: Vec<u32>,
    /// The outermost frames are missing.
    pub truncated: bool,
    /// Why there are none, if there are none.
    pub missing: Option<&'static str>,
}

/// Which frames are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Frames that are usually hidden.
    pub unhidden: Unhidden,
    /// Of [`By::Python`], Python's frames; of [`By::Line`], those of the program's own files; of [`By::Library`], one for each library on the way; else
    /// all.
    pub by: By,
}

/// A stack of a process, and the API function that was called there.
pub type Place = (usize, u32, u16);

/// All stacks of an export.
#[derive(Default)]
pub struct Stacks {
    /// By process, and in it by stack and API: asked for each event.
    ids: Vec<FxHashMap<u64, Id>>,
    all: Vec<(Place, Named)>,
    frames: Vec<ShownFrame>,
    warnings: Vec<String>,
}

impl Stacks {
    /// Names the stacks at these places; their numbers follow the order of the places.
    pub fn of(
        processes: &[Process],
        places: impl IntoIterator<Item = Place>,
        wanted: Wanted,
    ) -> Stacks {
        Stacks::named(processes, places, wanted, &mut Frames::default())
    }

    /// As [`Stacks::of`], with frames of which some may be known already.
    pub fn named(
        processes: &[Process],
        places: impl IntoIterator<Item = Place>,
        wanted: Wanted,
        frames: &mut Frames,
    ) -> Stacks {
        let mut places: Vec<Place> = places.into_iter().collect();
        places.sort_unstable();
        places.dedup();
        let mut visible: FxHashMap<(usize, u32), VisibleStack> = FxHashMap::default();
        for (id, process) in processes.iter().enumerate() {
            let mut loops = Remembered::new(frames);
            for &(_, stack, _) in places.iter().filter(|place| place.0 == id) {
                visible
                    .entry((id, stack))
                    .or_insert_with(|| process.visible(stack, wanted.unhidden, &mut loops));
            }
        }
        frames.look_up(
            visible
                .iter()
                .map(|((id, _), stack)| (&processes[*id], stack)),
        );
        let mut stacks = Stacks {
            ids: vec![FxHashMap::default(); processes.len()],
            ..Stacks::default()
        };
        let mut known: FxHashMap<ShownFrame, u32> = FxHashMap::default();
        for place in places {
            let (id, stack, api) = place;
            let visible = &visible[&(id, stack)];
            let process = &processes[id];
            let mut shown = frames.of(id, process, visible, process.api(api));
            if !wanted.unhidden.cuda {
                shown.truncate(up_to_main(&shown));
            }
            let mut shown = reduced(shown, wanted.by);
            let cut = shown.len() > MOST_FRAMES;
            shown.truncate(MOST_FRAMES);
            let number = |frame: ShownFrame| {
                let next = known.len() as u32;
                *known.entry(frame).or_insert(next)
            };
            let named = Named {
                frames: shown.into_iter().map(number).collect(),
                truncated: visible.truncated || cut,
                missing: visible.missing,
            };
            stacks.ids[id].insert(within(stack, api), stacks.all.len() as Id);
            stacks.all.push((place, named));
        }
        stacks.frames = vec![ShownFrame::default(); known.len()];
        for (frame, number) in known {
            stacks.frames[number as usize] = frame;
        }
        stacks.warnings = frames.warnings();
        stacks
    }

    /// The number of the stack at a place.
    #[inline]
    pub fn id(&self, (process, stack, api): Place) -> Option<Id> {
        self.ids.get(process)?.get(&within(stack, api)).copied()
    }

    /// All stacks by number, each with its place.
    pub fn all(&self) -> &[(Place, Named)] {
        &self.all
    }

    /// A stack.
    pub fn get(&self, id: Id) -> &Named {
        &self.all[id as usize].1
    }

    /// All frames by number.
    pub fn frames(&self) -> &[ShownFrame] {
        &self.frames
    }

    /// A stack's frames, innermost first.
    pub fn frames_of(&self, id: Id) -> impl DoubleEndedIterator<Item = &ShownFrame> {
        let frames = self.get(id).frames.iter();
        frames.map(|&number| &self.frames[number as usize])
    }

    /// Files whose symbols could not be had; sentences.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// A place within its process.
pub(super) fn within(stack: u32, api: u16) -> u64 {
    u64::from(stack) << 16 | u64::from(api)
}

fn reduced(mut frames: Vec<ShownFrame>, by: By) -> Vec<ShownFrame> {
    match by {
        By::Python => frames.retain(|frame| frame.language == "python"),
        By::Line => frames.retain(|frame| {
            frame.language == "python" && frame.file.as_deref().is_some_and(is_own_file)
        }),
        By::Library => {
            for frame in &mut frames {
                *frame = ShownFrame {
                    language: frame.language,
                    function: Some(library(frame).unwrap_or("unknown library").into()),
                    module: frame.module.take(),
                    ..ShownFrame::default()
                };
            }
            frames.dedup();
        }
        _ => {}
    }
    frames
}

/// File name of a frame's program or library; `Python` for code that is in none.
pub fn library(frame: &ShownFrame) -> Option<&str> {
    match (&frame.module, frame.language) {
        (Some(module), _) => Some(module.rsplit('/').next().unwrap_or(module)),
        (None, "python") => Some("Python"),
        (None, _) => None,
    }
}

/// File name of a frame's source.
pub fn source(frame: &ShownFrame) -> Option<&str> {
    let file = frame.file.as_deref()?;
    Some(file.rsplit('/').next().unwrap_or(file))
}

/// A frame on one line: `function file:line`, or where it is in which library.
pub fn label(frame: &ShownFrame) -> String {
    let function = match (&frame.function, library(frame), frame.offset) {
        (Some(function), ..) => function.to_string(),
        (None, Some(library), Some(offset)) => format!("{library}+{offset:#x}"),
        (None, None, Some(offset)) => format!("{offset:#x}"),
        (None, library, None) => library.unwrap_or("??").to_owned(),
    };
    match (source(frame), frame.line) {
        (Some(file), Some(line)) => format!("{function} {file}:{line}"),
        (Some(file), None) => format!("{function} {file}"),
        _ => function,
    }
}

/// What stands for the frames of a stack that has none.
pub fn absent(named: &Named) -> String {
    format!("[{}]", named.missing.unwrap_or("no frame of this kind"))
}

/// What stands where the outermost frames are missing.
pub const TRUNCATED: &str = "[outer frames not recorded]";
