//! Reading the configuration again: everything is checked, against systemd too, before anything is changed.

use std::collections::VecDeque;
use std::future::ready;

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::Input;
use crate::config::{self, Lacking, Loaded, Machine, Problem};
use crate::control::ReloadReport;
use crate::place::Places;
use crate::systemd::Manager;

/// Services whose `unit_properties` are checked at once.
const AT_ONCE: usize = 16;

/// Somebody who asked for it.
#[derive(Debug)]
pub struct Asked {
    pub dry_run: bool,
    pub origin: String,
    pub answer: Option<oneshot::Sender<Result<ReloadReport, Vec<Problem>>>>,
}

impl Asked {
    /// What is told of a configuration that has problems.
    pub fn refusal(&self, problems: &[Problem]) -> String {
        let first =
            problems.first().map_or(String::new(), |p| format!("{}:{}: {}", p.file, p.line, p.message));
        let of = match problems.len() {
            0 | 1 => String::new(),
            all => format!(" (the first of {all} problems)"),
        };
        let who = &self.origin;
        format!("new configuration refused, asked for by {who}: {first}{of}; the old one stays in force")
    }
}

/// Reloads are done one after the other, in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct Queue {
    asked: VecDeque<Asked>,
}

/// More than anybody needs; beyond it the caller is told to wait.
const MOST: usize = 32;

impl Queue {
    /// Queues a reload; `true` if it is to begin at once. Gives it back if too many wait.
    pub fn push(&mut self, asked: Asked) -> Result<bool, Asked> {
        if self.asked.len() >= MOST {
            return Err(asked);
        }
        self.asked.push_back(asked);
        Ok(self.asked.len() == 1)
    }

    /// Takes the one that was read, and says whether another one is to begin.
    pub fn pop(&mut self) -> (Option<Asked>, bool) {
        let first = self.asked.pop_front();
        (first, !self.asked.is_empty())
    }
}

/// Reads and checks; the answer comes as [`Input::Loaded`].
pub fn begin(places: Places, manager: Manager, inputs: mpsc::UnboundedSender<Input>) {
    tokio::spawn(async move {
        let loaded = load(places, &manager, Lacking::Refuse).await;
        drop(inputs.send(Input::Loaded(Box::new(loaded))));
    });
}

/// Reads the configuration off the loop, and asks systemd about every property that the user named. What this
/// machine or its systemd lacks is an error or a warning, as `lacking` says.
pub async fn load(places: Places, manager: &Manager, lacking: Lacking) -> Result<Loaded, Vec<Problem>> {
    let path = places.config.clone();
    let read = move || config::load_in(&Machine, &path, places.scope, lacking);
    let file = places.config.display().to_string();
    let read = tokio::task::spawn_blocking(read).await;
    let mut loaded =
        read.map_err(|error| vec![whole_file(&file, &format!("the check failed: {error}"))])??;
    let plans: Vec<_> = loaded.plan.services.values().cloned().collect();
    let asked =
        stream::iter(plans).filter(|plan| ready(!plan.exec.unit_properties.is_empty())).map(async |plan| {
            let answer = manager.check_unit_properties(&plan).await;
            (plan.id.clone(), answer)
        });
    let answers: Vec<_> = asked.buffered(AT_ONCE).collect().await;
    let mut problems = Vec::new();
    for (id, answer) in answers {
        match answer {
            Ok(refused) => {
                for (name, why) in refused {
                    let problem = loaded.refused_property(&id, &name, &why);
                    loaded.set_lacking(&id, &problem.message);
                    problems.push(problem);
                }
            }
            Err(error) => {
                problems.push(whole_file(
                    &file,
                    &format!("systemd cannot check unit_properties of {id}: {error}"),
                ));
            }
        }
    }
    match lacking {
        Lacking::Refuse if !problems.is_empty() => Err(problems),
        _ => {
            loaded.warnings.extend(problems);
            Ok(loaded)
        }
    }
}

fn whole_file(file: &str, message: &str) -> Problem {
    Problem {
        file: file.into(),
        line: 1,
        column: 1,
        path: String::new(),
        message: message.into(),
        help: "try again; if it stays, look into the log of the supervisor".into(),
    }
}
