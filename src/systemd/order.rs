//! Orders to systemd, one after the other for each unit: start, stop, release.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use zbus::OwnedObjectPath;

use super::SystemdError;
use super::bus::{error_name, error_words, explain};
use super::manager::{Inner, lock};
use super::name::{object_path, service_unit};
use super::read;
use super::unit::{Host, Maker, UnitSpec, live_limits, survives_reload, unit_spec};
use super::units::{Begun, Made, unreachable_start};
use super::watch::{activity, read_and_end};
use crate::core::event::{Activity, OpId, StartFailure};
use crate::core::plan::{Id, ServicePlan, ServiceType};

/// systemd forgets a unit a moment after nothing holds it any more.
const REMOVAL_TIMEOUT: Duration = Duration::from_millis(500);
/// Properties that are dropped because systemd does not know them, at most so many for one start.
const DROPS: usize = 16;
/// Over what the unit itself grants, until an order is answered without its job.
const GRACE: Duration = Duration::from_secs(90);
/// Bound for a stop: as long as the longest `TimeoutStopUSec` would be too long to be silent about.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const REPLACE: &str = "replace";

/// Brings a start to systemd and waits for its end. The answer is told by the picture of the units.
pub async fn start(inner: Arc<Inner>, op: OpId, plan: Arc<ServicePlan>, begun: Begun) {
    let Begun { done, mut turn } = begun;
    turn.come().await;
    let _place = inner.start_jobs.acquire().await;
    let called = {
        let _spec = inner.specs.acquire().await;
        inner.units().start_called(&plan.id, op);
        call_start(&inner, &plan).await
    };
    drop(turn);
    match called {
        Ok(job) => {
            let ended = inner.units().job_known(&plan.id, op, job);
            if let Some(result) = ended {
                read_and_end(&inner, &plan.id, job, &result).await;
            }
            let deadline = Instant::now() + start_bound(&plan);
            if let Err(message) = wait_for_job(&inner, &plan.id, job, done, Some(deadline)).await {
                let failure = StartFailure { unreachable: false, ..unreachable_start(&message) };
                inner.units().start_failed(&plan.id, op, failure);
            }
        }
        Err(error) => {
            let mut units = inner.units();
            let outdated = matches!(error, SystemdError::Outdated { .. });
            let invocation = units.get(&plan.id).state.invocation.filter(|_| outdated);
            let failure = StartFailure {
                unreachable: error.is_unreachable(),
                outdated,
                invocation,
                ..unreachable_start(&error.to_string())
            };
            units.start_failed(&plan.id, op, failure);
        }
    }
}

/// Longer than systemd itself may take.
fn start_bound(plan: &ServicePlan) -> Duration {
    let probes = plan.health.interval.saturating_mul(plan.health.failure_threshold);
    let start = match plan.exec.service_type {
        ServiceType::Exec => Duration::ZERO,
        ServiceType::Notify => plan.health.start_period.saturating_add(probes),
    };
    // `TimeoutStartSec` of the user may be longer still: then systemd is asked whether the job is there.
    start.saturating_add(plan.exec.shutdown.timeout).saturating_add(GRACE)
}

/// Makes the start job; its number.
async fn call_start(inner: &Inner, plan: &ServicePlan) -> Result<u32, SystemdError> {
    let write = inner.environment.write(&plan.id, &plan.exec.environment);
    let file = write.map_err(|error| SystemdError::EnvironmentFile {
        what: "write",
        path: inner.environment.path(&plan.id),
        error,
    })?;
    let folder = inner.environment.folder();
    let host = Host { scope: inner.scope, version: inner.major_version(), folder };
    let spec = unit_spec(plan, host, file.as_deref())?;
    let made = Made { fingerprint: spec.fingerprint, limits: plan.limits };
    let activity = inner.units().get(&plan.id).state.activity;
    let job = match activity {
        None => create(inner, plan, spec).await?,
        Some(Activity::Inactive | Activity::Failed) => start_down(inner, plan, spec, made).await?,
        Some(_) => match start_running(inner, plan, &spec.name).await? {
            Some(job) => job,
            None => create(inner, plan, spec).await?,
        },
    };
    let mut units = inner.units();
    let unit = units.get(&plan.id);
    unit.made = Some(made);
    unit.state.maker = Some(Maker::Us { exec_hash: plan.exec_hash.clone() });
    drop(units);
    job_number(&job)
}

