//! `vramtrace top`: what running traced programs hold, on a terminal, as it changes.
//!
//! [`crate::live`] says what there is; nothing here touches a process or a trace.
//!
//! - [`series`]: how figures went on, in fixed space
//! - [`settings`]: what is shown, and how
//! - [`model`]: samples put together to [`picture::Picture`]s: pure, without a terminal
//! - [`app`]: the picture, what is selected in it, and what each action changes; pure as well
//! - [`input`]: keys and mouse to actions
//! - [`view`]: the app on a screen
//! - [`table`]: the columns of each table
//! - [`text`]: foreign names made harmless, figures made short
//! - [`terminal`]: taking the terminal, and giving it back whatever happens
//! - [`sampler`]: the thread that looks
//! - [`run`]: the loop
//! - [`once`], [`json`]: one picture as text, or as a document

pub mod app;
pub mod input;
pub mod json;
pub mod model;
pub mod once;
pub mod picture;
pub mod run;
pub mod sampler;
pub mod series;
pub mod settings;
pub mod table;
pub mod terminal;
pub mod text;
pub mod view;
