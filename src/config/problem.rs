//! What is wrong with a configuration, where, and what to do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One problem. Never holds a secret value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// File as it was named.
    pub file: String,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// `services.web.health_check.interval`; empty for the whole file.
    pub path: String,
    /// What is wrong: `unknown key "intervall"`.
    pub message: String,
    /// What was expected and what to do: `did you mean "interval"?`.
    pub help: String,
}
