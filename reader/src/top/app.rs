//! The state of the program on the screen, and what each action changes. Pure: what has to be done
//! elsewhere comes back as an [`Effect`].

use super::model::Model;
use super::picture::{FailureRow, GroupKey, GroupRow, Picture, ProcessRow};
use super::series::Window;
use super::settings::{By, INTERVALS, Per, Settings, Sort, next_of};
use crate::live::Sample;
use ratatui::layout::{Position, Rect};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vramtrace_format::record::Layer;

/// Stacks whose frames are kept.
const MOST_STACKS: usize = 64;
/// Characters of a filter.
const MOST_FILTER: usize = 200;

/// A table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    /// Processes.
    Processes,
    /// What holds memory.
    #[default]
    Stacks,
    /// What allocators hold.
    Pools,
    /// Failed allocations.
    Failures,
}

impl Pane {
    /// All, in the order that keys go through them.
    pub const ALL: [Pane; 4] = [Pane::Processes, Pane::Stacks, Pane::Pools, Pane::Failures];
}

/// What tells a row apart from others of its table, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowId {
    /// A process's, on a device.
    Process(u32, Option<String>),
    /// A group's.
    Group(GroupKey),
    /// An allocator's.
    Pool(u32, String, &'static str),
    /// A failure's.
    Failure(u32, u64),
}

/// Where one is in a table.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The row that is selected.
    pub selected: Option<RowId>,
    /// Its number at the last look: where one goes on if it is gone.
    pub at: usize,
    /// Rows that are above what is to be seen.
    pub offset: usize,
}

/// Stack of a trace, and API function.
pub type Place = (PathBuf, u32, u16);

/// The frames of a stack, one on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frames {
    /// They are being found.
    Asked,
    /// Innermost first.
    Found(Arc<Vec<String>>),
    /// A sentence.
    Failed(String),
}

/// What is in front of the tables.
#[derive(Clone, Debug, Default)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The keys.
    Help,
    /// A group with its stack.
    Group(Box<GroupRow>),
    /// A failure with its stack.
    Failure(Box<FailureRow>),
    /// A line that is written: the filter.
    Prompt(String),
}

/// What one can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Let the shell have the terminal for a while.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// So many rows down, or up.
    Move(isize),
    /// So many screens down, or up.
    Page(isize),
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// To the next table, or back.
    NextPane(bool),
    /// To this table.
    Focus(Pane),
    /// Into what is selected.
    Open,
    /// Out of it.
    Back,
    /// Sort by this.
    SortBy(Sort),
    /// Sort by the next.
    NextSort,
    /// The other way round.
    Reverse,
    /// Put together by the next, or by the one before.
    NextBy(bool),
    /// The next layer.
    NextLayer,
    /// The next device.
    NextDevice,
    /// The next span of time.
    NextWindow,
    /// The next unit of growth.
    NextPer,
    /// Stand still, or go on.
    Pause,
    /// Look more often.
    Faster,
    /// Look less often.
    Slower,
    /// Show the keys.
    Help,
    /// Begin to write a filter.
    Filter,
    /// Write a character.
    Write(char),
    /// Take the last one back.
    Erase,
    /// A click there.
    Click(u16, u16),
    /// The wheel was turned there: rows down, or up.
    Wheel(u16, u16, isize),
}

/// What has to be done elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// End.
    Quit,
    /// Let the shell have the terminal for a while.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Samples at this interval; `None`: none.
    Interval(Option<Duration>),
    /// Find the frames of a stack.
    Frames(Place),
}

/// What is at a place of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A row of a table, by number.
    Row(Pane, usize),
    /// A table.
    Pane(Pane),
    /// Something that does this.
    Do(Action),
}

