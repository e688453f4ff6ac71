//! Runs that ended while nobody watched and left no unit behind: what the journal still knows of them.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::Input;
use crate::core::event::{Activity, InvocationId, UnitSeen};
use crate::core::plan::Id;
use crate::core::snapshot::{Snapshot, State};
use crate::journal::{self, Ended};
use crate::place::Scope;

/// What was learnt so far, by run.
#[derive(Debug, Default)]
pub struct Gaps {
    known: BTreeMap<InvocationId, Option<Ended>>,
}

impl Gaps {
    /// The runs that should be up, have no unit in `units`, and were not looked up yet.
    pub fn unknown(&self, snapshot: &Snapshot, units: &BTreeMap<Id, UnitSeen>) -> Vec<InvocationId> {
        vanished(snapshot, units).map(|(_, run)| run).filter(|run| !self.known.contains_key(run)).collect()
    }

    /// Takes in what was looked up.
    pub fn learn(&mut self, ended: BTreeMap<InvocationId, Option<Ended>>) {
        self.known.extend(ended);
    }

    /// Puts what is known into the picture, and forgets it.
    pub fn fill(&mut self, snapshot: &Snapshot, units: &mut BTreeMap<Id, UnitSeen>) {
        let gone: Vec<_> = vanished(snapshot, units).map(|(id, run)| (id.clone(), run)).collect();
        for (id, run) in gone {
            let Some(ended) = self.known.remove(&run).flatten() else { continue };
            let seen = UnitSeen {
                invocation: Some(run),
                exit: Some(ended.exit),
                stopped_outside: ended.stopped_by_job,
                ..UnitSeen::GONE
            };
            units.insert(id, seen);
        }
        self.known.clear();
    }
}

fn vanished<'a>(
    snapshot: &'a Snapshot,
    units: &'a BTreeMap<Id, UnitSeen>,
) -> impl Iterator<Item = (&'a Id, InvocationId)> {
    snapshot.services.iter().filter_map(|(id, view)| {
        let up = matches!(view.state, State::Starting | State::Running);
        let there = units.get(id).is_some_and(|seen| seen.activity != Activity::Gone);
        view.invocation.filter(|_| up && !there).map(|run| (id, run))
    })
}

/// Asks the journal about `runs`; the answer comes as [`Input::Ended`].
pub fn look_up(scope: Scope, runs: Vec<InvocationId>, inputs: mpsc::UnboundedSender<Input>) {
    tokio::spawn(async move {
        let mut known = journal::last_exits(scope, &runs).await;
        let ended = runs.into_iter().map(|run| (run, known.remove(&run))).collect();
        drop(inputs.send(Input::Ended(ended)));
    });
}
