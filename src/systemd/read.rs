//! The state of units as systemd tells it when asked: at the start, and after something may have been missed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::SystemdError;
use super::bus::error_name;
use super::exit::Ending;
use super::manager::Inner;
use super::name::{SERVICE_PATTERN, object_path, service_of_unit, service_unit};
use super::unit::{Maker, maker};
use super::units::{State, Units};
use super::watch::{activity, invocation};
use crate::core::event::{InvocationId, UnitSeen};
use crate::core::plan::{Id, Plan};

/// Units that are read at once; each read is one call in the window.
const AT_ONCE: usize = 32;

/// Reads every unit of ours, and hands the whole picture to `tell` while nothing else
/// can be told.
pub async fn units<T>(
    inner: &Inner,
    plan: &Plan,
    tell: impl FnOnce(&Units, BTreeMap<Id, UnitSeen>) -> T,
) -> Result<T, SystemdError> {
    let _one = inner.reading.lock().await;
    let known = inner.units().known();
    let loaded = list(inner).await?;
    {
        let mut units = inner.units();
        for (service, touched) in known {
            if !loaded.contains(&service) {
                units.read(&service, State::default(), touched);
            }
        }
    }
    let (mut unread, mut all) = (loaded.clone(), loaded);
    loop {
        stream::iter(unread)
            .map(|service| async move { one(inner, &service).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        // What systemd said until the last answer is in the picture then.
        inner.caught_up().await?;
        let differ = environment(inner, plan, &all);
        let mut units = inner.units();
        restore(inner, plan, &mut units);
        // Made since the list was: signals say what they do, and not whose they are.
        unread = units.unread();
        if unread.is_empty() {
            let seen = units.snapshot(|service| !differ.contains(service));
            return Ok(tell(&units, seen));
        }
        all.extend(unread.iter().cloned());
    }
}

async fn list(inner: &Inner) -> Result<BTreeSet<Id>, SystemdError> {
    let rows = inner
        .call("ListUnitsByPatterns", SERVICE_PATTERN, async |link| {
            link.manager.list_units_by_patterns(&[], &[SERVICE_PATTERN]).await
        })
        .await?;
    // Units that others only name (`After=`) are listed too, as `not-found`.
    let loaded = rows.iter().filter(|row| row.2 != "not-found");
    Ok(loaded.filter_map(|row| service_of_unit(&row.0)).collect())
}

/// Services whose environment file is not what the plan wants.
fn environment(inner: &Inner, plan: &Plan, loaded: &BTreeSet<Id>) -> BTreeSet<Id> {
    let differs = |service: &&Id| {
        let plan = plan.services.get(*service);
        plan.is_some_and(|plan| inner.environment.differs(service, &plan.exec.environment))
    };
    loaded.iter().filter(differs).cloned().collect()
}

/// Files that somebody removed of services that run: systemd reads them when it is told to restart one.
fn restore(inner: &Inner, plan: &Plan, units: &mut Units) {
    for plan in plan.services.values() {
        let (id, environment) = (&plan.id, &plan.exec.environment);
        let made_of_it = units.get(id).state.exec_hash() == Some(&plan.exec_hash);
        if made_of_it
            && !inner.environment.path(id).exists()
            && let Err(error) = inner.environment.write(id, environment)
        {
            tracing::warn!(service = %id, %error, "the environment file is gone and could not be made again");
        }
    }
}

/// Reads one unit into the picture, unless a signal was faster.
pub async fn one(inner: &Inner, service: &Id) -> Result<(), SystemdError> {
    let touched = inner.units().get(service).touched;
    let path = object_path(&service_unit(service));
    let read = inner.try_call(async |link| state(&link, &path, inner.environment.folder()).await).await?;
    match read {
        Ok(state) => inner.units().read(service, state, touched),
        Err(error) if is_gone(&error) => inner.units().read(service, State::default(), touched),
        Err(error) => return Err(super::bus::explain(inner.scope, error, "Get", &service_unit(service))),
    }
    Ok(())
}

/// The run that is there, and who made its unit; `None` where there is none, or another one meanwhile. Not a whole
/// [`state`]: this is read of every run of another supervisor's.
pub async fn run_and_maker(
    inner: &Inner,
    service: &Id,
) -> Result<Option<(InvocationId, Maker)>, SystemdError> {
    let name = service_unit(service);
    let path = object_path(&name);
    let read = inner.try_call(async |link| {
        let (unit, service) = link.unit(&path).await?;
        let before = invocation(&unit.invocation_id().await?);
        let fields = service.log_extra_fields().await?;
        let up = activity(&unit.active_state().await?).is_up();
        let after = invocation(&unit.invocation_id().await?);
        Ok(before.filter(|_| up && before == after).map(|run| (run, fields)))
    });
    match read.await? {
        Ok(found) => Ok(found.map(|(run, fields)| (run, maker(&fields, inner.environment.folder())))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(super::bus::explain(inner.scope, error, "Get", &name)),
    }
}

fn is_gone(error: &zbus::Error) -> bool {
    ["UnknownObject", "UnknownInterface", "NoSuchUnit"].iter().any(|end| error_name(error).ends_with(end))
}

/// Readings of one unit that goes on changing meanwhile.
const READINGS: usize = 5;

/// One call reads one value: what they say together counts where the unit is the same before and after.
async fn state(link: &super::bus::Link, path: &str, ours: &Path) -> zbus::Result<State> {
    let (unit, _) = link.unit(path).await?;
    let mut reading = 1;
    loop {
        let state = one_state(link, path, ours).await?;
        let now = (activity(&unit.active_state().await?), invocation(&unit.invocation_id().await?));
        let same = state.activity.is_none_or(|was| (was, state.invocation) == now);
        if same || reading == READINGS {
            return Ok(state);
        }
        reading += 1;
    }
}

/// What the unit is comes first, then how its process ended: read the other way round, an end between the two
/// readings would be seen without its reason.
async fn one_state(link: &super::bus::Link, path: &str, ours: &Path) -> zbus::Result<State> {
    let (unit, service) = link.unit(path).await?;
    let loaded = unit.load_state().await? != "not-found";
    let activity = activity(&unit.active_state().await?);
    let invocation = invocation(&unit.invocation_id().await?);
    let active_enter = (unit.active_enter_timestamp().await?, unit.active_enter_timestamp_monotonic().await?);
    let maker = maker(&service.log_extra_fields().await?, ours);
    let main_pid = service.main_pid().await?;
    let ending = Ending {
        result: service.result().await?,
        code: service.exec_main_code().await?,
        status: service.exec_main_status().await?,
    };
    let maker = loaded.then_some(maker);
    let activity = loaded.then_some(activity);
    Ok(State { activity, invocation, main_pid, ending, active_enter, maker })
}
