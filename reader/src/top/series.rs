//! How a figure went on: three rings of fixed size, one for each span of time that can be looked at.

use std::collections::VecDeque;
use std::time::Duration;

/// Points of a ring.
const POINTS: usize = 120;

/// The time that growth and sparklines are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// One minute.
    #[default]
    Minute,
    /// Ten minutes.
    TenMinutes,
    /// One hour.
    Hour,
}

impl Window {
    /// All, shortest first.
    pub const ALL: [Window; 3] = [Window::Minute, Window::TenMinutes, Window::Hour];

    /// How long it is.
    pub const fn span(self) -> Duration {
        Duration::from_secs(match self {
            Window::Minute => 60,
            Window::TenMinutes => 600,
            Window::Hour => 3_600,
        })
    }

    /// The word for it, which is also how the command line takes it.
    pub const fn word(self) -> &'static str {
        match self {
            Window::Minute => "1m",
            Window::TenMinutes => "10m",
            Window::Hour => "1h",
        }
    }

    /// Time from one point of its ring to the next.
    fn period_ms(self) -> u64 {
        self.span().as_millis() as u64 / POINTS as u64
    }
}

/// A figure over time.
#[derive(Clone, Debug, Default)]
pub struct Series {
    rings: [VecDeque<Point>; Window::ALL.len()],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    ms: u64,
    value: u64,
}

impl Series {
    /// The figure is `value` at a time since the beginning, which never goes back. The last value of a
    /// period counts.
    pub fn add(&mut self, at: Duration, value: u64) {
        let ms = at.as_millis() as u64;
        for (window, ring) in Window::ALL.into_iter().zip(&mut self.rings) {
            let period = window.period_ms();
            // The first point stays: the growth since the beginning begins there.
            let first = ring.len() < 2;
            match ring.back_mut() {
                Some(last) if !first && last.ms / period == ms / period => {
                    *last = Point { ms, value };
                }
                _ => ring.push_back(Point { ms, value }),
            }
            if ring.len() > POINTS {
                ring.pop_front();
            }
        }
    }

    fn points(&self, window: Window) -> impl Iterator<Item = Point> + '_ {
        let ring = &self.rings[window as usize];
        let newest = ring.back().map_or(0, |point| point.ms);
        let oldest = newest.saturating_sub(window.span().as_millis() as u64);
        ring.iter().copied().filter(move |point| point.ms >= oldest)
    }

    /// Growth in a second over a window: the slope of the line that fits best. `None` while there are
    /// not two moments.
    pub fn growth(&self, window: Window) -> Option<f64> {
        let (mut n, mut t_sum, mut v_sum) = (0.0, 0.0, 0.0);
        let base = self.points(window).next()?;
        let at = |point: Point| {
            let seconds = point.ms.saturating_sub(base.ms) as f64 / 1e3;
            (seconds, point.value as f64 - base.value as f64)
        };
        for (t, v) in self.points(window).map(at) {
            n += 1.0;
            t_sum += t;
            v_sum += v;
        }
        let (t_mean, v_mean) = (t_sum / n, v_sum / n);
        let (mut both, mut square) = (0.0, 0.0);
        for (t, v) in self.points(window).map(at) {
            both += (t - t_mean) * (v - v_mean);
            square += (t - t_mean) * (t - t_mean);
        }
        (square > 0.0).then(|| both / square)
    }

    /// Adds the figure to `columns`, of which the last is now, and each a part of the window; `None` where
    /// it was not known.
    pub fn add_to(&self, window: Window, now: Duration, columns: &mut [Option<u64>]) {
        let count = columns.len() as u64;
        if count == 0 {
            return;
        }
        let width = (window.span().as_millis() as u64).div_ceil(count).max(1);
        let now = now.as_millis() as u64;
        let mut points = self.points(window).peekable();
        let mut value = None;
        for (index, column) in columns.iter_mut().enumerate() {
            // Times that end each column, counted from now: the same for all series.
            let Some(end) = now.checked_sub(width.saturating_mul(count - 1 - index as u64)) else {
                continue;
            };
            while let Some(point) = points.next_if(|point| point.ms <= end) {
                value = Some(point.value);
            }
            if let Some(value) = value {
                *column = Some(column.unwrap_or(0).saturating_add(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn growth_is_the_slope_of_what_grows_evenly_in_every_window() {
        let mut series = Series::default();
        assert_eq!(series.growth(Window::Minute), None);
        series.add(at(0), 1000);
        assert_eq!(series.growth(Window::Minute), None);
        for tick in 1..=20_000u64 {
            series.add(at(500 * tick), 1000 + 50 * tick);
            if tick == 1 {
                assert!((series.growth(Window::Hour).unwrap() - 100.0).abs() < 1e-6);
            }
        }
        for window in Window::ALL {
            let growth = series.growth(window).unwrap();
            assert!((growth - 100.0).abs() < 1e-6, "{window:?} {growth}");
        }
    }

    #[test]
    fn what_happened_before_the_window_is_forgotten_in_it() {
        let mut series = Series::default();
        for tick in 0..400u64 {
            let value = if tick < 100 { tick * 1000 } else { 100_000 };
            series.add(at(500 * tick), value);
        }
        assert_eq!(series.growth(Window::Minute), Some(0.0));
        assert!(series.growth(Window::TenMinutes).unwrap() > 0.0);
    }

    #[test]
    fn columns_end_now_and_say_what_was_not_known() {
        let mut series = Series::default();
        series.add(at(30_000), 5);
        series.add(at(45_000), 7);
        let mut columns = [None; 4];
        series.add_to(Window::Minute, at(60_000), &mut columns);
        assert_eq!(columns, [None, Some(5), Some(7), Some(7)]);
        series.add_to(Window::Minute, at(60_000), &mut columns);
        assert_eq!(columns, [None, Some(10), Some(14), Some(14)]);
        series.add_to(Window::Minute, at(60_000), &mut []);
    }

    proptest! {
        #[test]
        fn space_is_bounded_and_nothing_overflows(
            steps in prop::collection::vec((0u64..100_000, any::<u64>()), 1..600),
            columns in 0usize..300,
        ) {
            let mut series = Series::default();
            let mut now = 0;
            for (step, value) in &steps {
                now += step;
                series.add(at(now), *value);
            }
            for window in Window::ALL {
                prop_assert!(series.rings[window as usize].len() <= POINTS);
                prop_assert!(series.growth(window).is_none_or(f64::is_finite));
                let mut shown = vec![Some(u64::MAX); columns];
                series.add_to(window, at(now), &mut shown);
                let mut alone = vec![None; columns];
                series.add_to(window, at(now), &mut alone);
                if let Some(last) = alone.last() {
                    prop_assert_eq!(*last, steps.last().map(|step| step.1));
                }
            }
        }
    }
}
