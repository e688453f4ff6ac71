//! What is told, under which names. Names are a contract: dashboards and alert rules are built on them.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Picture;
use crate::core::alert::Severity;
use crate::core::sample::Sample;
use crate::core::snapshot::{Health, ServiceView, State};
use crate::core::tally::PROBE_BOUNDS;
use crate::core::time::Wall;
use MetricType::{Counter, Gauge, Histogram, Info};

/// Samples of one name.
pub(super) struct Family {
    /// Without unit, and without the ending that its kind brings (`_total`, `_info`).
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    help: &'static str,
    write: fn(&Picture, &mut Out<'_, '_>) -> fmt::Result,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Family {
    pub fn encode(&self, picture: &Picture, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut encoder = encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), self.kind)?;
        (self.write)(picture, &mut Out { encoder: &mut encoder, kind: self.kind })
    }

    /// The comments above its samples in the classic format, which has no units, knows counters by their full name,
    /// and knows fewer kinds.
    pub fn classic_head(&self) -> String {
        let (ending, kind) = match self.kind {
            MetricType::Counter => ("_total", "counter"),
            MetricType::Info => ("_info", "gauge"),
            MetricType::Histogram => ("", "histogram"),
            MetricType::Gauge | MetricType::Unknown => ("", "gauge"),
        };
        let unit = self.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        let name = format!("{}{unit}{ending}", self.name);
        format!("# HELP {name} {}\n# TYPE {name} {kind}\n", self.help)
    }

    const fn new(
        kind: MetricType,
        name: &'static str,
        help: &'static str,
        write: fn(&Picture, &mut Out<'_, '_>) -> fmt::Result,
    ) -> Self {
        Self { name, unit: None, kind, help, write }
    }

    const fn with_unit(
        kind: MetricType,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        write: fn(&Picture, &mut Out<'_, '_>) -> fmt::Result,
    ) -> Self {
        Self { name, unit: Some(unit), kind, help, write }
    }
}

/// Takes the samples of one family.
struct Out<'o, 'e> {
    encoder: &'o mut MetricEncoder<'e>,
    kind: MetricType,
}

impl Out<'_, '_> {
    /// The only one.
    fn one(&mut self, value: Option<f64>) -> fmt::Result {
        match (value, self.kind) {
            (None, _) => Ok(()),
            (Some(value), MetricType::Counter) => {
                self.encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
            }
            (Some(value), _) => self.encoder.encode_gauge(&value),
        }
    }

    fn labelled<const N: usize>(&mut self, labels: [(&str, &str); N], value: Option<f64>) -> fmt::Result {
        if value.is_none() {
            return Ok(());
        }
        let mut encoder = self.encoder.encode_family(&labels)?;
        Out { encoder: &mut encoder, kind: self.kind }.one(value)
    }

    /// One for each service that has it.
    fn services(&mut self, picture: &Picture, value: fn(&ServiceView) -> Option<f64>) -> fmt::Result {
        let mut services = picture.snapshot.services.iter();
        services.try_for_each(|(id, view)| self.labelled([("service", id.as_str())], value(view)))
    }

    /// One for each service that is measured, and has it.
    fn usage(&mut self, picture: &Picture, value: fn(&Sample) -> Option<f64>) -> fmt::Result {
        let mut services = picture.snapshot.services.iter();
        services.try_for_each(|(id, view)| {
            self.labelled([("service", id.as_str())], view.usage.as_ref().and_then(value))
        })
    }
}

fn flag(set: bool) -> Option<f64> {
    Some(f64::from(u8::from(set)))
}

fn word(set: bool) -> &'static str {
    if set { "true" } else { "false" }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and Prometheus has no other numbers")]
fn whole(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "exact for the next 285 years")]
fn seconds(at: Wall) -> f64 {
    at.0 as f64 / 1000.0
}

