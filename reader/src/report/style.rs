//! Colours and widths, on terminals only.

use std::io::IsTerminal;

/// Whether and how text is emphasised, and how wide it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    on: bool,
    columns: Option<usize>,
}

impl Style {
    /// No colours, any width.
    pub const PLAIN: Style = Style {
        on: false,
        columns: None,
    };

    /// Colours if standard output is a terminal and `NO_COLOR` is not set; as wide as that is.
    pub fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style {
            on: !refused && !dumb && std::io::stdout().is_terminal(),
            columns: terminal_size::terminal_size_of(std::io::stdout())
                .map(|(width, _)| usize::from(width.0)),
        }
    }

    /// Whether a line of so many characters is not broken by the terminal.
    pub fn fits(self, characters: usize) -> bool {
        self.columns.is_none_or(|columns| characters <= columns)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// What matters most.
    pub fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What is bad.
    pub fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// What needs attention.
    pub fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What is fine.
    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What is there for those who look for it.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }
}
