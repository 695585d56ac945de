//! The options that analyses of live memory share, and what they mean for a process.

use super::find_moment;
use crate::analysis::Filter;
use crate::analysis::leaks::{Asked, By, Options, Point, Window};
use crate::analysis::moment::{Moment, Past};
use crate::cli::{FilterOptions, by};
use crate::model::{Process, Unhidden};
use crate::report::words::duration;

/// What part of which memory is asked about, and how it is grouped.
#[derive(clap::Args, Clone, Debug)]
pub struct Question {
    /// What groups are made by
    #[arg(long, value_name = "WHAT", value_parser = by(), default_value = "stack")]
    pub(crate) by: By,
    /// Show this many groups, 0 for all [default: 10, of oom 5; with --json: all]
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    #[command(flatten)]
    pub(crate) filter: FilterOptions,
    /// Look at what was live at this moment, instead of at the end
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    pub(crate) to: Option<Moment>,
    /// Only what happened after this moment
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse)]
    pub(crate) from: Option<Moment>,
    /// Show frames inside the CUDA driver and runtime, and those that call main, too
    #[arg(long)]
    pub(crate) all_frames: bool,
    /// Show the Python interpreter's own frames, between those of Python functions, too
    #[arg(long)]
    pub(crate) native: bool,
}

impl Question {
    /// Which frames are wanted.
    pub fn unhidden(&self) -> Unhidden {
        Unhidden {
            cuda: self.all_frames,
            native: self.native,
        }
    }

    /// As the analyses take it.
    pub fn options(&self) -> Options {
        Options {
            point: point(self.to.as_ref()),
            by: self.by,
            filter: self.filter.filter(),
            unhidden: self.unhidden(),
            ..Options::default()
        }
    }

    /// The part of the processes' lives, in words.
    pub fn asked(&self) -> Asked {
        Asked {
            from: self.from.as_ref().map(Moment::to_string),
            to: self.to.as_ref().map(Moment::to_string),
        }
    }

    /// How many groups are shown; `None` for all.
    pub fn top(&self, json: bool, default: usize) -> Option<usize> {
        match self.top {
            Some(0) => None,
            None if json => None,
            top => Some(top.unwrap_or(default)),
        }
    }
}

/// Where the end that was asked for is one of those that need no event log.
pub(crate) fn point(to: Option<&Moment>) -> Option<Point> {
    match to {
        Some(Moment::End) => Some(Point::End),
        Some(Moment::Teardown) => Some(Point::Teardown),
        _ => None,
    }
}

/// The part of a process's life that is asked about.
pub(crate) fn window(
    question: &Question,
    process: &Process,
    filter: &Filter,
) -> Result<Window, String> {
    part(
        question.from.as_ref(),
        question.to.as_ref(),
        process,
        filter,
    )
}

/// The part of a process's life between two moments.
pub(crate) fn part(
    from: Option<&Moment>,
    to: Option<&Moment>,
    process: &Process,
    filter: &Filter,
) -> Result<Window, String> {
    let find = |moment: &Moment| find_moment(moment, process, filter);
    // Entries that teardown freed are kept, marked: no need to go back for those.
    let to = to.filter(|to| !matches!(to, Moment::End | Moment::Teardown));
    Ok(Window {
        from: from.map(find).transpose()?,
        to: to.map(|to| past(to, process, filter)).transpose()?,
    })
}

/// The part of a process's time that is asked about, event times; `None` for all of it.
pub(crate) fn times(
    question: &Question,
    process: &Process,
    filter: &Filter,
) -> Result<Option<(u64, u64)>, String> {
    if question.from.is_none() && question.to.is_none() {
        return Ok(None);
    }
    let time = |moment: &Option<Moment>, default: u64| match moment {
        None => Ok(default),
        Some(moment) => find_moment(moment, process, filter)?
            .time(process)
            .ok_or_else(|| format!("its event log does not reach back to `{moment}`")),
    };
    let (from, to) = (time(&question.from, 0)?, time(&question.to, u64::MAX)?);
    if from > to {
        return Err("nothing lies between these moments".to_owned());
    }
    Ok(Some((from, to)))
}

/// What was live at a moment.
pub(crate) fn past(moment: &Moment, process: &Process, filter: &Filter) -> Result<Past, String> {
    let found = find_moment(moment, process, filter)?;
    Past::of(process, found).map_err(|forgotten| {
        format!(
            "its event log begins at {}, and what was allocated at `{moment}`, before, is not \
             known any more; with a larger VRAMTRACE_SIZE it reaches further back",
            duration(forgotten.began)
        )
    })
}