/// The state.
#[derive(Default)]
pub struct App {
    /// What was seen.
    pub model: Model,
    /// What is to be seen.
    pub settings: Settings,
    /// What is seen.
    pub picture: Picture,
    /// The table that keys are for.
    pub focus: Pane,
    /// Where one is in each.
    pub cursors: [Cursor; Pane::ALL.len()],
    /// What is in front of them.
    pub overlay: Overlay,
    /// Lines of it that are above what is to be seen.
    pub overlay_offset: usize,
    /// It stands still.
    pub paused: bool,
    /// Time from one sample to the next.
    pub interval: Duration,
    /// Where it looks: words.
    pub looks_at: String,
    /// Whether there was a sample.
    pub started: bool,
    /// Frames of stacks that were looked at.
    pub frames: HashMap<Place, Frames>,
    /// What is where; as it was drawn last.
    pub targets: Vec<(Rect, Target)>,
    /// Rows of each table that were to be seen.
    pub pages: [usize; Pane::ALL.len()],
}

impl App {
    /// A sample has come, so long after the first.
    pub fn take(&mut self, sample: Sample, at: Duration) {
        if self.paused && self.started {
            return;
        }
        self.started = true;
        self.model.take(sample, at);
        self.refresh();
    }

    /// Frames have come.
    pub fn take_frames(&mut self, place: Place, frames: Frames) {
        if self.frames.len() >= MOST_STACKS {
            self.frames.clear();
        }
        self.frames.insert(place, frames);
    }

    fn refresh(&mut self) {
        self.picture = self.model.picture(&self.settings);
        for pane in Pane::ALL {
            let rows = self.rows(pane);
            let found = self.cursors[pane as usize].selected.as_ref();
            let found = found.and_then(|selected| {
                (0..rows).find(|&at| self.id(pane, at).as_ref() == Some(selected))
            });
            let cursor = &mut self.cursors[pane as usize];
            match found {
                Some(at) => cursor.at = at,
                // It is gone, or nothing was selected: one stays where one is.
                None => {
                    cursor.at = cursor.at.min(rows.saturating_sub(1));
                    if cursor.selected.is_some() {
                        let at = cursor.at;
                        self.cursors[pane as usize].selected = self.id(pane, at);
                    }
                }
            }
        }
        // What is open stays open, with new figures while there are some.
        if let Overlay::Group(open) = &mut self.overlay
            && let Some(row) = self.picture.groups.iter().find(|row| row.key == open.key)
        {
            **open = row.clone();
        }
    }

    /// Rows of a table.
    pub fn rows(&self, pane: Pane) -> usize {
        match pane {
            Pane::Processes => self.picture.processes.len(),
            Pane::Stacks => self.picture.groups.len(),
            Pane::Pools => self.picture.pools.len(),
            Pane::Failures => self.picture.failures.len(),
        }
    }

    fn id(&self, pane: Pane, at: usize) -> Option<RowId> {
        let picture = &self.picture;
        match pane {
            Pane::Processes => picture.processes.get(at).map(process_id),
            Pane::Stacks => {
                let row = picture.groups.get(at)?;
                Some(RowId::Group(row.key.clone()))
            }
            Pane::Pools => {
                let row = picture.pools.get(at)?;
                Some(RowId::Pool(row.process, row.gpu.clone(), row.allocator))
            }
            Pane::Failures => {
                let row = picture.failures.get(at)?;
                Some(RowId::Failure(row.process, row.failure.seq))
            }
        }
    }

