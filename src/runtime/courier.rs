//! Carries out what may only happen once the disk has what was handed in before: starts, stops and answers.
//!
//! A daemon that is killed between counting an attempt and starting the unit must find the attempt counted; an API
//! client must find the event of the change that was confirmed to it. One flush serves everything that is queued.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::core::action::Outcome;
use crate::core::event::OpId;
use crate::core::plan::{Id, ServicePlan};
use crate::store::Store;
use crate::systemd::Manager;

/// A database in trouble delays supervision by no more than this.
const AT_MOST: Duration = Duration::from_millis(250);

/// What the answer to an order says that is in force, and that only this process knows of so far.
const NOT_KEPT: &str = "; the database could not take it yet (see the alerts): until it can, a supervisor that is \
                        killed forgets who asked";

/// One thing to do after the flush.
pub enum Errand {
    Start {
        op: OpId,
        plan: Arc<ServicePlan>,
    },
    Stop {
        op: OpId,
        service: Id,
        kill: bool,
    },
    Release {
        service: Id,
    },
    Answer {
        to: oneshot::Sender<Outcome>,
        outcome: Outcome,
    },
    /// Any other answer.
    Reply(Box<dyn FnOnce() + Send>),
}

/// Starts the courier; it ends when the sender is dropped, after the last errand.
pub fn start(store: Store, manager: Manager) -> mpsc::UnboundedSender<Errand> {
    let (errands, mut queue) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, 1024).await > 0 {
            let kept = store.flushed(AT_MOST).await;
            for errand in batch.drain(..) {
                run(errand, &manager, kept);
            }
        }
    });
    errands
}

/// `kept`: the disk has what led to it.
fn run(errand: Errand, manager: &Manager, kept: bool) {
    match errand {
        Errand::Start { op, plan } => manager.start(op, plan),
        Errand::Stop { op, service, kill } => manager.stop(op, service, kill),
        Errand::Release { service } => {
            let manager = manager.clone();
            tokio::spawn(async move { manager.release(&service).await });
        }
        // Nobody listens any more: the order stays in force.
        Errand::Answer { to, mut outcome } => {
            if !kept {
                outcome.message.push_str(NOT_KEPT);
            }
            drop(to.send(outcome));
        }
        Errand::Reply(reply) => reply(),
    }
}
