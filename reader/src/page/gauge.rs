//! A number of bytes over time, put into equal spans: fewest, most, last.

use crate::analysis::timeline::Span;

/// Fills spans.
pub struct Gauge {
    width: u64,
    now: u64,
    spans: Vec<Option<Span>>,
}

impl Gauge {
    /// `length` nanoseconds in so many spans, beginning with so many bytes. Spans are as long as those
    /// of [`crate::analysis::timeline::timeline`].
    pub fn new(length: u64, spans: usize, now: u64) -> Gauge {
        let spans = spans.max(1);
        Gauge {
            width: (length / spans as u64).saturating_add(1),
            now,
            spans: vec![None; spans],
        }
    }

    /// Changes by so much (wrapping) at a time.
    pub fn change(&mut self, time: u64, by: u64) {
        self.put(time);
        self.now = self.now.wrapping_add(by);
        self.put(time);
    }

    fn put(&mut self, time: u64) {
        // What is below nothing is damage, which is said elsewhere.
        let now = if self.now > u64::MAX / 2 { 0 } else { self.now };
        let at = (time / self.width).min(self.spans.len() as u64 - 1) as usize;
        let span = self.spans[at].get_or_insert(Span {
            min: now,
            max: now,
            last: now,
        });
        span.min = span.min.min(now);
        span.max = span.max.max(now);
        span.last = now;
    }

    /// The spans; where nothing changed, as before.
    pub fn finish(self, begun: u64) -> Vec<Span> {
        let mut carried = begun;
        let carry = |span: Option<Span>| {
            let span = match span {
                None => Span {
                    min: carried,
                    max: carried,
                    last: carried,
                },
                Some(span) => Span {
                    min: span.min.min(carried),
                    max: span.max.max(carried),
                    last: span.last,
                },
            };
            carried = span.last;
            span
        };
        self.spans.into_iter().map(carry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_extremes() {
        let mut gauge = Gauge::new(99, 10, 5);
        gauge.change(12, 10);
        gauge.change(13, 0u64.wrapping_sub(15));
        gauge.change(55, 7);
        let spans = gauge.finish(5);
        let span = |min, max, last| Span { min, max, last };
        assert_eq!(spans[0], span(5, 5, 5));
        assert_eq!(spans[1], span(0, 15, 0));
        assert_eq!(spans[5], span(0, 7, 7));
        assert_eq!(spans[9], span(7, 7, 7));
    }
}
