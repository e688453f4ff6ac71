//! Where problems are collected.

use super::Problem;
use super::json::Fault;
use super::place::{At, Document};

/// So many problems of one kind are listed; a file with more was not written by hand.
const MAX_PROBLEMS: usize = 1000;

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
    more: usize,
}

impl Report {
    /// The value at this place is wrong.
    pub(super) fn error(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<String>) {
        if self.room() {
            self.errors.push(problem(at.doc, at.offset(), at.shown(), message.into(), help.into()));
        }
    }

    /// The key at this place is wrong, or something is missing in what it holds.
    pub(super) fn error_key(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<String>) {
        if self.room() {
            self.errors.push(problem(at.doc, at.key_offset(), at.shown(), message.into(), help.into()));
        }
    }

    /// It works, but hardly as meant.
    pub(super) fn warn(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<String>) {
        if self.warnings.len() < MAX_PROBLEMS {
            self.warnings.push(problem(at.doc, at.offset(), at.shown(), message.into(), help.into()));
        }
    }

    /// What the reader found.
    pub(super) fn fault(&mut self, doc: &Document, fault: &Fault) {
        let first = fault.first.map_or(0, |at| doc.position(at).0);
        let message = fault.message.replace("{line}", &first.to_string());
        if self.room() {
            self.errors.push(problem(doc, fault.at, fault.path.clone(), message, fault.help.clone()));
        }
    }

    /// A file could not be read at all.
    pub(super) fn file(&mut self, file: &str, message: String, help: String) {
        self.errors.push(Problem {
            file: file.into(),
            line: 1,
            column: 1,
            path: String::new(),
            message,
            help,
        });
    }

    /// Whether more is listed; what is not is counted.
    pub(super) fn room(&mut self) -> bool {
        let room = self.errors.len() < MAX_PROBLEMS;
        self.more += usize::from(!room);
        room
    }

    /// Both lists, sorted by file in the given order, then by place.
    pub(super) fn sorted(mut self, files: &[String]) -> (Vec<Problem>, Vec<Problem>) {
        let rank = |p: &Problem| files.iter().position(|f| *f == p.file);
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by_cached_key(|p| (rank(p), p.line, p.column, p.path.clone(), p.message.clone()));
            list.dedup();
        }
        if self.more > 0
            && let Some(last) = self.errors.last().cloned()
        {
            self.errors.push(Problem {
                path: String::new(),
                message: "there are more problems than are listed".into(),
                help: "correct these first".into(),
                ..last
            });
        }
        (self.errors, self.warnings)
    }
}

fn problem(doc: &Document, offset: usize, path: String, message: String, help: String) -> Problem {
    let (line, column) = doc.position(offset);
    Problem { file: doc.file.clone(), line, column, path, message, help }
}
