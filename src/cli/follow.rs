//! `events -f`: the stream, over restarts of the supervisor.

use super::client::Client;
use super::failure::Failure;
use super::live::AGAIN;
use super::messages::{ENDED, Messages};
use super::out::Out;
use super::show::print_event;
use super::table::clean;
use crate::http::dto::{Event, Events, Resync};

/// Why a connection brings no more.
enum Over {
    Gone(String),
    /// We were too slow, and ask for what is missing.
    Behind,
}

/// Prints every event after `last`, until somebody ends us.
pub(super) async fn events(
    client: &Client,
    out: &mut Out,
    service: Option<&str>,
    last: Option<i64>,
) -> Result<(), Failure> {
    let mut query = vec![("type", "event")];
    query.extend(service.map(|id| ("service", id)));
    let mut last = match last {
        Some(last) => last.to_string(),
        None => newest(client).await?.to_string(),
    };
    let mut waiting = false;
    loop {
        let over = match client.stream(&["stream"], &query, Some(&last)).await {
            Ok(messages) => {
                if std::mem::take(&mut waiting) {
                    out.complain("supervisorctl: the supervisor is back");
                }
                print(messages, out, &mut last).await?
            }
            Err(failure) => Over::Gone(failure.absence()?),
        };
        if let Over::Gone(why) = over {
            if !std::mem::replace(&mut waiting, true) {
                out.complain(&format!(
                    "supervisorctl: {}; waiting for it, to go on where it ended",
                    clean(&why)
                ));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn newest(client: &Client) -> Result<i64, Failure> {
    let page: Events = client.get(&["events"], &[("limit", "1")]).await?.read()?;
    Ok(page.events.first().map_or(0, |event| event.id))
}

/// Until the connection ends.
async fn print(mut messages: Messages, out: &mut Out, last: &mut String) -> Result<Over, Failure> {
    while let Some(message) = messages.next().await? {
        match message.kind.as_str() {
            "event" => print_event(out, &message.read::<Event>()?)?,
            "resync" => {
                let resync = message.read::<Resync>()?;
                if resync.missed.is_some() {
                    return Ok(Over::Behind);
                }
                out.complain(&format!("supervisorctl: events are missing here: {}", clean(&resync.reason)));
            }
            _ => {}
        }
        if let Some(id) = message.id {
            *last = id;
        }
    }
    Ok(Over::Gone(ENDED.into()))
}