/// The unit is down and still loaded: it is started as it is where that is what is wanted, else made anew.
async fn start_down(
    inner: &Inner,
    plan: &ServicePlan,
    spec: UnitSpec,
    wanted: Made,
) -> Result<OwnedObjectPath, SystemdError> {
    let (made, state) = {
        let mut units = inner.units();
        let unit = units.get(&plan.id);
        (unit.made, unit.state.clone())
    };
    let failed = state.activity == Some(Activity::Failed);
    // An earlier daemon made it, or systemd has read it from its file since.
    // A name may have led to another file then. One that did not fail is forgotten at its end anyway.
    let same_file = plan.exec.command == plan.exec.program || !failed;
    let trusted = || state.exec_hash() == Some(&plan.exec_hash) && survives_reload(&plan.exec) && same_file;
    let kept = match made {
        Some(made) if made == wanted => true,
        None if trusted() => set_limits(inner, plan).await.is_ok(),
        _ => false,
    };
    if kept {
        let started = inner.try_call(async |link| link.manager.start_unit(&spec.name, REPLACE).await).await?;
        match started {
            Ok(job) => return Ok(job),
            // Somebody freed it, or its file is gone or no longer good.
            Err(error) if ["NoSuchUnit", "LoadFailed", "BadUnitSetting"].contains(&last_part(&error)) => {}
            Err(error) => return Err(explain(inner.scope, error, "StartUnit", &spec.name)),
        }
    }
    release(inner, &plan.id).await;
    create(inner, plan, spec).await
}

/// The last part of the error's D-Bus name.
fn last_part(error: &zbus::Error) -> &'static str {
    let name = error_name(error);
    let known = ["NoSuchUnit", "LoadFailed", "BadUnitSetting", "UnitExists", "NoSuchJob", "PropertyReadOnly"];
    known.into_iter().find(|known| name.ends_with(known)).unwrap_or_default()
}

/// Gives a loaded unit the limits of the plan.
pub async fn set_limits(inner: &Inner, plan: &ServicePlan) -> Result<(), SystemdError> {
    let name = service_unit(&plan.id);
    inner
        .call("SetUnitProperties", &name, async |link| {
            let properties = live_limits(plan, link.default_tasks);
            link.manager.set_unit_properties(&name, true, &properties).await
        })
        .await
}

/// The unit is up, or on its way. That is well if it is what is wanted. `None`: it has ended, and that is yet to be
/// heard.
async fn start_running(
    inner: &Inner,
    plan: &ServicePlan,
    name: &str,
) -> Result<Option<OwnedObjectPath>, SystemdError> {
    match read::run_and_maker(inner, &plan.id).await?.map(|(_, maker)| maker) {
        None => return Ok(None),
        Some(Maker::Us { exec_hash }) if exec_hash == plan.exec_hash => {}
        Some(Maker::Us { .. }) => return Err(SystemdError::Outdated { unit: name.into() }),
        Some(other) => return Err(somebody_elses(name, &other)),
    }
    let started = inner.call("StartUnit", name, async |link| link.manager.start_unit(name, REPLACE).await);
    match started.await {
        Err(SystemdError::NoSuchUnit { .. }) => Ok(None),
        started => started.map(Some),
    }
}

/// A unit that is up and that we did not make.
fn somebody_elses(unit: &str, maker: &Maker) -> SystemdError {
    let whose = if *maker == Maker::AnotherSupervisor {
        format!(
            "another supervisor made it (see SUPERVISOR_FOLDER in `systemctl show -P LogExtraFields {unit}`)"
        )
    } else {
        format!("somebody else's unit of that name is up (see `systemctl status {unit}`)")
    };
    let reason = format!("{whose}; give the service another id, or end that one (systemctl stop {unit})");
    SystemdError::Refused { what: "StartTransientUnit", unit: unit.into(), reason }
}

