//! Sequences of signals and orders, and what must be told of them.

use proptest::prelude::*;

use super::*;
use crate::core::event::StartFailure;
use crate::systemd::unit::tests::plan;

/// A picture that is fed by hand.
struct World {
    units: Units,
    told: mpsc::UnboundedReceiver<Notice>,
    /// Kept, since their end is a message too.
    begun: Vec<Begun>,
    /// Who made the units that come up without an order.
    others: Maker,
}

fn web() -> Id {
    Id::new("web").unwrap()
}

fn run(number: u128) -> InvocationId {
    InvocationId(number)
}

fn us() -> Maker {
    Maker::Us { exec_hash: String::new() }
}

/// What is read of a unit that we made.
fn of_ours() -> State {
    State { maker: Some(us()), ..State::default() }
}

impl World {
    fn new() -> Self {
        let (send, told) = mpsc::unbounded_channel();
        let mut units = Units::new(send, OomLog::none());
        assert!(units.snapshot(|_| true).is_empty());
        Self { units, told, begun: Vec::new(), others: us() }
    }

    fn start(&mut self, op: u64) {
        let begun = self.units.begin_start(OpId(op), Arc::new(plan("web", "/bin/web")));
        self.units.start_called(&web(), OpId(op));
        self.begun.push(begun);
    }

    fn stop(&mut self, op: u64) {
        self.begun.push(self.units.begin_stop(OpId(op), &web()));
    }

    fn job_known(&mut self, op: u64, job: u32) {
        self.units.get(&web()).state.maker = Some(us());
        if let Some(result) = self.units.job_known(&web(), OpId(op), job) {
            // The reading finds nothing new.
            self.units.job_ended(&web(), job, &result);
        }
    }

    fn job_removed(&mut self, job: u32, result: &str) {
        if self.units.job_removed(&web(), job, result) {
            self.units.job_ended(&web(), job, result);
        }
    }

    /// Both signals of one change.
    fn state(&mut self, activity: Activity, invocation: u128, pid: u32, ending: (&str, i32, i32)) {
        let (result, code, status) = ending;
        let service = ServiceChange {
            main_pid: Some(pid),
            result: Some(result.into()),
            code: Some(code),
            status: Some(status),
        };
        self.units.service_changed(&web(), service);
        let unit = UnitChange {
            activity: Some(activity),
            invocation: Some(Some(run(invocation))),
            ..UnitChange::default()
        };
        if self.units.unit_changed(&web(), unit) {
            self.units.maker_known(&web(), run(invocation), self.others.clone());
        }
    }

    /// What was told since the last time, in short.
    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.told.try_recv().ok()).map(|notice| short(&notice)).collect()
    }
}

fn short(notice: &Notice) -> String {
    match notice {
        Notice::StartFinished { op, result: Ok(started), .. } => {
            format!("started {} run {} pid {:?}", op.0, started.invocation.0, started.pid)
        }
        Notice::StartFinished { op, result: Err(StartFailure { unreachable: true, .. }), .. } => {
            format!("start {} unreachable", op.0)
        }
        Notice::StartFinished { op, result: Err(failure), .. } => {
            format!("start {} failed: {}", op.0, failure.message)
        }
        Notice::StopFinished { op, result, .. } => format!("stop {} {result:?}", op.0),
        Notice::Exited { invocation, exit, external, .. } => {
            let outside = if *external { " from outside" } else { "" };
            format!("exit of {}: {}{outside}", invocation.0, exit.result)
        }
        Notice::Appeared { invocation, pid, .. } => format!("appeared {} pid {pid:?}", invocation.0),
        Notice::Resynced { .. } => "resynced".into(),
        Notice::Lost { .. } => "lost".into(),
        Notice::Back => "back".into(),
    }
}

const NOTHING: (&str, i32, i32) = ("success", 0, 0);
const EXIT_0: (&str, i32, i32) = ("success", 1, 0);
const EXIT_1: (&str, i32, i32) = ("exit-code", 1, 1);
const EXIT_203: (&str, i32, i32) = ("exit-code", 1, 203);
const TERM: (&str, i32, i32) = ("success", 2, 15);

#[test]
fn a_run_that_has_a_process_is_not_down_whatever_systemd_calls_it() {
    let mut world = running();
    world.units.job_new(&web(), 9);
    world.state(Activity::Inactive, 1, 0, TERM);
    assert_eq!(world.told(), ["exit of 1: success from outside"]);
    // As it was seen of systemd 252 under load: the new run and its process, and the state of before.
    world.state(Activity::Inactive, 2, 20, NOTHING);
    let seen = world.units.snapshot(|_| true);
    assert_eq!((seen[&web()].activity, &seen[&web()].exit), (Activity::Activating, &None));
    // The same, asked.
    let state = State { activity: Some(Activity::Inactive), main_pid: 30, ..of_ours() };
    let touched = world.units.get(&web()).touched;
    world.units.read(&web(), state, touched);
    assert_eq!(world.units.snapshot(|_| true)[&web()].activity, Activity::Activating);
}

