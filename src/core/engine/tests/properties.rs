//! Plans, faults and orders as chance has them, in the simulated world.

use crate::core::alert::AlertKind;
use crate::core::sample::Sample;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::world::{Change, Nature, Step, World};
use super::*;

fn service(n: usize) -> impl Strategy<Value = ServicePlan> {
    let policy = (
        prop_oneof![3 => (0..4u32).prop_map(Some), 1 => Just(None)],
        prop_oneof![Just(0.0), 0.5..20.0],
        1.0..3.0f64,
        20.0..60.0f64,
        prop_oneof![Just(0.0), 0.0..1.0],
        5.0..100.0f64,
    );
    let kind = (0..3u8, prop::bool::weighted(0.15), prop::bool::weighted(0.85), any::<bool>(), 0..3i32);
    let depends = prop::collection::vec((0..n.max(1), any::<bool>(), 0..3u8), 0..3);
    (policy, kind, depends, prop::bool::weighted(0.9), prop::bool::weighted(0.2)).prop_map(
        move |(policy, kind, depends, enabled, keep)| {
            let (max_retries, delay, factor, most, jitter, reset) = policy;
            let (probe, doomed, auto_restart, on_exit, priority) = kind;
            let mut s = svc(&format!("s{n}"));
            s.restart = RestartPolicy {
                max_retries,
                retry_delay: secs(delay),
                backoff_multiplier: factor,
                max_backoff: secs(most),
                jitter,
                reset_after: secs(reset),
                after_max_retries: if keep { AfterMaxRetries::KeepTrying } else { AfterMaxRetries::Fatal },
            };
            s = match probe {
                0 => s,
                1 => s.tcp(),
                _ => s.notify(),
            };
            (s.enabled, s.auto_restart, s.restart_on_exit, s.priority) =
                (enabled, auto_restart, on_exit, priority);
            if doomed && max_retries.is_some() && !keep {
                s.labels.insert("doomed".into(), String::new());
            }
            for (to, started, on_failure) in depends {
                let name = format!("s{to}");
                if to < n && s.dependencies.iter().all(|d| d.service.as_str() != name) {
                    let condition = if started { Condition::Started } else { Condition::Healthy };
                    let on_failure =
                        [OnFailure::Hold, OnFailure::Restart, OnFailure::Ignore][usize::from(on_failure)];
                    s = s.needs_as(&name, condition, on_failure);
                }
            }
            s
        },
    )
}

/// A plan that is shown in a few lines.
#[derive(Clone)]
struct Shown(Plan);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "at most {:?} at once", self.0.max_concurrent_starts)?;
        for s in self.0.services.values() {
            let probe = if s.health.probe.decides_readiness() { "tcp" } else { "process" };
            let needs: Vec<_> =
                s.dependencies.iter().map(|d| (d.service.as_str(), d.condition, d.on_failure)).collect();
            writeln!(
                f,
                "{}: enabled {} auto_restart {} on_exit {} {:?} {probe} {:?} {:?} {:?}",
                s.id,
                s.enabled,
                s.auto_restart,
                s.restart_on_exit,
                s.exec.service_type,
                s.restart,
                needs,
                s.labels
            )?;
        }
        Ok(())
    }
}

fn plans() -> impl Strategy<Value = Shown> {
    let services = (1..=8usize).prop_flat_map(|count| (0..count).map(service).collect::<Vec<_>>());
    (services, 0..4usize).prop_map(|(services, bound)| {
        Shown(Plan { max_concurrent_starts: NonZeroUsize::new(bound), ..plan(services) })
    })
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![Just(Verb::Start), Just(Verb::Stop), Just(Verb::Restart), Just(Verb::Reset)]
}

