//! Slopes that a few odd points do not change.

/// A slope, and between what most of the pairs of points put it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slope {
    /// Repeated medians: up to half of the points may be anything.
    pub median: f64,
    /// A quarter of the slopes through two points are below this.
    pub low: f64,
    /// A quarter of the slopes through two points are above this.
    pub high: f64,
}

/// The slope of values that lie `step` apart, per unit of `step`.
pub fn slope(values: &[f64], step: f64) -> Slope {
    if values.len() < 2 || step <= 0.0 {
        return Slope::default();
    }
    let mut medians = Vec::with_capacity(values.len());
    let mut all = Vec::with_capacity(values.len() * (values.len() - 1));
    for (here, value) in values.iter().enumerate() {
        let others = values
            .iter()
            .enumerate()
            .filter(|&(there, _)| there != here);
        let mut slopes: Vec<f64> = others
            .map(|(there, other)| (other - value) / ((there as f64 - here as f64) * step))
            .collect();
        all.extend_from_slice(&slopes);
        medians.push(quantile(&mut slopes, 0.5));
    }
    Slope {
        median: quantile(&mut medians, 0.5),
        low: quantile(&mut all, 0.25),
        high: quantile(&mut all, 0.75),
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() - 1) as f64 * share).round() as usize;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_points_may_be_anything() {
        let mut values: Vec<f64> = (0..30).map(|n| 5.0 + 2.0 * f64::from(n)).collect();
        for at in (0..30).step_by(3) {
            values[at] = 1e9;
        }
        let found = slope(&values, 0.5);
        assert!((found.median - 4.0).abs() < 1e-9, "{found:?}");
        assert_eq!(slope(&[1.0], 1.0), Slope::default());
        let steady = slope(&[0.0, 1.0, 2.0, 3.0], 1.0);
        assert_eq!((steady.low, steady.median, steady.high), (1.0, 1.0, 1.0));
    }
}