fn running() -> World {
    let mut world = World::new();
    world.start(1);
    world.units.job_new(&web(), 10);
    world.job_known(1, 10);
    world.state(Activity::Activating, 1, 0, NOTHING);
    world.state(Activity::Active, 1, 42, NOTHING);
    assert!(world.told().is_empty(), "nothing before the job's end");
    world.job_removed(10, "done");
    assert_eq!(world.told(), ["started 1 run 1 pid Some(42)"]);
    world
}

#[test]
fn an_exit_comes_after_the_answer_to_its_start() {
    let mut world = World::new();
    world.start(1);
    world.units.job_new(&web(), 10);
    world.state(Activity::Active, 1, 42, NOTHING);
    // Everything happens before our task learns the job's number.
    world.job_removed(10, "done");
    world.state(Activity::Failed, 1, 0, EXIT_1);
    assert!(world.told().is_empty());
    world.job_known(1, 10);
    assert_eq!(world.told(), ["started 1 run 1 pid None", "exit of 1: exit-code"]);
}

#[test]
fn a_start_that_failed_on_the_way_is_told_once() {
    let mut world = World::new();
    world.start(1);
    world.job_known(1, 10);
    world.state(Activity::Failed, 1, 0, EXIT_203);
    world.job_removed(10, "failed");
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("start 1 failed: cannot execute /bin/web"), "{told:?}");
}

#[test]
fn a_program_that_ends_at_once_was_started() {
    let mut world = World::new();
    world.start(1);
    world.job_known(1, 10);
    world.state(Activity::Failed, 1, 0, EXIT_1);
    world.job_removed(10, "failed");
    assert_eq!(world.told(), ["started 1 run 1 pid None", "exit of 1: exit-code"]);
}

#[test]
fn an_exit_comes_before_the_answer_to_its_stop() {
    let mut world = running();
    world.stop(2);
    world.units.job_new(&web(), 11);
    world.state(Activity::Deactivating, 1, 42, NOTHING);
    world.state(Activity::Inactive, 1, 0, TERM);
    world.job_removed(11, "done");
    world.job_known(2, 11);
    assert_eq!(world.told(), ["exit of 1: success", "stop 2 Ok(())"]);
}

#[test]
fn what_others_do_is_told_as_such() {
    let mut world = running();
    world.units.job_new(&web(), 11);
    world.state(Activity::Inactive, 1, 0, TERM);
    assert_eq!(world.told(), ["exit of 1: success from outside"]);
    world.state(Activity::Active, 2, 43, NOTHING);
    world.job_removed(11, "done");
    assert_eq!(world.told(), ["appeared 2 pid Some(43)"]);
    // Two changes that systemd told as one.
    world.units.job_new(&web(), 12);
    world.state(Activity::Active, 3, 44, NOTHING);
    assert_eq!(world.told(), ["exit of 2: exited_unsupervised from outside", "appeared 3 pid Some(44)"]);
    world.job_removed(12, "done");
    // A kill makes no job.
    world.state(Activity::Failed, 3, 0, EXIT_1);
    assert_eq!(world.told(), ["exit of 3: exit-code"]);
}

#[test]
fn what_is_somebody_elses_is_not_told() {
    let mut world = World { others: Maker::Somebody, ..World::new() };
    world.state(Activity::Active, 1, 42, NOTHING);
    world.state(Activity::Active, 2, 43, NOTHING);
    assert!(world.units.snapshot(|_| true).is_empty());
    world.state(Activity::Inactive, 2, 0, EXIT_0);
    world.units.unit_removed(&web());
    assert!(world.told().is_empty());
    // Ours of the same name, after theirs.
    world.others = us();
    world.state(Activity::Active, 3, 44, NOTHING);
    assert_eq!(world.told(), ["appeared 3 pid Some(44)"]);
}

#[test]
fn a_reading_says_nothing_of_a_run_that_came_after_it() {
    let mut world = World { others: Maker::AnotherSupervisor, ..World::new() };
    world.state(Activity::Active, 1, 42, NOTHING);
    let touched = world.units.get(&web()).touched;
    // It was between two runs when it was read, and there was no unit.
    world.units.unit_removed(&web());
    world.state(Activity::Active, 2, 43, NOTHING);
    world.units.read(&web(), State::default(), touched);
    assert!(world.units.snapshot(|_| true).is_empty());
    world.state(Activity::Active, 2, 44, NOTHING);
    world.state(Activity::Inactive, 2, 0, EXIT_0);
    assert!(world.told().is_empty());
}

