//! One unit: what systemd says of it, what was told of it, and our orders that wait for systemd.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::core::event::{Activity, InvocationId, OpId};
use crate::core::plan::{Limits, ServicePlan};
use crate::systemd::exit::Ending;
use crate::systemd::unit::Maker;

/// One unit as far as it is known.
#[derive(Debug, Default)]
pub struct Unit {
    pub state: State,
    /// The run that was told as up, and whose end was not told yet.
    pub up: Option<Up>,
    /// Jobs of anybody that are in progress.
    pub jobs: BTreeSet<u32>,
    /// Our orders that are in progress.
    pub orders: Vec<Order>,
    /// What systemd's unit was made from, if we made it.
    pub made: Option<Made>,
    /// Signals that changed `state`.
    pub touched: u64,
    /// Who waits for the unit to be unloaded.
    pub removal: Vec<oneshot::Sender<()>>,
    /// Ends when the calls of the last order are made: orders reach systemd one after the other.
    pub turn: Option<oneshot::Receiver<()>>,
}

impl Unit {
    /// Whether we made it, or read that we did. Signals alone do not say whose a unit is.
    pub fn is_ours(&self) -> bool {
        self.made.is_some() || self.up.is_some() || self.state.is_ours()
    }

    /// Whether it came up without an order of ours, and it was not read whose it is.
    pub fn is_unknown(&self) -> bool {
        let active = self.state.activity == Some(Activity::Active);
        active && self.state.maker.is_none() && !self.is_ours() && !self.is_starting()
    }

    pub fn is_starting(&self) -> bool {
        self.orders.iter().any(|order| matches!(order.kind, OrderKind::Start { .. }))
    }

    pub fn is_stopping(&self) -> bool {
        self.orders.iter().any(|order| matches!(order.kind, OrderKind::Stop))
    }

    /// Whether the calls of an order are still to be made.
    pub fn is_queued_for(&mut self) -> bool {
        let queued = self
            .turn
            .as_mut()
            .is_some_and(|turn| turn.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        if !queued {
            // Waiting for one whose end was seen is a panic.
            self.turn = None;
        }
        queued
    }
}

/// What systemd says about a unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// `None`: not loaded.
    pub activity: Option<Activity>,
    pub invocation: Option<InvocationId>,
    pub main_pid: u32,
    pub ending: Ending,
    /// Wall clock and monotonic clock, in microseconds.
    pub active_enter: (u64, u64),
    /// `None`: not known yet.
    pub maker: Option<Maker>,
}

impl State {
    pub fn is_down(&self) -> bool {
        matches!(self.activity, None | Some(Activity::Inactive | Activity::Failed))
    }

    /// Whether it was read, or said by us, that we made it. No other is ours to see, start or stop, whatever its name.
    pub fn is_ours(&self) -> bool {
        self.exec_hash().is_some()
    }

    /// Of the plan that it was made from, if it is ours.
    pub fn exec_hash(&self) -> Option<&String> {
        match &self.maker {
            Some(Maker::Us { exec_hash }) => Some(exec_hash),
            _ => None,
        }
    }

    /// systemd has a run and its process before it has entered the state that goes with them, and tells of that, too
    /// (`service_start`, `bus_unit_send_pending_change_signal`): what has a process is not down.
    pub fn settle(&mut self) {
        if self.activity == Some(Activity::Inactive) && self.main_pid != 0 {
            self.activity = Some(Activity::Activating);
        }
    }
}

/// A run that was told as up.
#[derive(Debug, Clone, Copy)]
pub struct Up {
    pub run: InvocationId,
    /// Told as started or appeared, with this process.
    pub told: Option<Option<u32>>,
}

/// What a unit was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Made {
    pub fingerprint: u64,
    pub limits: Limits,
}

/// What was asked of systemd, and is not answered yet.
#[derive(Debug)]
pub struct Order {
    pub op: OpId,
    pub kind: OrderKind,
    /// `None`: not known yet.
    pub job: Option<u32>,
    /// Dropped at the end.
    pub(super) _done: oneshot::Sender<()>,
}

#[derive(Debug)]
pub enum OrderKind {
    Start {
        plan: Arc<ServicePlan>,
        /// The run before.
        before: Option<InvocationId>,
    },
    Stop,
}

/// An order that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Ends when the order is answered.
    pub done: oneshot::Receiver<()>,
    pub turn: Turn,
}

/// A place in the queue of a unit.
#[derive(Debug)]
pub struct Turn {
    pub before: Option<oneshot::Receiver<()>>,
    /// Dropped when the calls are made.
    pub(super) _mine: oneshot::Sender<()>,
}

impl Turn {
    /// Waits until the calls of the order before are made. The place is given up when the turn is dropped.
    pub async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
    }
}

/// Values of the signal about the service; `None` where it says nothing.
#[derive(Debug, Default)]
pub struct ServiceChange {
    pub main_pid: Option<u32>,
    pub result: Option<String>,
    pub code: Option<i32>,
    pub status: Option<i32>,
}

/// Values of the signal about the unit; `None` where it says nothing.
#[derive(Debug, Default)]
pub struct UnitChange {
    pub activity: Option<Activity>,
    pub invocation: Option<Option<InvocationId>>,
    pub active_enter: Option<u64>,
    pub active_enter_monotonic: Option<u64>,
}