/// All of them, in the order of the answer.
pub(super) static FAMILIES: &[Family] = &[
    Family::new(Info, "supervisor_service", "What a service is configured as.", |p, out| {
        p.snapshot.services.iter().try_for_each(|(id, view)| {
            out.encoder.encode_info(&[
                ("service", id.as_str()),
                ("unit", &format!("supervisor-{id}.service")),
                ("critical", word(view.plan.critical)),
                ("enabled", word(view.plan.enabled)),
            ])
        })
    }),
    Family::new(Gauge, "supervisor_service_up", "1 while it runs and is ready.", |p, out| {
        out.services(p, |view| flag(view.state == State::Running))
    }),
    Family::new(
        Gauge,
        "supervisor_service_wanted",
        "1 while it is to be up: neither disabled nor stopped by somebody nor done.",
        |p, out| out.services(p, |view| flag(view.wanted)),
    ),
    Family::new(Gauge, "supervisor_service_state", "1 for the state that it is in.", |p, out| {
        p.snapshot.services.iter().try_for_each(|(id, view)| {
            State::ALL.into_iter().try_for_each(|state| {
                out.labelled([("service", id.as_str()), ("state", state.as_str())], flag(view.state == state))
            })
        })
    }),
    Family::new(Gauge, "supervisor_service_health", "1 for what its probes say.", |p, out| {
        p.snapshot.services.iter().try_for_each(|(id, view)| {
            Health::ALL.into_iter().try_for_each(|health| {
                let labels = [("service", id.as_str()), ("health", health.as_str())];
                out.labelled(labels, flag(view.health == health))
            })
        })
    }),
    Family::new(
        Gauge,
        "supervisor_service_flapping",
        "1 while it goes up and down again and again.",
        |p, out| out.services(p, |view| flag(view.flapping.is_some())),
    ),
    Family::new(
        Counter,
        "supervisor_service_restarts",
        "Restarts ever, over restarts of the supervisor.",
        |p, out| out.services(p, |view| Some(whole(view.restart_count))),
    ),
    Family::new(
        Gauge,
        "supervisor_service_attempts",
        "Restarts in a row without lasting success.",
        |p, out| out.services(p, |view| Some(f64::from(view.attempt))),
    ),
    Family::new(
        Counter,
        "supervisor_service_exits",
        "Ends of its runs since the supervisor started, wanted ones too, by reason in the words of systemd.",
        |p, out| {
            p.snapshot.services.iter().try_for_each(|(id, view)| {
                view.tally.exits().try_for_each(|(reason, count)| {
                    out.labelled([("service", id.as_str()), ("reason", reason)], Some(f64::from(count)))
                })
            })
        },
    ),
    Family::with_unit(
        Gauge,
        "supervisor_service_start_time",
        Unit::Seconds,
        "Start of the current run, since the epoch.",
        |p, out| out.services(p, |view| view.started_at.map(seconds)),
    ),
    Family::with_unit(
        Gauge,
        "supervisor_service_last_exit_time",
        Unit::Seconds,
        "End of the last run, since the epoch.",
        |p, out| out.services(p, |view| view.last_exit.as_ref().map(|(_, at)| seconds(*at))),
    ),
    Family::with_unit(
        Histogram,
        "supervisor_service_probe_duration",
        Unit::Seconds,
        "How long answers of its probe took. Of services with an http, tcp or exec check.",
        probe_durations,
    ),
    Family::new(
        Counter,
        "supervisor_service_probe_failures",
        "Probes that failed since the supervisor started, while it was starting too.",
        |p, out| out.services(p, |view| Some(f64::from(view.tally.failures()))),
    ),
    Family::with_unit(
        Counter,
        "supervisor_service_cpu",
        Unit::Seconds,
        "CPU time of the current run.",
        |p, out| out.usage(p, |usage| usage.cpu_time.map(|time| time.as_secs_f64())),
    ),
    Family::new(
        Gauge,
        "supervisor_service_cpu_throttled_ratio",
        "Share of the CPU periods in which its limit held it back, 0 to 1.",
        |p, out| out.usage(p, |usage| usage.throttled),
    ),
    Family::new(Gauge, "supervisor_service_cpu_limit_cores", "CPU cores that it may use.", |p, out| {
        out.services(p, |view| view.plan.limits.cpu_percent.map(|percent| percent / 100.0))
    }),
    Family::with_unit(
        Gauge,
        "supervisor_service_memory",
        Unit::Bytes,
        "Memory that it uses, without page cache that can be dropped.",
        |p, out| out.usage(p, |usage| usage.memory.map(whole)),
    ),
    Family::with_unit(
        Gauge,
        "supervisor_service_memory_peak",
        Unit::Bytes,
        "The most memory of the current run, with page cache.",
        |p, out| out.usage(p, |usage| usage.memory_peak.map(whole)),
    ),
    Family::with_unit(
        Gauge,
        "supervisor_service_memory_limit",
        Unit::Bytes,
        "Memory that it may use.",
        |p, out| out.services(p, |view| view.plan.limits.memory_bytes.map(whole)),
    ),
    Family::new(
        Counter,
        "supervisor_service_oom_kills",
        "Processes of the current run that the kernel killed for want of memory.",
        |p, out| out.usage(p, |usage| usage.oom_kills.map(whole)),
    ),
    Family::new(Gauge, "supervisor_service_tasks", "Processes and threads.", |p, out| {
        out.usage(p, |usage| usage.tasks.map(whole))
    }),
    Family::new(
        Gauge,
        "supervisor_service_tasks_limit",
        "Processes and threads that it may have.",
        |p, out| out.services(p, |view| view.plan.limits.tasks.map(whole)),
    ),
    Family::new(
        Gauge,
        "supervisor_service_pressure_ratio",
        "Share of the last 10 s in which some task of it waited for the resource, 0 to 1.",
        pressure,
    ),
    Family::with_unit(
        Counter,
        "supervisor_service_io_read",
        Unit::Bytes,
        "Read from block devices in the current run.",
        |p, out| out.usage(p, |usage| usage.io_bytes.map(|(read, _)| whole(read))),
    ),
    Family::with_unit(
        Counter,
        "supervisor_service_io_written",
        Unit::Bytes,
        "Written to block devices in the current run.",
        |p, out| out.usage(p, |usage| usage.io_bytes.map(|(_, written)| whole(written))),
    ),
    Family::new(Gauge, "supervisor_alerts", "Open alerts of the supervisor, by severity.", alerts),
    Family::new(
        Gauge,
        "supervisor_alert_open",
        "1 for each open alert; those about the supervisor itself have no service.",
        open_alerts,
    ),
    Family::new(Info, "supervisor_build", "This program, and the systemd that it works with.", |p, out| {
        out.encoder.encode_info(&[
            ("version", p.about.version),
            ("systemd_version", &p.about.systemd_version),
            ("scope", p.about.scope),
        ])
    }),
    Family::new(Counter, "supervisor_events", "Events since the supervisor started.", |p, out| {
        out.one(Some(whole(p.store.events)))
    }),
    Family::new(
        Gauge,
        "supervisor_requests_waiting",
        "API requests that wait for the control loop.",
        |p, out| out.one(Some(whole(p.waiting as u64))),
    ),
    Family::new(
        Gauge,
        "supervisor_database_troubled",
        "1 while the database cannot be written; what is to be kept waits in memory.",
        |p, out| out.one(flag(p.store.troubled)),
    ),
    Family::with_unit(
        Gauge,
        "supervisor_database",
        Unit::Bytes,
        "Size of the database on disk.",
        |p, out| out.one(p.store.bytes.map(whole)),
    ),
    Family::new(Gauge, "supervisor_leaving", "1 while everything is being stopped.", |p, out| {
        out.one(flag(p.snapshot.leaving))
    }),
    Family::with_unit(
        Counter,
        "process_cpu",
        Unit::Seconds,
        "CPU time of the supervisor itself.",
        |p, out| out.one(p.process.cpu),
    ),
    Family::with_unit(
        Gauge,
        "process_resident_memory",
        Unit::Bytes,
        "Resident memory of the supervisor itself.",
        |p, out| out.one(p.process.resident.map(whole)),
    ),
    Family::with_unit(
        Gauge,
        "process_virtual_memory",
        Unit::Bytes,
        "Address space of the supervisor itself.",
        |p, out| out.one(p.process.virtual_size.map(whole)),
    ),
    Family::new(Gauge, "process_threads", "Threads of the supervisor itself.", |p, out| {
        out.one(p.process.threads.map(whole))
    }),
    Family::new(Gauge, "process_open_fds", "Open file descriptors of the supervisor itself.", |p, out| {
        out.one(p.process.open_files.map(whole))
    }),
    Family::new(
        Gauge,
        "process_max_fds",
        "File descriptors that the supervisor itself may have open.",
        |p, out| out.one(p.process.max_files.map(whole)),
    ),
    Family::with_unit(
        Gauge,
        "process_start_time",
        Unit::Seconds,
        "Start of the supervisor itself, since the epoch.",
        |p, out| out.one(Some(seconds(p.about.started_at))),
    ),
];

