//! `status -w`: the table, kept true. On a terminal it is drawn over; elsewhere each change is a line of its own.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::Receiver;

use super::client::Client;
use super::failure::Failure;
use super::live::{News, Picture, Told, feed};
use super::orders::change;
use super::out::Out;
use super::select::{keep, select};
use super::status::{render, trouble};
use super::table::{Style, clean, shorten};
use crate::http::dto::{Service, Status};

/// For countdowns and uptimes.
const TICK: Duration = Duration::from_secs(1);
/// What comes within it is drawn at once.
const TOGETHER: Duration = Duration::from_millis(50);
/// Lines beside those of the services: the head, what is left out, what is lost, the cursor's.
const OTHER_LINES: usize = 4;

/// Until somebody ends us. `status` is what was just read.
pub(super) async fn watch(
    client: &Client,
    out: &mut Out,
    status: Status,
    patterns: &[String],
) -> Result<(), Failure> {
    let picture = Picture::new(status);
    let news = feed(client, "service,state,health,removed");
    if out.style.width.is_some() && !out.json {
        draw_over(picture, news, out, patterns).await
    } else {
        tell_changes(picture, news, out, patterns).await
    }
}

async fn draw_over(
    mut picture: Picture,
    mut news: Receiver<News>,
    out: &mut Out,
    patterns: &[String],
) -> Result<(), Failure> {
    let mut drawn = 0;
    loop {
        let now = Timestamp::now();
        picture.tick(now);
        let room = out.height().saturating_sub(OTHER_LINES).max(1);
        let text = draw(&picture, patterns, room, now, out.style)?;
        // To the first line of what was drawn before, which is wiped down to the end of the screen.
        let back = if drawn > 0 { format!("\x1b[{drawn}F") } else { String::new() };
        drawn = text.lines().count();
        out.text(&format!("{back}\x1b[J{text}"))?;
        let Ok(first) = tokio::time::timeout(TICK, news.recv()).await else { continue };
        let Some(first) = first else { return Ok(()) };
        picture.take(first)?;
        tokio::time::sleep(TOGETHER).await;
        while let Ok(more) = news.try_recv() {
            picture.take(more)?;
        }
    }
}

/// At most `room` services; those with trouble are not the ones that are left out.
fn draw(
    picture: &Picture,
    patterns: &[String],
    room: usize,
    now: Timestamp,
    style: Style,
) -> Result<String, Failure> {
    let mut shown = picture.status.clone();
    keep(&mut shown, patterns)?;
    let hidden = shown.services.len().saturating_sub(room);
    let mut calmest: Vec<(u8, String)> =
        shown.services.values().map(|service| (trouble(service), service.id.clone())).collect();
    // Of those alike, the last by name.
    calmest.sort_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1)));
    for (_, id) in calmest.iter().take(hidden) {
        shown.services.remove(id);
    }
    let mut text = render(&shown, now, style);
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more; `supervisorctl top` shows them all\n"));
    }
    if let Some(why) = &picture.lost {
        let line = format!("This may be out of date: {}", clean(why));
        text.push_str(&format!("{}\n", shorten(&line, style.width)));
    }
    Ok(text)
}

/// A line for each service that is in another state or of another health; with `--json` all of that service.
async fn tell_changes(
    mut picture: Picture,
    mut news: Receiver<News>,
    out: &mut Out,
    patterns: &[String],
) -> Result<(), Failure> {
    let mut first = picture.status.clone();
    keep(&mut first, patterns)?;
    if out.json {
        first.services.values().try_for_each(|service| out.value(service))?;
    } else {
        out.text(&render(&first, Timestamp::now(), out.style))?;
    }
    while let Some(one) = news.recv().await {
        let was_lost = picture.lost.is_some();
        let told = picture.take(one)?;
        match (&picture.lost, was_lost) {
            (Some(why), false) => out.complain(&format!("supervisorctl: {}; waiting for it", clean(why))),
            (None, true) => out.complain("supervisorctl: the supervisor is back"),
            _ => {}
        }
        let Some(Told { id, before }) = told else { continue };
        let chosen = select(&picture.status, patterns).unwrap_or_default();
        if let Some(now) = chosen.iter().find(|chosen| chosen.service.id == id) {
            tell(out, before.as_ref(), now.service)?;
        }
    }
    Ok(())
}

fn tell(out: &mut Out, before: Option<&Service>, now: &Service) -> Result<(), Failure> {
    if before.is_some_and(|before| (&before.state, &before.health) == (&now.state, &now.health)) {
        return Ok(());
    }
    if out.json {
        return out.value(now);
    }
    let line = match before {
        None => Some(format!("{}: {} (new)", now.id, clean(&now.state))),
        Some(before) => change(&now.id, Some(&before.state), &now.state, &now.reason)
            .or_else(|| change(&now.id, Some(&before.health), &now.health, "")),
    };
    line.map_or(Ok(()), |line| out.line(&line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::select::tests::{service, status};

    #[test]
    fn what_does_not_fit_is_what_is_well() {
        let fatal = Service { state: "fatal".into(), reason: "gave up".into(), ..service("z", &[], &[]) };
        let mut services: Vec<Service> = ["a", "b", "c"].iter().map(|id| service(id, &[], &[])).collect();
        services.push(fatal);
        let mut picture = Picture::new(status(services));
        picture.lost = Some("it is gone, and this is a long story".into());
        let style = Style { width: Some(40), colours: false };
        let now = "2026-01-31T08:00:00Z".parse().unwrap();
        insta::assert_snapshot!(draw(&picture, &[], 2, now, style).unwrap(), @r"
        NAME  STATE    HEALTH   PID  UPTIME  RESTARTS  WHY
        a     running  healthy  -    -       0
        z     fatal    healthy  -    -       0         gave up
        and 2 more; `supervisorctl top` shows them all
        This may be out of date: it is gone, an…
        ");
        assert_eq!(draw(&picture, &["b".into()], 2, now, style).unwrap().lines().count(), 3);
        assert!(matches!(draw(&picture, &["x".into()], 2, now, style), Err(Failure::NoService(_))));
    }
}
