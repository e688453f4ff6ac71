//! `start`, `stop`, `restart`, `reset`, `signal`: orders, with a line for each change until the outcome.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::args;
use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use super::select::{Selected, select};
use super::table::{Tone, clean, paint};
use crate::core::time::Human;
use crate::http::dto::{OrderAnswer, ProblemDocument, SignalBody, Status};
use crate::http::schedule::{After, Schedule};

/// Orders that wait at the same time: well under what the server allows.
const AT_ONCE: usize = 64;
const LOOK: Duration = Duration::from_millis(200);

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

pub(super) async fn run(
    client: &Client,
    out: &mut Out,
    verb: Verb,
    order: &args::Order,
) -> Result<(), Failure> {
    let status = client.status().await?;
    let mut chosen = select(&status, &order.services)?;
    if verb != Verb::Stop {
        chosen.retain(|s| s.by_name || s.service.enabled);
    }
    let mut batch = Batch::new(&status, out);
    batch.goal = if verb == Verb::Stop { "stopped" } else { "running" };
    batch.give_all(client, verb, order, &chosen).await?;
    batch.end()
}

/// The answers so far, and what was last seen of each service.
struct Batch<'a> {
    out: &'a mut Out,
    /// States before the first order.
    begun: BTreeMap<String, String>,
    /// States as last shown.
    seen: BTreeMap<String, String>,
    /// The state that is told by the outcome, not as a change.
    goal: &'static str,
    json: Vec<serde_json::Value>,
    all_done: bool,
}

type Answer = (String, Duration, Result<OrderAnswer, Failure>);

impl<'a> Batch<'a> {
    fn new(status: &Status, out: &'a mut Out) -> Self {
        let begun: BTreeMap<_, _> =
            status.services.values().map(|s| (s.id.clone(), s.state.clone())).collect();
        Self { out, seen: begun.clone(), begun, goal: "", json: Vec::new(), all_done: true }
    }

