//! Commands that wait for something: `wait`, `shutdown`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::args;
use super::client::Client;
use super::failure::Failure;
use super::orders::change;
use super::out::Out;
use super::status::why;
use super::table::clean;
use crate::core::time::Human;
use crate::http::dto::{Message, Service};

const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn wait(client: &Client, out: &mut Out, wanted: &args::Wait) -> Result<(), Failure> {
    let until = wanted.timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let goal = if wanted.healthy { "healthy" } else { "running" };
    let mut before = None;
    loop {
        let service: Service = client.get(&["services", &wanted.service], &[]).await?.read()?;
        let id = &service.id;
        if let Some(line) = change(id, before.as_deref(), &service.state, &service.reason)
            && !out.json
        {
            out.line(&line)?;
        }
        if service.state == "running" && (!wanted.healthy || service.health == "healthy") {
            return if out.json { out.value(&service) } else { out.line(&format!("{id}: {goal}")) };
        }
        let why = clean(&why(&service, Timestamp::now()));
        if matches!(service.state.as_str(), "fatal" | "failed")
            || !service.enabled && service.state == "stopped"
        {
            return Err(Failure::Failed(format!(
                "{id} is {} and will not be {goal} by itself: {why}. `supervisorctl logs {id}` shows what it said",
                service.state
            )));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Failure::Failed(format!(
                "{id} is not {goal} after {}: it is {}, health {} ({why})",
                Human(Duration::from_secs_f64(wanted.timeout.unwrap_or_default())),
                service.state,
                service.health
            )));
        }
        if before.is_none() && !out.json {
            out.line(&format!("{id} is {}, health {} ({why}); waiting", service.state, service.health))?;
        }
        before = Some(service.state);
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn shutdown(client: &Client, out: &mut Out) -> Result<(), Failure> {
    let mut seen: BTreeMap<String, String> =
        client.status().await?.services.into_iter().map(|(id, s)| (id, s.state)).collect();
    let reply = client.post(&["shutdown"], &[]).await?;
    let message: Message = reply.read()?;
    if out.json {
        out.line(&reply.text)?;
    } else {
        out.line(&clean(&message.message))?;
    }
    loop {
        match client.status().await {
            Ok(now) if !out.json => {
                for (id, service) in now.services {
                    let before = seen.insert(id.clone(), service.state.clone());
                    if let Some(line) = change(&id, before.as_deref(), &service.state, &service.reason) {
                        out.line(&line)?;
                    }
                }
            }
            Ok(_) => {}
            Err(Failure::NoDaemon(_)) if out.json => return Ok(()),
            Err(Failure::NoDaemon(_)) => return out.line("the supervisor has ended"),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK).await;
    }
}
