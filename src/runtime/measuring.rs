//! The rounds of measuring: one timer for all services, the work off the loop, the next round only when the last
//! one ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Input, clock};
use crate::config::Settings;
use crate::control::MetricRow;
use crate::core::event::InvocationId;
use crate::core::plan::Id;
use crate::core::sample::{Host, Sample};
use crate::core::snapshot::{ServiceView, Snapshot};
use crate::core::{Mono, Wall};
use crate::push::{Destination, Pusher};
use crate::resource::{HostMeter, Meter, Target};

/// The first round, which only notes counters where runs were taken over.
const FIRST: Duration = Duration::from_secs(1);

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// Begins with the rounds. `interval` may change at any time. `host` has the host's figures of the last round. Ends
/// with the loop.
pub fn start(
    snapshot: watch::Receiver<Arc<Snapshot>>,
    interval: watch::Receiver<Duration>,
    inputs: mpsc::UnboundedSender<Input>,
    host: watch::Sender<Option<Host>>,
) {
    tokio::spawn(rounds(snapshot, interval, inputs, host));
}

async fn rounds(
    snapshot: watch::Receiver<Arc<Snapshot>>,
    mut interval: watch::Receiver<Duration>,
    inputs: mpsc::UnboundedSender<Input>,
    host: watch::Sender<Option<Host>>,
) {
    let (mut meters, mut due) = ((Meter::new(), HostMeter::new()), Instant::now() + FIRST);
    while !inputs.is_closed() {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            changed = interval.changed() => match changed {
                Ok(()) => {
                    due = due.min(Instant::now() + *interval.borrow_and_update());
                    continue;
                }
                Err(_) => return,
            },
        }
        let every = *interval.borrow();
        let (now, begun) = (clock::now().mono, Instant::now());
        let targets = targets(&snapshot.borrow(), now, every);
        // Also with none of them: what was known of earlier runs is forgotten.
        let measured = tokio::task::spawn_blocking(move || {
            let measured = (meters.0.round(&targets, now), meters.1.measure());
            (meters, measured)
        });
        let samples = match measured.await {
            Ok((kept, (samples, of_host))) => {
                meters = kept;
                host.send_replace(of_host);
                samples
            }
            Err(error) => {
                tracing::error!("a round of measuring failed: {error}; the next one begins anew");
                (meters, due) = ((Meter::new(), HostMeter::new()), begun + every);
                continue;
            }
        };
        if !samples.is_empty() && inputs.send(Input::Sampled(samples)).is_err() {
            return;
        }
        due = (begun + every).max(Instant::now());
    }
}

/// What runs. Of a run that began in this interval the counters are known to have begun with it; one that is too
/// young to say much is only noted.
fn targets(snapshot: &Snapshot, now: Mono, every: Duration) -> Vec<Target> {
    let target = |(id, view): (&Id, &Arc<ServiceView>)| {
        let age = view.started_mono.map(|started| now - started);
        let telling = age.is_some_and(|age| age >= every / 2 && age <= every + FIRST);
        Some(Target {
            service: id.clone(),
            invocation: view.invocation?,
            pid: view.pid?,
            counted_from: view.started_mono.filter(|_| telling),
        })
    };
    snapshot.services.iter().filter_map(target).collect()
}

/// The rows of those of the runs that were measured which are still the current ones.
pub fn rows(measured: &BTreeMap<Id, InvocationId>, snapshot: &Snapshot, at: Wall) -> Vec<MetricRow> {
    let row = |(id, invocation): (&Id, &InvocationId)| {
        let view = snapshot.services.get(id).filter(|view| view.invocation == Some(*invocation))?;
        Some(row(view, view.usage.as_ref()?, at))
    };
    measured.iter().filter_map(row).collect()
}

/// The row of a sample, with what the probes said.
fn row(view: &ServiceView, sample: &Sample, at: Wall) -> MetricRow {
    MetricRow {
        service: view.plan.id.clone(),
        at,
        cpu_percent: sample.cpu_percent.map(rounded),
        memory_mb: sample.memory.map(|bytes| rounded(bytes as f64 / MIB)),
        health: Some(view.health),
        response_time_ms: view.last_probe.as_ref().map(|probe| rounded(probe.took.as_secs_f64() * 1e3)),
        tasks: sample.tasks,
        throttled: sample.throttled,
    }
}

/// Where samples are sent to, if anywhere.
pub fn destination(settings: &Settings) -> Option<Destination> {
    let url = settings.dashboard_url.clone()?;
    Some(Destination { url, token_file: settings.dashboard_token_file.clone() })
}

/// The way there.
pub fn pusher(settings: &Settings, inputs: &mpsc::UnboundedSender<Input>) -> Option<Pusher> {
    let inputs = inputs.clone();
    destination(settings).map(|to| Pusher::start(to, move |news| drop(inputs.send(Input::Pushing(news)))))
}

/// To what a measurement is worth.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