fn short() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (0..2000u64).prop_map(Duration::from_millis),
        (0..120u64).prop_map(Duration::from_secs),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..8usize;
    let change = prop_oneof![Just(Change::Enabled), Just(Change::Program), Just(Change::Gone)];
    prop_oneof![
        8 => short().prop_map(Step::Wait),
        6 => (n.clone(), verb()).prop_map(|(n, verb)| Step::Order(n, verb)),
        2 => n.clone().prop_map(Step::Kill),
        1 => n.clone().prop_map(Step::StopOutside),
        1 => n.clone().prop_map(Step::StartOutside),
        1 => n.clone().prop_map(Step::RestartOutside),
        2 => short().prop_map(Step::Disconnect),
        1 => short().prop_map(Step::Replace),
        3 => (0..6usize, short(), prop::bool::weighted(0.1))
            .prop_map(|(actions, down, reboot)| Step::Crash { actions, down, reboot }),
        2 => (n, change).prop_map(|(n, change)| Step::Reload(n, change)),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn whatever_happens_the_rules_hold_and_all_comes_to_rest(
        plan in plans(), seed in any::<u64>(), steps in prop::collection::vec(step(), 0..40),
        shutdown in prop::bool::weighted(0.2),
    ) {
        let mut world = World::new(plan.0, Nature { seed, faults: true, crashes: true });
        for step in &steps {
            world.apply(step);
        }
        if shutdown {
            world.apply(&Step::Shutdown);
        }
        world.settle();
        world.shut_down();
    }
}

/// A world in which nothing but the daemon fails.
fn calm(seed: u64, crashes: bool) -> Nature {
    Nature { seed, faults: false, crashes }
}

/// Ages and exits decide here, not probes, whose times an adoption spreads anew.
fn without_probes(plan: Plan) -> Plan {
    let services = plan.services.values().map(|s| {
        s.as_ref().clone().with(|s| {
            s.health.probe = Probe::Process;
            s.restart.jitter = 0.0;
        })
    });
    let services = services.map(|s| (s.id.clone(), Arc::new(s))).collect();
    // Who of two gets a free place at one moment is a matter of chance.
    Plan { services, max_concurrent_starts: None, ..plan }
}

/// Any event at all, of any service, action and run.
fn event() -> impl Strategy<Value = Event> {
    let service = || (0..4usize).prop_map(|n| id(&format!("s{n}")));
    let run = || (0..4u128).prop_map(InvocationId);
    let op = || (0..12u64).prop_map(OpId);
    let exit = || prop_oneof![Just(exited(0)), Just(exited(1)), Just(killed(15, ExitResult::Success))];
    let started = (run(), any::<Option<u32>>()).prop_map(|(invocation, pid)| Started { invocation, pid });
    let failed = (prop::option::of(run()), prop::option::of(exit()), any::<bool>(), any::<bool>()).prop_map(
        |(invocation, exit, unreachable, outdated)| StartFailure {
            invocation,
            exit,
            message: "no".into(),
            unreachable,
            outdated,
        },
    );
    let start_result = prop_oneof![started.prop_map(Ok), failed.prop_map(Err)];
    let activity = prop_oneof![
        Just(Activity::Active),
        Just(Activity::Activating),
        Just(Activity::Deactivating),
        Just(Activity::Inactive),
        Just(Activity::Failed),
        Just(Activity::Gone)
    ];
    let seen = (activity, prop::option::of(run()), prop::option::of(exit()), any::<bool>(), any::<bool>())
        .prop_map(|(activity, invocation, exit, environment_matches, stopped_outside)| UnitSeen {
            activity,
            invocation,
            exit,
            environment_matches,
            stopped_outside,
            ..UnitSeen::GONE
        });
    let units = prop::collection::btree_map(service(), seen, 0..4);
    let report = (any::<bool>(), any::<bool>()).prop_map(|(passed, fallback_passed)| ProbeReport {
        passed,
        fallback_passed,
        message: "so".into(),
        took: Duration::MAX,
    });
    prop_oneof![
        4 => (any::<u64>(), service(), verb()).prop_map(|(order, service, verb)| Event::Ordered {
            order: OrderId(order), origin: WHO.into(), service, verb
        }),
        2 => plans().prop_map(|plan| Event::PlanChanged { plan: plan.0, origin: WHO.into() }),
        1 => Just(Event::ShutdownOrdered { origin: WHO.into() }),
        6 => (service(), op(), start_result)
            .prop_map(|(service, op, result)| Event::StartFinished { service, op, result }),
        4 => (service(), op(), any::<bool>()).prop_map(|(service, op, ok)| Event::StopFinished {
            service, op, result: if ok { Ok(()) } else { Err("no".into()) }
        }),
        4 => (service(), run(), exit(), any::<bool>()).prop_map(|(service, invocation, exit, external)| {
            Event::UnitExited { service, invocation, exit, external }
        }),
        2 => (service(), run(), any::<Option<u32>>())
            .prop_map(|(service, invocation, pid)| Event::UnitAppeared { service, invocation, pid }),
        2 => units.prop_map(|units| Event::Resynced { units }),
        1 => (1..4u64).prop_map(|began| Event::SystemdIdentified { began }),
        3 => (service(), run(), report)
            .prop_map(|(service, invocation, report)| Event::Probed { service, invocation, report }),
        1 => (service(), run()).prop_map(|(service, invocation)| {
            let lack = "too many open files".into();
            Event::Unprobed { service, invocation, lack }
        }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(database, well)| Event::OwnTrouble {
            kind: if database { AlertKind::Database } else { AlertKind::Systemd },
            trouble: (!well).then(|| "no".into()),
        }),
        2 => (service(), run(), any::<Option<u64>>(), any::<Option<f64>>()).prop_map(
            |(service, invocation, figure, share)| {
                let sample = Sample {
                    memory: figure,
                    tasks: figure,
                    oom_kills: figure,
                    cpu_percent: share,
                    throttled: share,
                    ..Sample::default()
                };
                Event::Sampled { samples: [(service, (invocation, sample))].into() }
            }
        ),
        4 => Just(Event::DeadlineReached),
    ]
}

