//! What is to be: orders to one service or a group, answered with their outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::Deserialize;

use super::dto::{GroupAnswer, OrderAnswer, SignalBody};
use super::error::ApiError;
use super::extract::{Body, Known, KnownGroup, Params, seconds, switch};
use super::schedule::{After, Schedule};
use super::serve::Origin;
use crate::control::{Control, Ended, signal_target};
use crate::core::event::Verb;
use crate::core::plan::{Probe, ServicePlan, ServiceType};
use crate::core::snapshot::{ServiceView, Snapshot};
use crate::core::time::Human;

/// On top of what the service may take: for systemd, and for services that queue to start.
const MARGIN: Duration = Duration::from_secs(30);
/// What systemd gives a `notify` service for its `READY=1`.
const NOTIFY_TIME: Duration = Duration::from_secs(90);
/// Nobody waits longer without having said so.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Waiting {
    /// `false`: the answer is 202 at once, and the order stands.
    #[serde(deserialize_with = "switch")]
    wait: bool,
    /// Seconds to wait for the outcome; what the service may take, if it is left out.
    #[serde(deserialize_with = "seconds")]
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 86_400.0))]
    timeout: Option<Duration>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { wait: true, timeout: None }
    }
}

type Answered = Result<(StatusCode, Json<OrderAnswer>), ApiError>;

macro_rules! order_routes {
    ($($name:ident, $group:ident: $verb:expr;)*) => {$(
        pub(super) async fn $name(
            State(control): State<Control>, known: Known, Params(waiting): Params<Waiting>, origin: Origin,
        ) -> Answered {
            one(&control, known, $verb, waiting, origin).await
        }

        pub(super) async fn $group(
            State(control): State<Control>, group: KnownGroup, Params(waiting): Params<Waiting>, origin: Origin,
        ) -> Result<(StatusCode, Json<GroupAnswer>), ApiError> {
            all(control, group, $verb, waiting, origin).await
        }
    )*};
}

order_routes! {
    start, start_group: Verb::Start;
    stop, stop_group: Verb::Stop;
    restart, restart_group: Verb::Restart;
}

pub(super) async fn reset(State(control): State<Control>, known: Known, origin: Origin) -> Answered {
    one(&control, known, Verb::Reset, Waiting::default(), origin).await
}

async fn one(control: &Control, known: Known, verb: Verb, waiting: Waiting, origin: Origin) -> Answered {
    let answer = order(control, &known.view, verb, &waiting, &origin.0).await?;
    match (answer.refused, answer.done) {
        (true, _) => {
            let state = control.snapshot().services.get(&known.id).map_or(known.view.state, |now| now.state);
            Err(ApiError::refused(&known.id, state, answer.message))
        }
        (false, true) => Ok((StatusCode::OK, Json(answer))),
        (false, false) => Ok((StatusCode::ACCEPTED, Json(answer))),
    }
}

/// Gives the order and waits as long as was asked for. The order stays in force when nobody waits any more.
async fn order(
    control: &Control,
    view: &ServiceView,
    verb: Verb,
    waiting: &Waiting,
    origin: &str,
) -> Result<OrderAnswer, Ended> {
    let id = &view.plan.id;
    let outcome = control.order(id.clone(), verb, origin.into()).await?;
    if !waiting.wait {
        let message = format!("the order to {} {id} was given; its outcome is an event", word(verb));
        return Ok(answer(control, view, verb, message));
    }
    let limit = waiting.timeout.unwrap_or_else(|| budget(&control.snapshot(), &view.plan, verb));
    match tokio::time::timeout(limit, outcome).await {
        Ok(Ok(outcome)) => Ok(OrderAnswer {
            id: id.to_string(),
            action: word(verb).into(),
            state: outcome.state.as_str().into(),
            message: outcome.message,
            done: outcome.done,
            refused: !outcome.done,
        }),
        Ok(Err(_)) => Err(Ended),
        Err(_) => {
            let now = control.snapshot().services.get(id).cloned();
            let (state, why) = now.map_or((view.state, String::new()), |now| (now.state, now.reason.clone()));
            let message =
                format!("{id} is still {state} after {} ({why}); the order stands and goes on", Human(limit));
            Ok(answer(control, view, verb, message))
        }
    }
}

/// Neither done nor refused: on the way.
fn answer(control: &Control, view: &ServiceView, verb: Verb, message: String) -> OrderAnswer {
    let id = &view.plan.id;
    let state = control.snapshot().services.get(id).map_or(view.state, |now| now.state);
    OrderAnswer {
        id: id.to_string(),
        action: word(verb).into(),
        state: state.as_str().into(),
        message,
        done: false,
        refused: false,
    }
}

fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "start",
        Verb::Stop => "stop",
        Verb::Restart => "restart",
        Verb::Reset => "reset",
    }
}

/// How long the outcome may take where all goes as configured: a slow start that is well is not cut off.
pub(super) fn budget(snapshot: &Snapshot, plan: &ServicePlan, verb: Verb) -> Duration {
    let stop = plan.exec.shutdown.timeout;
    let time = match verb {
        Verb::Reset => Duration::ZERO,
        Verb::Stop => stop,
        Verb::Start => start_time(snapshot, plan),
        Verb::Restart => stop.saturating_add(start_time(snapshot, plan)),
    };
    time.saturating_add(MARGIN).min(LONGEST)
}

