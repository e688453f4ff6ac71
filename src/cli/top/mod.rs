//! `top`: all services live, with their details and logs, and orders at a key.
//!
//! ```text
//!   stream  --> Picture --.
//!   keys    --------------+--> Top (pure: what is shown, what a key means) --> view (pure: cells) --> the terminal
//!   answers --------------'      |
//!                                '--> orders, the log of the chosen service
//! ```

mod state;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;

use super::args;
use super::client::Client;
use super::failure::Failure;
use super::live::{self, News, Picture};
use super::orders::{self, Verb};
use super::out::Out;
use super::table::Tone;
use crate::http::dto::LogLine;
use state::{Effect, Note, Top};

/// For countdowns and uptimes.
const TICK: Duration = Duration::from_secs(1);
/// What comes within it is drawn at once.
const FRAME: Duration = Duration::from_millis(40);
/// Of a log, before its end is followed.
const LOG_LINES: &str = "200";
/// Of keys, answers and lines of logs that wait to be taken in.
const WAITING: usize = 256;

/// What the terminal and our own tasks bring.
enum Input {
    Terminal(std::io::Result<Event>),
    Answer(Note),
    /// A line of this service's log, or why there are none.
    Log(String, Result<LogLine, String>),
}

pub(super) async fn top(client: &Client, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return Err(Failure::Usage("top is for people; `status -w --json` is for programs".into()));
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::Usage("top needs a terminal; `supervisorctl status` does not".into()));
    }
    let picture = Picture::new(client.status().await?);
    let news = live::feed(client, "service,state,health,removed,alert,metrics");
    let mut terminal = ratatui::try_init()?;
    let ended = run(client, &mut terminal, Top::new(picture, out.style.colours), news).await;
    ratatui::restore();
    ended
}

async fn run(
    client: &Client,
    terminal: &mut DefaultTerminal,
    mut top: Top,
    mut news: Receiver<News>,
) -> Result<(), Failure> {
    let (send, mut inputs) = mpsc::channel(WAITING);
    listen(send.clone());
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut log = None::<AbortHandle>;
    loop {
        let now = Timestamp::now();
        top.picture.tick(now);
        terminal.draw(|frame| view::draw(frame, &mut top, now))?;
        let mut effects = Vec::new();
        tokio::select! {
            one = news.recv() => take_news(&mut top, one)?,
            one = inputs.recv() => effects.extend(take_input(&mut top, one)?),
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
            () = tokio::time::sleep(TICK) => {}
        }
        // Five hundred services that start are not five hundred pictures.
        let drawn = Instant::now() + FRAME;
        while Instant::now() < drawn && effects.is_empty() {
            if let Ok(one) = news.try_recv() {
                take_news(&mut top, Some(one))?;
            } else if let Ok(one) = inputs.try_recv() {
                effects.extend(take_input(&mut top, Some(one))?);
            } else {
                break;
            }
        }
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(()),
                Effect::Order(verb, id) => order(client, verb, id, send.clone()),
                Effect::Log(wanted) => {
                    if let Some(old) = log.take() {
                        old.abort();
                    }
                    log = wanted.map(|id| follow_log(client, id, send.clone()));
                }
            }
        }
    }
}

fn take_news(top: &mut Top, news: Option<News>) -> Result<(), Failure> {
    match news {
        Some(news) => top.picture.take(news).map(drop),
        None => Err(Failure::Failed("the stream of changes ended".into())),
    }
}

fn take_input(top: &mut Top, input: Option<Input>) -> Result<Vec<Effect>, Failure> {
    match input {
        Some(Input::Terminal(Ok(Event::Key(key)))) if key.kind != KeyEventKind::Release => {
            return Ok(top.key(key));
        }
        // A new size is drawn anyway.
        Some(Input::Terminal(Ok(_))) => {}
        Some(Input::Terminal(Err(error))) => return Err(error.into()),
        Some(Input::Answer(note)) => top.note = Some(note),
        Some(Input::Log(id, line)) => top.log(&id, line),
        None => return Err(Failure::Failed("the terminal is gone".into())),
    }
    Ok(Vec::new())
}

/// Reading a terminal blocks, so it has a thread, which ends with the program.
fn listen(send: Sender<Input>) {
    std::thread::spawn(move || {
        loop {
            let read = event::read();
            let over = read.is_err();
            if send.blocking_send(Input::Terminal(read)).is_err() || over {
                return;
            }
        }
    });
}

fn order(client: &Client, verb: Verb, id: String, send: Sender<Input>) {
    let client = client.clone();
    tokio::spawn(async move {
        let begun = Instant::now();
        let answer = orders::give(&client, verb, &args::Order::default(), &id).await;
        let note = match answer {
            Ok(answer) => {
                let text = orders::outcome(verb, &answer, "", None, begun.elapsed());
                Note { text, tone: if answer.done { Tone::Good } else { Tone::Changing } }
            }
            Err(failure) => Note { text: format!("{id}: {failure}"), tone: Tone::Bad },
        };
        // Who left does not wait for it.
        let _left = send.send(Input::Answer(note)).await;
    });
}

fn follow_log(client: &Client, id: String, send: Sender<Input>) -> AbortHandle {
    let client = client.clone();
    let task = async move {
        let query = [("follow", "true"), ("lines", LOG_LINES)];
        let over = match client.stream(&["services", &id, "logs"], &query, None).await {
            Ok(mut messages) => loop {
                match messages.next().await {
                    Ok(Some(message)) if message.kind == "line" => {
                        let line = message.read().map_err(|failure| failure.to_string());
                        if send.send(Input::Log(id.clone(), line)).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break "the log's end is no longer followed; press l twice to go on".into(),
                    Err(failure) => break failure.to_string(),
                }
            },
            Err(failure) => failure.to_string(),
        };
        let _left = send.send(Input::Log(id, Err(over))).await;
    };
    tokio::spawn(task).abort_handle()
}