proptest! {
    #![proptest_config(config(60))]

    /// Attempts, delays and counts go on as if the daemon had never died, wherever in its work it did.
    #[test]
    fn a_daemon_that_dies_and_comes_back_decides_as_one_that_lives(
        plan in plans(), seed in any::<u64>(),
        deaths in prop::collection::vec((short(), 0..12usize), 1..12),
    ) {
        let plan = without_probes(plan.0);
        let mut lives = World::new(plan.clone(), calm(seed, true));
        let mut dies = World::new(plan, calm(seed, true));
        for (time, actions) in deaths {
            dies.apply(&Step::Crash { actions, down: Duration::ZERO, reboot: false });
            lives.run_for(time);
            dies.run_for(time);
        }
        lives.run_for(secs(600.0));
        dies.run_for(secs(600.0));
        // Within one moment the order of two services, and so the number of a run, is a matter of chance.
        lives.log.sort();
        dies.log.sort();
        prop_assert_eq!(&lives.log, &dies.log);
        let picture = |world: &World| -> Vec<_> {
            world.picture().into_iter().map(|(id, (state, _, tries, count))| (id, state, tries, count)).collect()
        };
        prop_assert_eq!(picture(&lives), picture(&dies));
    }

    /// Whatever is well keeps its run, however often the daemon dies, for however long.
    #[test]
    fn what_is_well_is_left_alone(
        plan in plans(), seed in any::<u64>(),
        deaths in prop::collection::vec((short(), short()), 1..8),
    ) {
        let mut world = World::new(plan.0, calm(seed, false));
        world.run_for(secs(3600.0));
        let runs = |world: &World| -> BTreeMap<Id, Option<InvocationId>> {
            let up = world.picture().into_iter().filter(|(_, (state, ..))| *state == State::Running);
            up.map(|(id, (_, run, ..))| (id, run)).collect()
        };
        let before = runs(&world);
        for (time, down) in deaths {
            world.apply(&Step::Crash { actions: 0, down, reboot: false });
            world.run_for(down + time);
        }
        world.run_for(secs(300.0));
        prop_assert_eq!(before, runs(&world));
    }

    /// `handle` is total: events that cannot be change nothing for the worse.
    #[test]
    fn no_input_panics_or_makes_the_loop_spin(
        plan in plans(), events in prop::collection::vec((event(), short()), 0..60),
    ) {
        let mut rig = Rig::before_resync(BOOT, plan.0, BTreeMap::new());
        let mut orders = 0;
        for (mut event, time) in events {
            if let Event::Ordered { order, .. } = &mut event {
                orders += 1;
                *order = OrderId(orders);
            }
            rig.tell(event); // checks the deadline, and that no order is answered twice
            let deadlines = rig.entries.len();
            rig.pass(time.as_secs_f64());
            prop_assert!(rig.entries.len() - deadlines < 2000, "the loop spins");
            rig.engine.snapshot();
        }
    }
}