/// Of the service and everything it needs, one after the other. A stop that is under way comes first.
fn start_time(snapshot: &Snapshot, plan: &ServicePlan) -> Duration {
    let mut needed = BTreeSet::from([plan.id.clone()]);
    let mut open = vec![plan.id.clone()];
    let mut sum = plan.exec.shutdown.timeout;
    while let Some(id) = open.pop() {
        let Some(view) = snapshot.services.get(&id) else { continue };
        sum = sum.saturating_add(own_start_time(&view.plan));
        for dependency in &view.plan.dependencies {
            if needed.insert(dependency.service.clone()) {
                open.push(dependency.service.clone());
            }
        }
    }
    sum
}

fn own_start_time(plan: &ServicePlan) -> Duration {
    let check = &plan.health;
    let probing = match check.probe {
        Probe::Process => Duration::from_secs(1),
        _ => check
            .interval
            .saturating_mul(check.failure_threshold.max(check.success_threshold))
            .saturating_add(check.start_period)
            .saturating_add(check.timeout),
    };
    match plan.exec.service_type {
        ServiceType::Exec => probing,
        ServiceType::Notify => probing.saturating_add(NOTIFY_TIME),
    }
}

async fn all(
    control: Control,
    group: KnownGroup,
    verb: Verb,
    waiting: Waiting,
    origin: Origin,
) -> Result<(StatusCode, Json<GroupAnswer>), ApiError> {
    let KnownGroup { id, members } = group;
    // In a task of its own: a client that leaves must not leave half a group stopped.
    let task = tokio::spawn(async move { in_order(&control, &members, verb, &waiting, &origin.0).await });
    let outcomes = task.await.map_err(|_| Ended)??;
    if outcomes.iter().any(|outcome| outcome.refused) {
        return Err(ApiError::group_refused(&id, word(verb), outcomes));
    }
    let done = outcomes.iter().all(|outcome| outcome.done);
    let status = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(GroupAnswer { group: id.into(), action: word(verb).into(), done, outcomes })))
}

/// In order: a dependent is started when what it needs has come up, and stopped before what it needs. A restart is
/// ordered of all at once, since the loop holds each back until what it needs is there again.
async fn in_order(
    control: &Control,
    members: &[Arc<ServiceView>],
    verb: Verb,
    waiting: &Waiting,
    origin: &str,
) -> Result<Vec<OrderAnswer>, Ended> {
    let services: Vec<_> = members
        .iter()
        .map(|view| (view.plan.id.as_str(), view.plan.dependencies.iter().map(|d| d.service.as_str())))
        .collect();
    let after = match verb {
        Verb::Start => After::Dependencies,
        Verb::Stop => After::Dependents,
        Verb::Restart | Verb::Reset => After::Nothing,
    };
    let mut schedule = Schedule::new(&services, after, usize::MAX, |index| async move {
        (index, order_member(control, &members[index], verb, waiting, origin).await)
    });
    let mut outcomes = BTreeMap::new();
    while let Some((index, outcome)) = schedule.next().await {
        outcomes.insert(index, outcome?);
    }
    Ok(outcomes.into_values().collect())
}

/// What is disabled is not started with its group.
async fn order_member(
    control: &Control,
    view: &ServiceView,
    verb: Verb,
    waiting: &Waiting,
    origin: &str,
) -> Result<OrderAnswer, Ended> {
    if view.plan.enabled || verb == Verb::Stop {
        return order(control, view, verb, waiting, origin).await;
    }
    let message = format!("{} is disabled in the configuration and was left as it is", view.plan.id);
    Ok(OrderAnswer { done: true, ..answer(control, view, verb, message) })
}

pub(super) async fn signal(
    State(control): State<Control>,
    known: Known,
    origin: Origin,
    Body(body): Body<SignalBody>,
) -> Answered {
    let Some((number, name)) = signal_number(&body.signal) else {
        let shown: String = body.signal.chars().take(40).collect();
        return Err(ApiError::bad_request(format!(
            "the body: \"{}\" is not a signal; give a name such as SIGHUP or a number from 1 to 64",
            shown.escape_debug()
        )));
    };
    match control.signal(known.id.clone(), number, origin.0).await? {
        Ok(()) => {
            let message = format!("{name} was sent to {} of {}", signal_target(number), known.id);
            Ok((
                StatusCode::OK,
                Json(OrderAnswer {
                    action: "signal".into(),
                    done: true,
                    ..answer(&control, &known.view, Verb::Reset, message)
                }),
            ))
        }
        Err(why) => Err(ApiError::refused(&known.id, known.view.state, why)),
    }
}

/// `SIGHUP`, `hup`, `1`.
fn signal_number(text: &str) -> Option<(i32, String)> {
    if let Ok(number) = text.parse::<i32>() {
        let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string());
        return (1..=64).contains(&number).then_some((number, name));
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    full.parse::<Signal>().ok().map(|signal| (signal as i32, signal.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("SIGHUP", Some(1)),
            ("hup", Some(1)),
            ("9", Some(9)),
            ("35", Some(35)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("SIGNOPE", None),
            ("", None),
        ] {
            assert_eq!(signal_number(text).map(|s| s.0), number, "{text:?}");
        }
    }
}