#[test]
fn a_run_of_ours_stays_ours_whatever_its_unit_says_later() {
    let mut world = World::new();
    world.state(Activity::Active, 1, 42, NOTHING);
    assert_eq!(world.told(), ["appeared 1 pid Some(42)"]);
    let mut read = |run: InvocationId| {
        let touched = world.units.get(&web()).touched;
        let (activity, invocation) = (Some(Activity::Active), Some(run));
        let state = State { activity, invocation, maker: Some(Maker::Somebody), ..State::default() };
        world.units.read(&web(), state, touched);
        world.units.snapshot(|_| true).len()
    };
    assert_eq!(read(run(1)), 1);
    assert_eq!(read(run(2)), 0, "another run");
    assert_eq!(read(run(2)), 0, "and again");
}

#[test]
fn a_new_main_process_is_told() {
    let mut world = running();
    world.state(Activity::Active, 1, 43, NOTHING);
    world.state(Activity::Active, 1, 43, NOTHING);
    assert_eq!(world.told(), ["appeared 1 pid Some(43)"]);
    // On the way out there is none.
    world.state(Activity::Active, 1, 0, NOTHING);
    assert!(world.told().is_empty());
}

#[test]
fn somebody_elses_stop_of_a_start_is_no_failure() {
    let mut world = World::new();
    world.start(1);
    world.units.job_new(&web(), 10);
    world.job_known(1, 10);
    world.state(Activity::Activating, 1, 42, NOTHING);
    world.units.job_new(&web(), 11);
    world.job_removed(10, "canceled");
    world.state(Activity::Inactive, 1, 0, TERM);
    assert_eq!(world.told(), ["started 1 run 1 pid Some(42)", "exit of 1: success from outside"]);
}

#[test]
fn a_condition_that_does_not_hold_is_named() {
    let mut world = World::new();
    world.start(1);
    world.job_known(1, 10);
    world.job_removed(10, "done");
    assert_eq!(
        world.told(),
        [
            "start 1 failed: a condition of the unit does not hold (Condition... in unit_properties or a drop-in)"
        ]
    );
}

#[test]
fn a_lost_connection_answers_and_is_quiet_until_the_picture_is_whole() {
    let mut world = running();
    world.stop(2);
    world.job_known(2, 11);
    world.units.lost("gone");
    assert_eq!(world.told(), ["stop 2 Err(\"gone\")", "lost"]);
    world.units.back();
    world.state(Activity::Inactive, 1, 0, TERM);
    assert_eq!(world.told(), ["back"]);
    let seen = world.units.snapshot(|_| true);
    assert_eq!(seen[&web()].activity, Activity::Inactive);
    world.state(Activity::Active, 2, 43, NOTHING);
    assert_eq!(world.told(), ["appeared 2 pid Some(43)"]);
}

#[test]
fn a_reload_takes_no_unit_away() {
    let mut world = running();
    world.units.reload_began();
    world.units.unit_removed(&web());
    world.units.back();
    assert_eq!(world.told(), ["back"]);
    world.state(Activity::Inactive, 1, 0, EXIT_0);
    assert_eq!(world.told(), ["exit of 1: success"]);
    world.start(2);
    world.job_known(2, 12);
    world.state(Activity::Active, 2, 43, NOTHING);
    world.job_removed(12, "done");
    world.told();
    // Without a reload it is the end.
    world.units.unit_removed(&web());
    assert_eq!(world.told(), ["exit of 2: exited_unsupervised"]);
}

#[test]
fn a_signal_is_newer_than_a_reading_that_began_before_it() {
    let mut world = running();
    let touched = world.units.get(&web()).touched;
    world.state(Activity::Failed, 1, 0, EXIT_1);
    let old = State { activity: Some(Activity::Active), invocation: Some(run(1)), ..of_ours() };
    world.units.read(&web(), old, touched);
    let seen = world.units.snapshot(|_| true);
    assert_eq!(seen[&web()].activity, Activity::Failed);
    assert_eq!(seen[&web()].exit.as_ref().and_then(|exit| exit.code), Some(1));
}

#[test]
fn a_unit_found_on_its_way_up_is_told_when_it_is_up() {
    let mut world = World::new();
    let state = State { activity: Some(Activity::Activating), invocation: Some(run(1)), ..of_ours() };
    let touched = world.units.get(&web()).touched;
    world.units.read(&web(), state, touched);
    assert_eq!(world.units.snapshot(|_| true)[&web()].activity, Activity::Activating);
    world.state(Activity::Active, 1, 42, NOTHING);
    assert_eq!(world.told(), ["appeared 1 pid Some(42)"]);
}

