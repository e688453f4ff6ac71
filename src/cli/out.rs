//! The one place that prints.

use std::io::{IsTerminal, Write};

use super::failure::Failure;
use super::table::Style;

/// Where a command prints, and how.
pub(super) struct Out {
    /// JSON is wanted.
    pub(super) json: bool,
    /// Width and colours.
    pub(super) style: Style,
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
}

impl Out {
    pub(super) fn of_this_process(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width =
            terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|_| terminal);
        let style = Style { width, colours: terminal && !plain && !json };
        Self::new(json, style, Box::new(std::io::stdout()), Box::new(std::io::stderr()))
    }

    pub(super) fn new(
        json: bool,
        style: Style,
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
    ) -> Self {
        Self { json, style, stdout, stderr }
    }

    /// Prints text that ends with its own newline.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout.write_all(text.as_bytes())?;
        Ok(self.stdout.flush()?)
    }

    /// Lines of the terminal; as many as anybody needs where there is none.
    pub(super) fn height(&self) -> usize {
        terminal_size::terminal_size().map_or(usize::MAX, |(_, height)| usize::from(height.0))
    }

    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Prints a value in the field order of its type.
    pub(super) fn value(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// To stderr. That nobody reads it is no failure of the command.
    pub(super) fn complain(&mut self, line: &str) {
        let _ = writeln!(self.stderr, "{line}");
    }

    /// Says why the command failed; with `--json` the problem document too.
    pub(super) fn failure(&mut self, failure: &Failure) {
        if failure.is_silent() {
            return;
        }
        if let (true, Failure::Problem(problem)) = (self.json, failure) {
            let _ = self.value(problem);
        }
        self.complain(&format!("supervisorctl: {}", super::table::clean(&failure.to_string())));
    }
}