/// Makes the unit anew.
async fn create(
    inner: &Inner,
    plan: &ServicePlan,
    mut spec: UnitSpec,
) -> Result<OwnedObjectPath, SystemdError> {
    drop_unsupported(inner, &mut spec);
    let (mut attempts, mut drops) = (0, 0);
    loop {
        let made = inner
            .try_call(async |link| {
                link.manager.start_transient_unit(&spec.name, REPLACE, &spec.properties, &[]).await
            })
            .await?;
        let error = match made {
            Ok(job) => return Ok(job),
            Err(error) => error,
        };
        if let Some(property) = unknown_property(&error, &spec, plan).filter(|_| drops < DROPS) {
            drops += 1;
            let version = inner.link().await?.version;
            tracing::warn!(
                service = %plan.id,
                "systemd {version} does not know the property {property}; it is left out for every service"
            );
            lock(&inner.unsupported).insert(property);
            drop_unsupported(inner, &mut spec);
            continue;
        }
        if last_part(&error) != "UnitExists" {
            return Err(explain(inner.scope, error, "StartTransientUnit", &spec.name));
        }
        attempts += 1;
        match attempts {
            1 => {
                let removal = inner.units().removal(&plan.id);
                release(inner, &plan.id).await;
                let _ = tokio::time::timeout(REMOVAL_TIMEOUT, removal).await;
            }
            2 => forget(inner, &spec.name).await?,
            _ => return Err(in_the_way(inner, &spec.name, &error).await),
        }
    }
}

/// A unit that a running one names (`After=`) stays loaded, and what it was made from stays with it. Without its file,
/// a reload leaves nothing of it but the name. Happens only where a service is changed while others that need it
/// run on.
async fn forget(inner: &Inner, name: &str) -> Result<(), SystemdError> {
    let path = object_path(name);
    let (file, state) = inner
        .call("Get", name, async |link| {
            let (unit, _) = link.unit(&path).await?;
            Ok((unit.fragment_path().await?, unit.active_state().await?))
        })
        .await?;
    let down = matches!(activity(&state), Activity::Inactive | Activity::Failed);
    let transient = Path::new(&file).parent().is_some_and(|folder| folder.ends_with("systemd/transient"));
    if !down || !transient {
        return Ok(());
    }
    // Removed already by another attempt is as good.
    let _ = tokio::fs::remove_file(&file).await;
    let _ = tokio::fs::remove_dir_all(format!("{file}.d")).await;
    tracing::info!(unit = name, "systemd is reloaded to make this unit anew while others that need it run");
    inner.call("Reload", name, async |link| link.manager.reload().await).await
}

fn drop_unsupported(inner: &Inner, spec: &mut UnitSpec) {
    let unsupported = lock(&inner.unsupported);
    if !unsupported.is_empty() {
        spec.properties.retain(|(name, _)| !unsupported.contains(name));
    }
}

/// A property of ours that systemd does not know: `Cannot set property X, or unknown property.` What the user asked
/// for by name is not dropped.
fn unknown_property(error: &zbus::Error, spec: &UnitSpec, plan: &ServicePlan) -> Option<String> {
    if last_part(error) != "PropertyReadOnly" {
        return None;
    }
    let words = error_words(error);
    let name = words.strip_prefix("Cannot set property ")?.split([',', ' ']).next()?;
    let needed = ["ExecStart", "ExecStartEx", "User", "Group", "EnvironmentFiles", "WorkingDirectory"];
    let ours = spec.properties.iter().any(|(ours, _)| ours == name);
    let users = plan.exec.unit_properties.contains_key(name);
    (ours && !users && !needed.contains(&name)).then(|| name.to_owned())
}

