//! Which of the processes on a device is the one in question.
//!
//! NVML names processes by ids, and in which pid namespace depends on the driver and on how a
//! container was made: in ours, in an inner one, in one outside that we cannot see, or not at all.

use super::session::Listed;
use crate::model::FoundBy;
use std::path::Path;

/// A process that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How.
    pub by: FoundBy,
    /// Its bytes on the device; `None` where the driver does not count them.
    pub bytes: Option<u64>,
}

/// Finds a process with these ids (as we see it, then as inner pid namespaces do). `alone`: no other
/// traced process uses the device. `visible`: whether there is a process of this id here.
pub fn find(
    list: &[Listed],
    pids: &[u32],
    alone: bool,
    visible: &dyn Fn(u32) -> bool,
) -> Option<Found> {
    let found = |listed: &Listed, by| Found {
        by,
        bytes: listed.bytes,
    };
    let (&own, inner) = pids.split_first()?;
    if let Some(listed) = list.iter().find(|listed| listed.pid == own) {
        return Some(found(listed, FoundBy::Pid));
    }
    // The id of somebody else whom we see is that one's, whatever it means further in.
    let hidden: Vec<&Listed> = list.iter().filter(|listed| !visible(listed.pid)).collect();
    if let Some(listed) = hidden.iter().find(|listed| inner.contains(&listed.pid)) {
        return Some(found(listed, FoundBy::InnerPid));
    }
    match hidden[..] {
        [only] if alone && list.len() == 1 => Some(found(only, FoundBy::Assumed)),
        _ => None,
    }
}

/// Whether we see a process of this id.
pub fn is_visible(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(pids: &[u32]) -> Vec<Listed> {
        let with_bytes = |&pid| Listed {
            pid,
            bytes: Some(u64::from(pid) * 10),
        };
        pids.iter().map(with_bytes).collect()
    }

    fn by(list: &[u32], pids: &[u32], alone: bool) -> Option<(FoundBy, Option<u64>)> {
        let visible = |pid| pid < 100;
        let found = find(&listed(list), pids, alone, &visible)?;
        Some((found.by, found.bytes))
    }

    #[test]
    fn a_process_is_found_by_its_own_id_first() {
        assert_eq!(by(&[7, 9], &[9], false), Some((FoundBy::Pid, Some(90))));
        // 7 inside is 9 here, and 7 here is somebody else.
        assert_eq!(by(&[7, 9], &[9, 7], true), Some((FoundBy::Pid, Some(90))));
        assert_eq!(by(&[7], &[9, 7], true), None);
        assert_eq!(
            by(&[107, 8], &[9, 107], false),
            Some((FoundBy::InnerPid, Some(1070)))
        );
    }

    #[test]
    fn nothing_is_assumed_unless_there_is_no_other_possibility() {
        assert_eq!(
            by(&[4000], &[9], true),
            Some((FoundBy::Assumed, Some(40_000)))
        );
        assert_eq!(by(&[4000], &[9], false), None);
        assert_eq!(by(&[4000, 4001], &[9], true), None);
        assert_eq!(by(&[4000, 8], &[9], true), None);
        assert_eq!(by(&[8], &[9], true), None);
        assert_eq!(by(&[], &[9], true), None);
        assert_eq!(by(&[4000], &[], true), None);
    }

    #[test]
    fn what_the_driver_does_not_count_is_not_known() {
        let list = [Listed {
            pid: 9,
            bytes: None,
        }];
        let found = find(&list, &[9], false, &|_| true);
        assert_eq!(
            found,
            Some(Found {
                by: FoundBy::Pid,
                bytes: None
            })
        );
    }
}