    /// Does something; returns what has to be done elsewhere.
    pub fn act(&mut self, action: Action) -> Option<Effect> {
        match action {
            Action::Quit => return Some(Effect::Quit),
            Action::Suspend => return Some(Effect::Suspend),
            Action::Redraw => return Some(Effect::Redraw),
            Action::Pause => {
                self.paused = !self.paused;
                return Some(Effect::Interval((!self.paused).then_some(self.interval)));
            }
            Action::Faster => return self.every(self.interval / 2),
            Action::Slower => return self.every(self.interval.saturating_mul(2)),
            Action::Help => {
                self.overlay_offset = 0;
                self.overlay = match self.overlay {
                    Overlay::Help => Overlay::None,
                    _ => Overlay::Help,
                };
            }
            Action::Move(by) => self.go(by),
            Action::Page(by) => {
                let page = self.pages[self.focus as usize].max(1) as isize;
                self.go(by.saturating_mul(page));
            }
            Action::First => self.go(isize::MIN),
            Action::Last => self.go(isize::MAX),
            Action::NextPane(back) => self.focus = next_of(&Pane::ALL, self.focus, back),
            Action::Focus(pane) => self.focus = pane,
            Action::Open => return self.open(),
            Action::Back => self.back(),
            Action::Click(column, row) => return self.click(column, row),
            Action::Wheel(column, row, by) => {
                if matches!(self.overlay, Overlay::None)
                    && let Some(Target::Row(pane, _) | Target::Pane(pane)) =
                        self.target(column, row)
                {
                    self.focus = *pane;
                }
                self.go(by);
            }
            Action::Filter => self.overlay = Overlay::Prompt(self.settings.filter.clone()),
            Action::Write(c) => {
                if let Overlay::Prompt(text) = &mut self.overlay
                    && text.chars().count() < MOST_FILTER
                {
                    text.push(c);
                }
                self.filter_as_written();
            }
            Action::Erase => {
                if let Overlay::Prompt(text) = &mut self.overlay {
                    text.pop();
                }
                self.filter_as_written();
            }
            change => self.set(change),
        }
        None
    }

    fn every(&mut self, interval: Duration) -> Option<Effect> {
        self.interval = interval.clamp(INTERVALS.0, INTERVALS.1);
        (!self.paused).then_some(Effect::Interval(Some(self.interval)))
    }

    /// Changes what is shown, and how.
    fn set(&mut self, change: Action) {
        let settings = &mut self.settings;
        match change {
            Action::SortBy(sort) if settings.sort == sort => settings.reverse = !settings.reverse,
            Action::SortBy(sort) => (settings.sort, settings.reverse) = (sort, false),
            Action::NextSort => {
                settings.sort = next_of(&Sort::ALL, settings.sort, false);
                settings.reverse = false;
            }
            Action::Reverse => settings.reverse = !settings.reverse,
            Action::NextBy(back) => settings.by = next_of(&By::ALL, settings.by, back),
            Action::NextLayer => {
                let all: Vec<Option<Layer>> = std::iter::once(None)
                    .chain(Layer::ALL.iter().copied().map(Some))
                    .collect();
                settings.layer = next_of(&all, settings.layer, false);
            }
            Action::NextDevice => {
                let keys = self.picture.devices.iter().map(|row| Some(&row.key));
                let all: Vec<Option<&String>> = std::iter::once(None).chain(keys).collect();
                settings.device = next_of(&all, settings.device.as_ref(), false).cloned();
            }
            Action::NextWindow => settings.window = next_of(&Window::ALL, settings.window, false),
            Action::NextPer => settings.per = next_of(&Per::ALL, settings.per, false),
            _ => return,
        }
        self.refresh();
    }

    fn filter_as_written(&mut self) {
        if let Overlay::Prompt(text) = &self.overlay {
            self.settings.filter.clone_from(text);
            self.refresh();
        }
    }

    fn go(&mut self, by: isize) {
        if !matches!(self.overlay, Overlay::None | Overlay::Prompt(_)) {
            self.overlay_offset = self.overlay_offset.saturating_add_signed(by.min(1 << 20));
            return;
        }
        let last = self.rows(self.focus).saturating_sub(1);
        let cursor = &self.cursors[self.focus as usize];
        let at = match cursor.selected {
            // The first key shows where one is.
            None => cursor
                .at
                .saturating_add_signed(by.saturating_sub(by.signum())),
            Some(_) => cursor.at.saturating_add_signed(by),
        };
        self.select(self.focus, at.min(last));
    }

    fn select(&mut self, pane: Pane, at: usize) {
        let id = self.id(pane, at);
        let cursor = &mut self.cursors[pane as usize];
        (cursor.at, cursor.selected) = (at, id);
    }

