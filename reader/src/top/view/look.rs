//! Colours and signs: fewer where the terminal has fewer.

use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours.
    pub colour: bool,
    /// More than ASCII.
    pub unicode: bool,
}

impl Look {
    /// Of this process's environment: `NO_COLOR` takes colours away, a locale other than UTF-8 signs.
    pub fn of_environment() -> Look {
        let set = |name| {
            let value = std::env::var_os(name)?;
            (!value.is_empty()).then(|| value.to_string_lossy().to_lowercase())
        };
        // The first that is set decides, as it does for C programs.
        let locale = set("LC_ALL").or(set("LC_CTYPE")).or(set("LANG"));
        Look {
            colour: set("NO_COLOR").is_none(),
            unicode: locale
                .is_none_or(|locale| locale.contains("utf-8") || locale.contains("utf8")),
        }
    }

    fn of(self, colour: Color, otherwise: Modifier) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(otherwise)
        }
    }

    /// Titles and keys.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What is there for those who look for it.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Heads of columns.
    pub fn head(self) -> Style {
        self.of(Color::Cyan, Modifier::empty())
            .add_modifier(Modifier::BOLD)
    }

    /// The row that is selected in the table that keys are for: of one colour, whatever is in it. Reversed, what is dim or
    /// coloured would be patches.
    pub fn selected(self) -> Style {
        Style::new()
            .fg(Color::Reset)
            .add_modifier(Modifier::REVERSED)
            .remove_modifier(Modifier::DIM)
    }

    /// What is bad.
    pub fn bad(self) -> Style {
        self.of(Color::Red, Modifier::BOLD)
    }

    /// What needs attention.
    pub fn warn(self) -> Style {
        self.of(Color::Yellow, Modifier::BOLD)
    }

    /// Memory in use by traced processes.
    pub fn used(self) -> Style {
        self.of(Color::Green, Modifier::empty())
    }

    /// Memory that allocators hold without using it.
    pub fn cached(self) -> Style {
        self.of(Color::Yellow, Modifier::empty())
    }

    /// Memory of others.
    pub fn others(self) -> Style {
        self.of(Color::Blue, Modifier::empty())
    }

    /// Sparklines.
    pub fn trend(self) -> Style {
        self.of(Color::Cyan, Modifier::empty())
    }

    /// Signs of a bar: in use, held, others', free.
    pub const fn bar(self) -> [&'static str; 4] {
        if self.unicode {
            ["█", "▓", "▒", "·"]
        } else {
            ["#", "=", "-", "."]
        }
    }

    /// Steps of a sparkline, lowest first.
    pub const fn steps(self) -> [&'static str; 8] {
        if self.unicode {
            ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        } else {
            ["_", ".", ",", "-", "~", "+", "*", "#"]
        }
    }

    /// Between a place and its caller.
    pub const fn arrow(self) -> &'static str {
        if self.unicode { " ← " } else { " < " }
    }

    /// A line across.
    pub const fn rule(self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }

    /// At the column that rows are sorted by.
    pub const fn sorted(self, reverse: bool) -> &'static str {
        match (self.unicode, reverse) {
            (true, false) => "▼",
            (true, true) => "▲",
            (false, false) => "v",
            (false, true) => "^",
        }
    }
}

/// A sparkline of values, from the least to the most of them; flat in the middle where these hardly
/// differ, empty where nothing is known.
pub fn sparkline(values: &[Option<u64>], look: Look) -> String {
    let known = || values.iter().flatten().copied();
    let (Some(least), Some(most)) = (known().min(), known().max()) else {
        return String::new();
    };
    let steps = look.steps();
    let range = most - least;
    let sign = |value: u64| {
        let step = match (most, range) {
            (0, _) => 0,
            // Less than a thousandth is not worth a look.
            (most, range) if range <= most / 1000 => 3,
            (_, range) => {
                let part = (value - least) as f64 / range as f64;
                (part * (steps.len() - 1) as f64).round() as usize
            }
        };
        steps[step.min(steps.len() - 1)]
    };
    let signs = values.iter().map(|value| value.map_or(" ", sign));
    signs.collect()
}

/// How many cells of a bar each part of `whole` takes, in their order: what is not nothing shows, and
/// together they are never more than the bar.
pub fn parts(whole: u64, amounts: &[u64], cells: u16) -> Vec<u16> {
    let mut left = cells;
    let share = |amount: u64| match (whole, amount) {
        (0, _) | (_, 0) => 0,
        (whole, amount) => {
            let cells = amount as f64 / whole as f64 * f64::from(cells);
            (cells.round() as u16).max(1)
        }
    };
    let parts = amounts.iter().map(|&amount| {
        let part = share(amount).min(left);
        left -= part;
        part
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        colour: false,
        unicode: true,
    };

    #[test]
    fn sparklines_span_what_there_is() {
        let line = |values: &[Option<u64>]| sparkline(values, PLAIN);
        assert_eq!(line(&[None, Some(0), Some(7), Some(14)]), " ▁▅█");
        assert_eq!(line(&[Some(5_000_000), Some(5_000_001)]), "▄▄");
        assert_eq!(line(&[Some(0), Some(0)]), "▁▁");
        assert_eq!(line(&[None, None]), "");
        assert_eq!(line(&[Some(0), Some(u64::MAX)]), "▁█");
    }

    #[test]
    fn bars_show_what_is_not_nothing_and_never_overflow() {
        assert_eq!(parts(100, &[50, 25, 0], 20), [10, 5, 0]);
        assert_eq!(parts(1 << 40, &[1, 1, 1], 20), [1, 1, 1]);
        assert_eq!(parts(10, &[20, 20], 20), [20, 0]);
        assert_eq!(parts(0, &[20], 20), [0]);
        assert_eq!(parts(1, &[u64::MAX, 1], 3), [3, 0]);
        assert_eq!(parts(10, &[10], 0), [0]);
    }
}