/// Something of that name does not go away.
async fn in_the_way(inner: &Inner, name: &str, error: &zbus::Error) -> SystemdError {
    let path = object_path(name);
    let file = inner
        .call("Get", name, async |link| link.unit(&path).await?.0.fragment_path().await)
        .await
        .unwrap_or_default();
    let remedy = if file.is_empty() || file.contains("/transient/") {
        format!(
            "another program holds the unit; `systemctl stop {name}; systemctl reset-failed {name}` frees it"
        )
    } else {
        format!("the file {file} defines a unit of that name; remove it, then `systemctl daemon-reload`")
    };
    SystemdError::Refused {
        what: "StartTransientUnit",
        unit: name.into(),
        reason: format!("{}: {remedy}", error_words(error).trim_end_matches('.')),
    }
}

/// Lets systemd forget a unit that is down. What it says against it does not matter: the unit is gone, or a start
/// will hear of it.
pub async fn release(inner: &Inner, service: &Id) {
    let name = service_unit(service);
    let failed = {
        let mut units = inner.units();
        let unit = units.get(service);
        unit.made = None;
        unit.state.activity == Some(Activity::Failed)
    };
    if failed {
        let _ = inner.try_call(async |link| link.manager.reset_failed_unit(&name).await).await;
    }
}

/// Brings a stop to systemd and waits for its end. The answer is told by the picture of the units.
pub async fn stop(inner: Arc<Inner>, op: OpId, service: Id, kill: bool, begun: Begun) {
    let Begun { done, mut turn } = begun;
    turn.come().await;
    let _place = inner.stop_jobs.acquire().await;
    let called = call_stop(&inner, &service, kill).await;
    drop(turn);
    match called {
        Ok(Some(job)) => {
            // A stop that is over needs no reading.
            let _ = inner.units().job_known(&service, op, job);
            if let Err(message) = wait_for_job(&inner, &service, job, done, None).await {
                inner.units().stop_answered(&service, op, Err(message));
            }
        }
        Ok(None) => {
            // There is no unit. What systemd said of its end comes first.
            let result = inner.caught_up().await.map_err(|error| error.to_string());
            inner.units().stop_answered(&service, op, result);
        }
        Err(error) => inner.units().stop_answered(&service, op, Err(error.to_string())),
    }
}

/// Makes the stop job; its number, or `None` where there is no unit to stop.
async fn call_stop(inner: &Inner, service: &Id, kill: bool) -> Result<Option<u32>, SystemdError> {
    let name = service_unit(service);
    if kill {
        // Nobody left to kill is as good.
        let _ = inner.try_call(async |link| link.manager.kill_unit(&name, "all", 9).await).await?;
    }
    let stopped = inner.call("StopUnit", &name, async |link| link.manager.stop_unit(&name, REPLACE).await);
    match stopped.await {
        Ok(job) => job_number(&job).map(Some),
        Err(SystemdError::NoSuchUnit { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until the order is answered. Looks itself whether the job is still there where its end may have been
/// missed: after systemd executed itself again, and now and then.
async fn wait_for_job(
    inner: &Inner,
    service: &Id,
    job: u32,
    mut done: oneshot::Receiver<()>,
    deadline: Option<Instant>,
) -> Result<(), String> {
    loop {
        let recheck = inner.rechecks();
        tokio::select! {
            _ = &mut done => return Ok(()),
            () = recheck => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        let there = inner.try_call(async |link| link.manager.get_job(job).await).await;
        match there {
            Ok(Err(error)) if last_part(&error) == "NoSuchJob" => settle(inner, service, job).await,
            Ok(Ok(_)) if deadline.is_some_and(|deadline| Instant::now() > deadline) => {
                return Err(
                    "systemd has not finished the start job within the time that the unit grants".into()
                );
            }
            _ => {}
        }
    }
}

/// The job is gone. Its end may have been told and not be heard yet; else the unit's state says what came of it.
async fn settle(inner: &Inner, service: &Id, job: u32) {
    if inner.caught_up().await.is_ok() && read::one(inner, service).await.is_ok() {
        inner.units().job_lost(service, job);
    }
}

/// The number at the end of `/org/freedesktop/systemd1/job/1234`.
fn job_number(path: &OwnedObjectPath) -> Result<u32, SystemdError> {
    let number = path.as_str().rsplit('/').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| SystemdError::Refused {
        what: "a job",
        unit: path.as_str().into(),
        reason: "its object path does not end in a number".into(),
    })
}