    fn open(&mut self) -> Option<Effect> {
        match &self.overlay {
            Overlay::None => {}
            Overlay::Prompt(_) | Overlay::Help => {
                self.overlay = Overlay::None;
                return None;
            }
            Overlay::Group(_) | Overlay::Failure(_) => return None,
        }
        let at = self.cursors[self.focus as usize].at;
        if self.cursors[self.focus as usize].selected.is_none() {
            self.select(self.focus, at);
        }
        self.overlay_offset = 0;
        match self.focus {
            Pane::Processes => {
                let process = self.picture.processes.get(at)?.process;
                self.settings.process = match self.settings.process {
                    Some(now) if now == process => None,
                    _ => Some(process),
                };
                if self.settings.process.is_some() {
                    self.focus = Pane::Stacks;
                }
            }
            Pane::Pools => {
                self.settings.process = Some(self.picture.pools.get(at)?.process);
                self.focus = Pane::Stacks;
            }
            Pane::Stacks => return self.open_group(at),
            Pane::Failures => {
                let row = self.picture.failures.get(at)?.clone();
                let (stack, api) = row.failure.place;
                let place = (row.trace.clone(), stack, api);
                self.overlay = Overlay::Failure(Box::new(row));
                return self.ask(place);
            }
        }
        self.refresh();
        None
    }

    /// A stack is shown with its frames; of other groups, the stacks that it is made of.
    fn open_group(&mut self, at: usize) -> Option<Effect> {
        let row = self.picture.groups.get(at)?.clone();
        if row.rest {
            return None;
        }
        if let (Some((stack, api)), Some(trace)) = (row.key.place, row.trace.clone()) {
            self.overlay = Overlay::Group(Box::new(row));
            return self.ask((trace, stack, api));
        }
        let settings = &mut self.settings;
        match settings.by {
            By::Process => settings.process = row.key.process,
            By::Kind => settings.filter = row.label,
            _ => settings.filter = row.key.word,
        }
        settings.layer = Some(row.key.layer);
        settings.by = By::Stack;
        self.refresh();
        None
    }

    fn ask(&mut self, place: Place) -> Option<Effect> {
        match self.frames.get(&place) {
            Some(Frames::Asked | Frames::Found(_)) => None,
            Some(Frames::Failed(_)) | None => {
                self.take_frames(place.clone(), Frames::Asked);
                Some(Effect::Frames(place))
            }
        }
    }

    fn back(&mut self) {
        match std::mem::take(&mut self.overlay) {
            Overlay::None => {}
            Overlay::Prompt(_) => {
                self.settings.filter.clear();
                return self.refresh();
            }
            _ => return,
        }
        let settings = &mut self.settings;
        if !settings.filter.is_empty() {
            settings.filter.clear();
        } else if settings.process.is_some() {
            settings.process = None;
        } else if settings.device.is_some() {
            settings.device = None;
        } else {
            settings.layer = None;
        }
        self.refresh();
    }

    fn target(&self, column: u16, row: u16) -> Option<&Target> {
        let at = Position::new(column, row);
        let found = self
            .targets
            .iter()
            .rev()
            .find(|(area, _)| area.contains(at));
        found.map(|(_, target)| target)
    }

    fn click(&mut self, column: u16, row: u16) -> Option<Effect> {
        match (&self.overlay, self.target(column, row).cloned()) {
            (Overlay::Help | Overlay::Group(_) | Overlay::Failure(_), _) => {
                self.overlay = Overlay::None;
                None
            }
            (_, None) => None,
            (_, Some(Target::Pane(pane))) => {
                self.focus = pane;
                None
            }
            (_, Some(Target::Do(action))) => self.act(action),
            (_, Some(Target::Row(pane, at))) => {
                let cursor = &self.cursors[pane as usize];
                let again = self.focus == pane && cursor.selected.is_some() && cursor.at == at;
                self.focus = pane;
                if again {
                    return self.open();
                }
                self.select(pane, at.min(self.rows(pane).saturating_sub(1)));
                None
            }
        }
    }
}

fn process_id(row: &ProcessRow) -> RowId {
    RowId::Process(row.process, row.device.clone())
}