/// A check of the mere process takes no time worth a histogram.
fn probe_durations(picture: &Picture, out: &mut Out<'_, '_>) -> fmt::Result {
    let probed = |view: &ServiceView| view.plan.health.probe.decides_readiness();
    for (id, view) in picture.snapshot.services.iter().filter(|(_, view)| probed(view)) {
        let bounds = PROBE_BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
        let slots: Vec<(f64, u64)> = bounds.zip(view.tally.slots().iter().map(|n| u64::from(*n))).collect();
        let count = slots.iter().map(|(_, count)| count).sum();
        let labels = [("service", id.as_str())];
        out.encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            view.tally.took().as_secs_f64(),
            count,
            &slots,
            None,
        )?;
    }
    Ok(())
}

fn pressure(picture: &Picture, out: &mut Out<'_, '_>) -> fmt::Result {
    for (id, view) in &picture.snapshot.services {
        let Some(pressure) = view.usage.map(|usage| usage.pressure) else { continue };
        for (resource, percent) in [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)] {
            let labels = [("service", id.as_str()), ("resource", resource)];
            out.labelled(labels, percent.map(|percent| percent / 100.0))?;
        }
    }
    Ok(())
}

fn alerts(picture: &Picture, out: &mut Out<'_, '_>) -> fmt::Result {
    let of_services = || picture.snapshot.services.values().flat_map(|view| &view.alerts);
    [Severity::Warning, Severity::Error, Severity::Critical].into_iter().try_for_each(|severity| {
        let open = of_services().chain(&picture.snapshot.own_alerts).filter(|(_, s)| *s == severity).count();
        out.labelled([("severity", severity.as_str())], Some(whole(open as u64)))
    })
}

fn open_alerts(picture: &Picture, out: &mut Out<'_, '_>) -> fmt::Result {
    for (kind, severity) in &picture.snapshot.own_alerts {
        out.labelled([("type", kind.as_str()), ("severity", severity.as_str())], Some(1.0))?;
    }
    for (id, view) in &picture.snapshot.services {
        for (kind, severity) in &view.alerts {
            let labels = [("service", id.as_str()), ("type", kind.as_str()), ("severity", severity.as_str())];
            out.labelled(labels, Some(1.0))?;
        }
    }
    Ok(())
}