    /// In the order that dependencies ask for, as the API does for a group.
    async fn give_all(
        &mut self,
        client: &Client,
        verb: Verb,
        order: &args::Order,
        chosen: &[Selected<'_>],
    ) -> Result<(), Failure> {
        let services: Vec<_> = chosen
            .iter()
            .map(|s| (s.service.id.as_str(), s.service.dependencies.iter().map(String::as_str)))
            .collect();
        let after = match verb {
            Verb::Start => After::Dependencies,
            Verb::Stop => After::Dependents,
            Verb::Restart => After::Nothing,
        };
        let mut waiting: Vec<&str> = services.iter().map(|s| s.0).collect();
        let mut answers = Schedule::new(&services, after, AT_ONCE, |index| {
            let id = services[index].0;
            async move {
                let begun = Instant::now();
                let answer = give(client, verb, order, id).await;
                (index, (id.to_owned(), begun.elapsed(), answer))
            }
        });
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = answers.next() => {
                    let Some((_, answer)) = answer else { return Ok(()) };
                    waiting.retain(|id| *id != answer.0);
                    let now = client.status().await.ok();
                    self.outcome(now.as_ref(), verb, order, answer)?;
                }
                _ = look.tick(), if !self.out.json && !order.no_wait => {
                    let now = client.status().await.ok();
                    self.progress(now.as_ref(), &waiting)?;
                }
            }
        }
    }

    /// A line for each service whose state is another than before.
    fn progress(&mut self, now: Option<&Status>, waiting: &[&str]) -> Result<(), Failure> {
        let Some(now) = now else { return Ok(()) };
        for &id in waiting {
            let Some(service) = now.services.get(id) else { continue };
            let before = self.seen.insert(id.into(), service.state.clone());
            if let Some(line) = change(id, before.as_deref(), &service.state, &service.reason)
                && service.state != self.goal
            {
                self.out.line(&line)?;
            }
        }
        Ok(())
    }

    fn outcome(
        &mut self,
        now: Option<&Status>,
        verb: Verb,
        order: &args::Order,
        answer: Answer,
    ) -> Result<(), Failure> {
        let (id, took, answer) = answer;
        let before = self.begun.get(&id).cloned().unwrap_or_default();
        match answer {
            Ok(answer) => {
                if self.out.json {
                    self.json.push(serde_json::to_value(&answer).unwrap_or_default());
                } else {
                    let pid = now.and_then(|now| now.services.get(&id)).and_then(|s| s.pid);
                    let line = outcome(verb, &answer, &before, pid, took);
                    let tone = if answer.done { Tone::Good } else { Tone::Changing };
                    let line = paint(&line, tone, self.out.style);
                    self.out.line(&line)?;
                }
                // Not waiting was asked for; not being ready in time was not.
                self.all_done &= answer.done || order.no_wait;
                Ok(())
            }
            Err(Failure::Problem(problem)) if !problem.is("ending") => {
                self.refused(&id, *problem);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn refused(&mut self, id: &str, problem: ProblemDocument) {
        self.all_done = false;
        self.out.complain(&about(id, &problem.detail));
        if self.out.json {
            self.json.push(serde_json::to_value(&problem).unwrap_or_default());
        }
    }

    fn end(self) -> Result<(), Failure> {
        if self.out.json {
            self.out.value(&self.json)?;
        }
        if self.all_done { Ok(()) } else { Err(Failure::NotDone) }
    }
}

pub(super) async fn give(
    client: &Client,
    verb: Verb,
    order: &args::Order,
    id: &str,
) -> Result<OrderAnswer, Failure> {
    let timeout = order.timeout.map(|seconds| seconds.to_string());
    let mut query = Vec::new();
    if order.no_wait {
        query.push(("wait", "false"));
    }
    query.extend(timeout.as_deref().map(|seconds| ("timeout", seconds)));
    client.post(&["services", id, verb.word()], &query).await?.read()
}

/// `web: stopped -> starting (asked for by alice)`.
pub(super) fn change(id: &str, before: Option<&str>, now: &str, reason: &str) -> Option<String> {
    let before = before.filter(|before| *before != now)?;
    let why = if reason.is_empty() { String::new() } else { format!(" ({})", clean(reason)) };
    Some(format!("{id}: {before} -> {}{why}", clean(now)))
}

/// `web: running (pid 123, ready after 1.2 s)`.
pub(super) fn outcome(
    verb: Verb,
    answer: &OrderAnswer,
    before: &str,
    pid: Option<u32>,
    took: Duration,
) -> String {
    let changed = verb == Verb::Restart || before != answer.state;
    match (answer.done, answer.state.as_str(), pid) {
        (true, "running", Some(pid)) if changed => {
            format!("{}: running (pid {pid}, ready after {})", answer.id, Human(took))
        }
        (true, "stopped", _) if changed => format!("{}: stopped (after {})", answer.id, Human(took)),
        _ => about(&answer.id, &answer.message),
    }
}

/// What the supervisor said of a service, with its name in front unless it stands there.
fn about(id: &str, message: &str) -> String {
    let named = message.strip_prefix(id).is_some_and(|rest| rest.starts_with([' ', ':']));
    if named { clean(message) } else { format!("{id}: {}", clean(message)) }
}

pub(super) async fn reset(client: &Client, out: &mut Out, services: &[String]) -> Result<(), Failure> {
    let status = client.status().await?;
    let mut batch = Batch::new(&status, out);
    for selected in select(&status, services)? {
        let id = &selected.service.id;
        let answer = client.post(&["services", id, "reset"], &[]).await.and_then(|reply| reply.read());
        batch.simple(id, answer)?;
    }
    batch.end()
}

pub(super) async fn signal(
    client: &Client,
    out: &mut Out,
    signal: &str,
    services: &[String],
) -> Result<(), Failure> {
    let status = client.status().await?;
    let body = SignalBody { signal: signal.into() };
    let mut batch = Batch::new(&status, out);
    let selected = select(&status, services).map_err(|failure| match services {
        [name] if status.services.contains_key(signal) => Failure::Usage(format!(
            "the signal comes before the services: supervisorctl signal {name} {signal}"
        )),
        _ => failure,
    })?;
    for selected in selected {
        let id = &selected.service.id;
        let answer =
            client.post_json(&["services", id, "signal"], &body).await.and_then(|reply| reply.read());
        if let Err(Failure::Problem(problem)) = &answer
            && problem.status == 400
        {
            return Err(Failure::Usage(problem.detail.clone()));
        }
        batch.simple(id, answer)?;
    }
    batch.end()
}

impl Batch<'_> {
    /// An order whose outcome is there at once.
    fn simple(&mut self, id: &str, answer: Result<OrderAnswer, Failure>) -> Result<(), Failure> {
        match answer {
            Ok(answer) if self.out.json => {
                self.json.push(serde_json::to_value(&answer).unwrap_or_default());
                Ok(())
            }
            Ok(answer) => self.out.line(&about(id, &answer.message)),
            Err(Failure::Problem(problem)) => {
                self.refused(id, *problem);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: &str, done: bool) -> OrderAnswer {
        OrderAnswer {
            id: "web".into(),
            action: "start".into(),
            state: state.into(),
            message: "web is running already".into(),
            done,
            refused: false,
        }
    }

    #[test]
    fn a_change_is_a_line_and_no_change_is_none() {
        assert_eq!(
            change("web", Some("stopped"), "starting", "asked for by alice").as_deref(),
            Some("web: stopped -> starting (asked for by alice)")
        );
        assert_eq!(change("web", Some("running"), "running", "x"), None);
        assert_eq!(change("web", None, "running", "x"), None);
    }

    #[test]
    fn outcomes_say_what_happened() {
        let took = Duration::from_millis(1200);
        for (verb, state, done, before, pid, line) in [
            (
                Verb::Start,
                "running",
                true,
                "starting",
                Some(123),
                "web: running (pid 123, ready after 1.2 s)",
            ),
            (Verb::Start, "running", true, "running", Some(123), "web is running already"),
            (Verb::Restart, "running", true, "running", Some(9), "web: running (pid 9, ready after 1.2 s)"),
            (Verb::Stop, "stopped", true, "stopping", None, "web: stopped (after 1.2 s)"),
            (Verb::Start, "starting", false, "stopped", None, "web is running already"),
        ] {
            assert_eq!(outcome(verb, &answer(state, done), before, pid, took), line);
        }
    }
}
