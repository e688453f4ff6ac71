//! The whole text in both formats, and who gets which.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Request;
use tower::ServiceExt;

use super::*;
use crate::core::alert::{AlertKind, Severity};
use crate::core::event::{Exit, ExitResult, ProbeReport};
use crate::core::plan::Limits;
use crate::core::sample::{Pressure, Sample};
use crate::core::snapshot::{Health, State as ServiceState};
use crate::core::time::Wall;
use crate::http::tests::{World, world};

/// The answer and its content type.
async fn get(world: &World, accept: &str) -> (String, String) {
    let request = Request::builder().uri("/metrics").header("accept", accept).body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["vary"]), (200, &"accept".parse().unwrap()));
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (kind, String::from_utf8(body.to_vec()).unwrap())
}

/// `web` has everything, the others next to nothing.
fn busy() -> World {
    let world = world();
    world.change("web", |web| {
        let plan = Arc::make_mut(&mut web.plan);
        plan.critical = true;
        plan.limits = Limits { memory_bytes: Some(256 << 20), cpu_percent: Some(150.0), tasks: Some(64) };
        web.health = Health::Degraded;
        web.last_exit = Some((Exit { code: None, signal: Some(9), result: ExitResult::OomKill }, Wall(499)));
        web.tally.exited(&ExitResult::OomKill);
        for (millis, passed) in [(3, true), (70, true), (70, false), (60_000, false)] {
            let (message, took) = (String::new(), Duration::from_millis(millis));
            web.tally.probed(&ProbeReport { passed, fallback_passed: false, message, took });
        }
        web.flapping = Some("5 failures in 10 min".into());
        web.alerts = vec![(AlertKind::Flapping, Severity::Critical), (AlertKind::Memory, Severity::Critical)];
        web.usage = Some(Sample {
            cpu_percent: Some(12.5),
            memory: Some(200 << 20),
            memory_peak: Some(250 << 20),
            tasks: Some(5),
            throttled: Some(0.25),
            pressure: Pressure { cpu: Some(12.5), memory: Some(0.0), io: None },
            cpu_time: Some(Duration::from_millis(1250)),
            io_bytes: Some((4096, 8192)),
            oom_kills: Some(1),
            ..Sample::default()
        });
    });
    world.change("edge", |edge| {
        edge.state = ServiceState::Fatal;
        edge.wanted = true;
        edge.alerts = vec![(AlertKind::Down, Severity::Error)];
    });
    world
}

/// Of `web` and `edge`, and without the figures of the process that runs the tests.
fn steady(text: &str) -> String {
    let other = |line: &str| {
        ["process_", "\"bad\"", "\"db\"", "\"lost\"", "\"slow\""].iter().any(|word| line.contains(word))
    };
    text.lines().filter(|line| !other(line)).map(|line| format!("{line}\n")).collect()
}

const ASKS: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[tokio::test]
async fn the_names_are_a_contract() {
    let (kind, text) = get(&busy(), ASKS).await;
    assert_eq!(kind, OPENMETRICS);
    assert!(text.ends_with("\n# EOF\n"));
    insta::assert_snapshot!(steady(&text));
}

#[tokio::test]
async fn the_classic_format_has_the_same_samples_under_words_that_it_knows() {
    let world = busy();
    let (openmetrics, (kind, classic)) = (get(&world, ASKS).await.1, get(&world, "*/*").await);
    assert_eq!(kind, CLASSIC);
    let samples = |text: &str| {
        steady(text).lines().filter(|l| !l.starts_with('#')).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(samples(&classic), samples(&openmetrics));
    let mut named = BTreeSet::new();
    let mut lines = classic.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(named.insert(name.to_owned()), "{name} twice");
            assert!(["counter", "gauge", "histogram"].contains(&kind) && text.ends_with('.'), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let end = sample.find(['{', ' ']).unwrap();
                let endings: &[_] = if kind == "histogram" { &["_sum", "_count", "_bucket"] } else { &[""] };
                assert!(
                    endings.iter().any(|e| sample[..end] == format!("{name}{e}")),
                    "{sample} under {name}"
                );
            }
        } else {
            panic!("{line} belongs to nothing");
        }
    }
    assert_eq!(named.len(), FAMILIES.len());
}

#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    for (accept, openmetrics) in [
        (ASKS, true),
        // Prometheus 3.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            true,
        ),
        ("Application/OpenMetrics-Text", true),
        ("application/openmetrics-text; version=\"1.0.0\"; q=1", true),
        ("text/plain, application/openmetrics-text;q=0.1", false),
        ("application/openmetrics-text;q=0", false),
        ("application/openmetrics-text;q=much", false),
        ("application/openmetrics-text;version=0.0.1", false),
        ("application/openmetrics-text;version=2.0.0, */*", false),
        ("*/*", false),
        ("text/html,application/json", false),
        (",;=,;;", false),
        ("", false),
    ] {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        assert_eq!(wants_openmetrics(&headers), openmetrics, "{accept}");
    }
    assert!(!wants_openmetrics(&HeaderMap::new()));
}

#[test]
fn the_process_itself_is_known() {
    let process = Process::now();
    assert!(process.cpu.is_some_and(|seconds| (0.0..1e6).contains(&seconds)), "{process:?}");
    assert!(process.resident.is_some_and(|bytes| (1 << 20..1 << 33).contains(&bytes)), "{process:?}");
    assert!(process.virtual_size > process.resident, "{process:?}");
    assert!(process.threads >= Some(1) && process.open_files >= Some(3), "{process:?}");
    assert!(process.max_files >= process.open_files, "{process:?}");
}
