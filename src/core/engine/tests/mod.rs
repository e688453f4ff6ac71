//! What the engine decides: tables by topic, and a simulated world that tries everything at once.

#![allow(clippy::type_complexity, reason = "the rows of a table say what they are by their columns")]

mod adoption;
mod alerts;
mod boots;
mod exits;
mod harness;
mod orders;
mod probing;
mod properties;
mod reload;
mod starting;
mod stopping;
mod tally;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::*;

use super::*;
use crate::core::Wall;
use crate::core::action::AfterStop;
use crate::core::event::*;
use crate::core::plan::*;
use crate::core::snapshot::Health;