#[test]
fn a_job_whose_end_was_missed_is_judged_by_the_unit() {
    for (activity, ending, expected) in [
        (Activity::Active, NOTHING, "started 1 run 1 pid Some(42)"),
        (Activity::Failed, EXIT_203, "start 1 failed: cannot execute"),
    ] {
        let mut world = World::new();
        world.start(1);
        world.job_known(1, 10);
        world.state(activity, 1, 42, ending);
        world.units.job_lost(&web(), 10);
        let told = world.told();
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    }
}

#[test]
fn a_queue_that_was_looked_at_can_still_be_waited_in() {
    let mut world = World::new();
    drop(world.units.queue(&web()));
    // A reload, while a job of the unit is under way.
    world.units.job_new(&web(), 1);
    world.units.snapshot(|_| true);
    let mut next = world.units.queue(&web());
    let mut coming = std::pin::pin!(next.come());
    let polled = coming.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(polled.is_ready());
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut world = running();
    world.state(Activity::Inactive, 1, 0, EXIT_0);
    world.units.unit_removed(&web());
    world.begun.clear();
    world.units.snapshot(|_| true);
    assert!(world.units.units.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Start,
    Stop,
    JobNew,
    JobKnown,
    JobRemoved(&'static str),
    State(Activity, bool),
    Removed,
    Lost,
    Back,
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let activity = prop_oneof![
        Just(Activity::Active),
        Just(Activity::Activating),
        Just(Activity::Deactivating),
        Just(Activity::Inactive),
        Just(Activity::Failed),
    ];
    prop_oneof![
        1 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::JobNew),
        1 => Just(Step::JobKnown),
        1 => prop_oneof![Just("done"), Just("failed"), Just("canceled")].prop_map(Step::JobRemoved),
        3 => (activity, any::<bool>()).prop_map(|(activity, fresh)| Step::State(activity, fresh)),
        1 => Just(Step::Removed),
        1 => Just(Step::Lost),
        1 => Just(Step::Back),
        1 => Just(Step::Snapshot),
    ]
}

proptest! {
    /// Whatever systemd says in whatever order: each order is answered at most once, and each run ends at most once
    /// and only after it was told.
    #[test]
    fn answers_and_exits_are_never_told_twice(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        let (mut op, mut job, mut last_run) = (0, 0, 1);
        for step in steps {
            match step {
                Step::Start => { op += 1; world.start(op); }
                Step::Stop => { op += 1; world.stop(op); }
                Step::JobNew => { job += 1; world.units.job_new(&web(), job); }
                Step::JobKnown => world.job_known(op, job),
                Step::JobRemoved(result) => world.job_removed(job, result),
                Step::State(activity, fresh) => {
                    last_run += u128::from(fresh);
                    world.state(activity, last_run, 7, EXIT_1);
                }
                Step::Removed => world.units.unit_removed(&web()),
                Step::Lost => world.units.lost("x"),
                Step::Back => world.units.back(),
                Step::Snapshot => {
                    let units = world.units.snapshot(|_| true);
                    world.units.tell_resynced(units);
                }
            }
        }
        // Runs that were told as up, and not as ended since. Only in this test does systemd raise the dead.
        let (mut answered, mut up) = (BTreeSet::new(), BTreeSet::new());
        while let Ok(notice) = world.told.try_recv() {
            match notice {
                Notice::StartFinished { op, result, .. } => {
                    prop_assert!(answered.insert(op));
                    up.extend(result.ok().map(|started| started.invocation));
                }
                Notice::StopFinished { op, .. } => prop_assert!(answered.insert(op)),
                Notice::Appeared { invocation, .. } => _ = up.insert(invocation),
                Notice::Resynced { units } => up = units.values().filter_map(|unit| unit.invocation).collect(),
                Notice::Exited { invocation, .. } => prop_assert!(up.remove(&invocation), "{}", invocation),
                _ => {}
            }
        }
    }
}

/// systemd, when it is busy, says only that there is a new unit, and that its job is done.
#[test]
fn a_start_of_whose_run_nothing_was_told_is_read_before_it_is_answered() {
    let mut world = World::new();
    world.start(1);
    world.units.job_new(&web(), 10);
    world.job_known(1, 10);
    assert!(world.units.job_removed(&web(), 10, "done"), "it is to be read");
    assert_eq!(world.told(), [""; 0], "and not answered yet");
    let touched = world.units.get(&web()).touched;
    let read = State {
        activity: Some(Activity::Inactive),
        invocation: Some(run(5)),
        ending: Ending { result: "success".into(), code: 1, status: 0 },
        ..of_ours()
    };
    world.units.read(&web(), read, touched);
    world.units.job_ended(&web(), 10, "done");
    assert_eq!(world.told(), ["started 1 run 5 pid None", "exit of 5: success"]);
    // The same where the number of the job comes last.
    let mut world = World::new();
    world.start(1);
    assert!(!world.units.job_removed(&web(), 10, "done"));
    assert_eq!(world.units.job_known(&web(), OpId(1), 10).as_deref(), Some("done"));
}
