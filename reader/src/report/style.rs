//! Colours, on terminals only.

use std::io::IsTerminal;

/// Whether and how text is emphasised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    on: bool,
}

impl Style {
    /// No colours.
    pub const PLAIN: Style = Style { on: false };

    /// Colours if standard output is a terminal and `NO_COLOR` is not set.
    pub fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style {
            on: !refused && !dumb && std::io::stdout().is_terminal(),
        }
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
