//! Everything that is known of the services, kept true by the stream, over restarts of the supervisor.
//!
//! ```text
//!   GET status (is there one at all?) -> Picture <- messages <- feed: the stream, connected again and again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::client::Client;
use super::failure::Failure;
use super::messages::{ENDED, Message};
use crate::http::dto::{Alert, Hello, Readings, Removed, Service, Status};

/// Between two tries to reach a supervisor that is gone.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// Messages that wait for their reader; the server waits behind them.
const WAITING: usize = 256;

/// What the feed brings.
#[derive(Debug)]
pub(super) enum News {
    Message(Message),
    /// The supervisor is gone; it is tried again.
    Lost(String),
    /// It says no, and will.
    Refused(Failure),
}

/// Follows the stream for ever. `types` are those of the stream, parted by commas.
pub(super) fn feed(client: &Client, types: &'static str) -> mpsc::Receiver<News> {
    let (send, receive) = mpsc::channel(WAITING);
    let client = client.clone();
    tokio::spawn(async move {
        loop {
            let why = match client.stream(&["stream"], &[("type", types)], None).await {
                Ok(mut messages) => loop {
                    match messages.next().await {
                        Ok(Some(message)) => {
                            if send.send(News::Message(message)).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => break ENDED.into(),
                        Err(failure) => break failure.to_string(),
                    }
                },
                Err(failure) => match failure.absence() {
                    Ok(why) => why,
                    Err(failure) => return drop(send.send(News::Refused(failure)).await),
                },
            };
            if send.send(News::Lost(why)).await.is_err() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    receive
}

/// What is known now.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) status: Status,
    /// Open ones, by number.
    pub(super) alerts: BTreeMap<i64, Alert>,
    /// Why nothing of this may be true any more.
    pub(super) lost: Option<String>,
    /// Known before the connection, and not told since.
    untold: Option<(BTreeSet<String>, BTreeSet<i64>)>,
}

/// A service that was told.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) id: String,
    /// How it was; `None` for a new one.
    pub(super) before: Option<Service>,
}

impl Picture {
    pub(super) fn new(status: Status) -> Self {
        Self { status, alerts: BTreeMap::new(), lost: None, untold: None }
    }

    /// Takes in what came. An error means that it is not understood, or that the supervisor says no.
    pub(super) fn take(&mut self, news: News) -> Result<Option<Told>, Failure> {
        let message = match news {
            News::Message(message) => message,
            News::Lost(why) => {
                self.lost = Some(why);
                return Ok(None);
            }
            News::Refused(failure) => return Err(failure),
        };
        match message.kind.as_str() {
            "hello" => self.greeted(&message.read::<Hello>()?),
            "resync" => self.begin(),
            "ready" => self.told(),
            "service" | "state" | "health" => return Ok(Some(self.service(message.read()?))),
            "removed" => drop(self.status.services.remove(&message.read::<Removed>()?.id)),
            "alert" => self.alert(message.read()?),
            "metrics" => self.readings(message.read()?),
            _ => {}
        }
        Ok(None)
    }

    fn greeted(&mut self, hello: &Hello) {
        let supervisor = &mut self.status.supervisor;
        supervisor.version.clone_from(&hello.version);
        supervisor.started_at.clone_from(&hello.started_at);
        supervisor.pid = hello.pid;
        self.begin();
    }

    fn begin(&mut self) {
        let services = self.status.services.keys().cloned().collect();
        self.untold = Some((services, self.alerts.keys().copied().collect()));
    }

    fn told(&mut self) {
        self.lost = None;
        let (services, alerts) = self.untold.take().unwrap_or_default();
        self.status.services.retain(|id, _| !services.contains(id));
        self.alerts.retain(|id, _| !alerts.contains(id));
    }

    fn service(&mut self, service: Service) -> Told {
        if let Some((services, _)) = &mut self.untold {
            services.remove(&service.id);
        }
        let id = service.id.clone();
        let before = self.status.services.insert(id.clone(), service);
        Told { id, before }
    }

    fn alert(&mut self, alert: Alert) {
        if let Some((_, alerts)) = &mut self.untold {
            alerts.remove(&alert.id);
        }
        if alert.resolved_at.is_some() {
            self.alerts.remove(&alert.id);
        } else {
            self.alerts.insert(alert.id, alert);
        }
    }

    fn readings(&mut self, readings: Readings) {
        for (id, reading) in readings.services {
            if let Some(service) = self.status.services.get_mut(&id) {
                service.cpu_percent = reading.cpu_percent;
                service.memory_mb = reading.memory_mb;
                service.tasks = reading.tasks;
            }
        }
    }

    /// Lets uptimes be those of `now`.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let seconds = |since: &str| {
            let since: Timestamp = since.parse().ok()?;
            u64::try_from(now.as_second() - since.as_second()).ok()
        };
        for service in self.status.services.values_mut().filter(|service| service.uptime_seconds.is_some()) {
            let uptime = service.start_time.as_deref().and_then(seconds);
            service.uptime_seconds = uptime.or(service.uptime_seconds);
        }
        if let Some(uptime) = seconds(&self.status.supervisor.started_at) {
            self.status.supervisor.uptime_seconds = uptime;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::select::tests::{service, status};

    pub(in crate::cli) fn message(kind: &str, data: &impl serde::Serialize) -> News {
        let data = serde_json::to_string(data).unwrap();
        News::Message(Message { kind: kind.into(), id: None, data })
    }

    fn hello() -> News {
        let hello = Hello {
            resumed: false,
            services: 0,
            version: "2".into(),
            pid: 7,
            started_at: "2026-01-31T08:00:00.000Z".into(),
        };
        message("hello", &hello)
    }

    fn alert(id: i64, resolved: bool) -> News {
        let alert = Alert {
            id,
            service_id: None,
            alert_type: "x".into(),
            severity: "error".into(),
            message: "x".into(),
            details: serde_json::json!({}),
            created_at: "2026-01-31T08:00:00.000Z".into(),
            acknowledged_at: None,
            resolved_at: resolved.then(|| "2026-01-31T08:00:00.000Z".into()),
        };
        message("alert", &alert)
    }

    #[test]
    fn what_is_not_told_again_after_a_connection_is_gone() {
        let mut picture = Picture::new(status(vec![service("a", &[], &[]), service("b", &[], &[])]));
        let mut take = |news| picture.take(news).unwrap();
        take(alert(1, false));
        take(alert(2, false));
        take(News::Lost("gone".into()));
        take(hello());
        let known = take(message("service", &service("a", &[], &[])));
        assert!(known.is_some_and(|told| told.id == "a" && told.before.is_some()));
        let new = take(message("service", &service("c", &[], &[])));
        assert_eq!(new, Some(Told { id: "c".into(), before: None }));
        take(alert(2, false));
        assert_eq!(picture.status.services.len(), 3, "nothing is taken away before all is told");
        assert!(picture.lost.is_some());
        let _none = picture.take(message("ready", &serde_json::json!({}))).unwrap();
        assert_eq!(picture.status.services.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(picture.alerts.keys().collect::<Vec<_>>(), [&2]);
        assert_eq!((picture.lost.as_deref(), picture.status.supervisor.pid), (None, 7));
    }

    #[test]
    fn messages_change_one_thing() {
        let mut picture = Picture::new(status(vec![service("a", &[], &[])]));
        let readings = serde_json::json!({"timestamp": "", "services": {
            "a": {"cpu_percent": 1.5, "memory_mb": 2.0, "tasks": 3},
            "unknown": {"cpu_percent": 1.5, "memory_mb": 2.0, "tasks": 3},
        }});
        picture.take(message("metrics", &readings)).unwrap();
        assert_eq!(picture.status.services["a"].cpu_percent, Some(1.5));
        assert_eq!(picture.status.services.len(), 1);
        picture.take(alert(1, false)).unwrap();
        picture.take(alert(1, true)).unwrap();
        assert!(picture.alerts.is_empty());
        picture.take(message("removed", &serde_json::json!({"id": "a"}))).unwrap();
        assert!(picture.status.services.is_empty());
        assert!(picture.take(message("service", &1)).is_err());
        assert_eq!(picture.take(message("new kind", &1)).unwrap(), None);
    }

    #[test]
    fn uptimes_go_on() {
        let running = Service {
            start_time: Some("2026-01-31T08:00:00.000Z".into()),
            uptime_seconds: Some(0),
            ..service("a", &[], &[])
        };
        let mut picture = Picture::new(status(vec![running, service("b", &[], &[])]));
        picture.tick("2026-01-31T08:01:00.500Z".parse().unwrap());
        assert_eq!(picture.status.services["a"].uptime_seconds, Some(60));
        assert_eq!(picture.status.services["b"].uptime_seconds, None);
    }
}
