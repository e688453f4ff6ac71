//! From the messages of systemd to the picture of the units, and a new connection where the old one ends.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use zbus::message::{Message, Type};
use zbus::names::OwnedUniqueName;
use zbus::{Connection, MessageStream, ObjectPath, Variant};

use super::bus::{self, SYSTEMD};
use super::manager::Inner;
use super::name::{service_of_object, service_of_unit};
use super::read;
use super::units::{ServiceChange, UnitChange};
use crate::core::event::{Activity, InvocationId};
use crate::core::plan::Id;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const BUS: &str = "org.freedesktop.DBus";

/// Watches one connection after the other, until nobody holds the manager any more.
pub async fn watch(inner: Weak<Inner>, mut messages: MessageStream) {
    loop {
        let reason = pump(&inner, &mut messages).await;
        let Some(strong) = inner.upgrade() else { return };
        strong.link_down();
        strong.units().lost(&reason);
        drop(strong);
        let Some(next) = reconnect(&inner).await else { return };
        messages = next;
    }
}

/// Takes in messages until the connection ends; says why it did. Waits for nothing else: answers to our own calls
/// come through here too.
async fn pump(inner: &Weak<Inner>, messages: &mut MessageStream) -> String {
    let connection = Connection::from(&*messages);
    while let Some(message) = messages.next().await {
        let Some(inner) = inner.upgrade() else { return "the manager is gone".into() };
        match message {
            Ok(message) => {
                // A body that is not as documented is no reason to stop watching.
                if let Err(error) = take_in(&inner, &connection, &message) {
                    tracing::debug!(%error, "a message of systemd's is not understood");
                }
                inner.processed(message.recv_position());
            }
            Err(error) => return format!("the D-Bus connection ended: {error}"),
        }
    }
    "the D-Bus connection ended".into()
}

/// Connects until it succeeds; the new connection's set-up goes on beside its messages.
async fn reconnect(inner: &Weak<Inner>) -> Option<MessageStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let inner = inner.upgrade()?;
        match bus::connect(inner.scope).await {
            Ok(connection) => {
                let messages = MessageStream::from(&connection);
                spawn_set_up(&inner, connection, true);
                return Some(messages);
            }
            Err(error) => {
                tracing::debug!(%error, "systemd is still out of reach");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// `fresh`: the bus does not know yet what we want to hear.
fn spawn_set_up(inner: &Arc<Inner>, connection: Connection, fresh: bool) {
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        match set_up(&inner, &connection, fresh).await {
            Ok(()) => {
                inner.units().back();
                inner.recheck();
            }
            Err(error) => {
                tracing::warn!(%error, "systemd cannot be watched; connecting again");
                // Ends the stream of messages, which starts over.
                let _ = connection.close().await;
            }
        }
    });
}

/// Makes a connection one that hears systemd.
pub async fn set_up(
    inner: &Arc<Inner>,
    connection: &Connection,
    fresh: bool,
) -> Result<(), super::SystemdError> {
    if fresh {
        bus::listen(connection, inner.scope).await?;
    }
    let mut owner = bus::owner(connection, inner.scope).await?;
    loop {
        // Before the first signal can come.
        inner.expect_owner(Some(owner.clone()));
        let error = match bus::subscribe(connection, owner.clone(), inner.scope).await {
            Err(error) if error.is_unreachable() => error,
            subscribed => return subscribed.map(|link| inner.link_up(link)),
        };
        // One that executes itself again goes away with our question, and is to be asked again.
        let next = bus::owner(connection, inner.scope).await?;
        if next == owner {
            return Err(error);
        }
        owner = next;
    }
}

fn take_in(inner: &Arc<Inner>, connection: &Connection, message: &Message) -> zbus::Result<()> {
    if message.message_type() != Type::Signal {
        return Ok(());
    }
    let header = message.header();
    let (Some(path), Some(interface), Some(member)) = (header.path(), header.interface(), header.member())
    else {
        return Ok(());
    };
    let sender = header.sender().map(|sender| sender.as_str());
    if sender == Some(BUS) && member.as_str() == "NameOwnerChanged" {
        let body = message.body();
        let (name, _old, new): (&str, &str, &str) = body.deserialize()?;
        owner_changed(inner, connection, name, new);
        return Ok(());
    }
    // Any user of the bus may send a signal to us: only systemd's count.
    if !inner.is_systemd(sender) {
        return Ok(());
    }
    match (member.as_str(), path.as_str()) {
        ("PropertiesChanged", path) => properties_changed(inner, path, message),
        (member, MANAGER_PATH) if interface.as_str() == MANAGER => manager_says(inner, member, message),
        _ => Ok(()),
    }
}

fn owner_changed(inner: &Arc<Inner>, connection: &Connection, name: &str, new: &str) {
    if name != SYSTEMD {
        return;
    }
    inner.link_down();
    if new.is_empty() {
        inner.units().lost("systemd has left the bus (it executes itself again, or it stands still)");
    } else {
        inner.expect_owner(OwnedUniqueName::try_from(new.to_owned()).ok());
        spawn_set_up(inner, connection.clone(), false);
    }
}

fn properties_changed(inner: &Arc<Inner>, path: &str, message: &Message) -> zbus::Result<()> {
    let Some(service) = service_of_object(path) else { return Ok(()) };
    let body = message.body();
    let (interface, values, _invalid): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize()?;
    match interface {
        SERVICE => inner.units().service_changed(&service, service_change(&values)),
        UNIT if inner.units().unit_changed(&service, unit_change(&values)) => {
            let inner = Arc::clone(inner);
            tokio::spawn(async move { read_maker(&inner, &service).await });
        }
        _ => {}
    }
    Ok(())
}

fn manager_says(inner: &Arc<Inner>, member: &str, message: &Message) -> zbus::Result<()> {
    let body = message.body();
    match member {
        "JobNew" => {
            let (job, _path, unit): (u32, ObjectPath<'_>, &str) = body.deserialize()?;
            if let Some(service) = service_of_unit(unit) {
                inner.units().job_new(&service, job);
            }
        }
        "JobRemoved" => {
            let (job, _path, unit, result): (u32, ObjectPath<'_>, &str, &str) = body.deserialize()?;
            if let Some(service) = service_of_unit(unit)
                && inner.units().job_removed(&service, job, result)
            {
                let (inner, result) = (Arc::clone(inner), result.to_owned());
                tokio::spawn(async move { read_and_end(&inner, &service, job, &result).await });
            }
        }
        "UnitRemoved" => {
            let (unit, _path): (&str, ObjectPath<'_>) = body.deserialize()?;
            if let Some(service) = service_of_unit(unit) {
                inner.units().unit_removed(&service);
            }
        }
        "Reloading" => {
            let begins: bool = body.deserialize()?;
            if begins {
                inner.units().reload_began();
            } else {
                inner.units().back();
                inner.recheck();
            }
        }
        _ => {}
    }
    Ok(())
}

/// A unit came up without an order of ours. Where systemd cannot be asked, the next whole picture tells whose it is.
async fn read_maker(inner: &Inner, service: &Id) {
    match read::run_and_maker(inner, service).await {
        Ok(Some((run, maker))) => inner.units().maker_known(service, run, maker),
        // Its end, or the next one's beginning, is told.
        Ok(None) => {}
        Err(error) => tracing::debug!(%service, %error, "it cannot be read who made the unit"),
    }
}

/// Where systemd cannot be asked, all orders are answered otherwise.
pub async fn read_and_end(inner: &Inner, service: &Id, job: u32, result: &str) {
    if let Err(error) = read::one(inner, service).await {
        tracing::debug!(%service, %error, "the unit cannot be read at the end of its start");
    }
    inner.units().job_ended(service, job, result);
}

fn service_change(values: &HashMap<&str, Variant<'_>>) -> ServiceChange {
    ServiceChange {
        main_pid: u32_of(values, "MainPID"),
        result: values.get("Result").and_then(|v| v.downcast_ref::<&str>().ok()).map(str::to_owned),
        code: i32_of(values, "ExecMainCode"),
        status: i32_of(values, "ExecMainStatus"),
    }
}

fn unit_change(values: &HashMap<&str, Variant<'_>>) -> UnitChange {
    let state = values.get("ActiveState").and_then(|v| v.downcast_ref::<&str>().ok());
    let run = values.get("InvocationID").and_then(|v| match v {
        Variant::Array(bytes) => Some(bytes.iter().filter_map(|b| u8::try_from(b).ok()).collect::<Vec<u8>>()),
        _ => None,
    });
    UnitChange {
        activity: state.map(activity),
        invocation: run.map(|bytes| invocation(&bytes)),
        active_enter: u64_of(values, "ActiveEnterTimestamp"),
        active_enter_monotonic: u64_of(values, "ActiveEnterTimestampMonotonic"),
    }
}

fn u32_of(values: &HashMap<&str, Variant<'_>>, name: &str) -> Option<u32> {
    values.get(name).and_then(|value| value.downcast_ref().ok())
}

fn i32_of(values: &HashMap<&str, Variant<'_>>, name: &str) -> Option<i32> {
    values.get(name).and_then(|value| value.downcast_ref().ok())
}

fn u64_of(values: &HashMap<&str, Variant<'_>>, name: &str) -> Option<u64> {
    values.get(name).and_then(|value| value.downcast_ref().ok())
}

/// systemd's `ActiveState`. `maintenance` (a unit in upkeep) is as good as down for us.
pub fn activity(word: &str) -> Activity {
    match word {
        "active" | "reloading" | "refreshing" => Activity::Active,
        "activating" => Activity::Activating,
        "deactivating" => Activity::Deactivating,
        "failed" => Activity::Failed,
        _ => Activity::Inactive,
    }
}

/// 16 bytes; none where the unit never ran.
pub fn invocation(bytes: &[u8]) -> Option<InvocationId> {
    bytes.try_into().ok().map(|bytes| InvocationId(u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_signals_are_read() {
        let run: Vec<u8> = (0..16).collect();
        let values: HashMap<&str, Variant<'_>> = [
            ("ActiveState", Variant::from("failed")),
            ("InvocationID", Variant::from(run)),
            ("ActiveEnterTimestamp", Variant::from(5_u64)),
            ("MainPID", Variant::from(7_u32)),
            ("Result", Variant::from("signal")),
            ("ExecMainCode", Variant::from(2_i32)),
            ("ExecMainStatus", Variant::from(9_i32)),
        ]
        .into();
        let unit = unit_change(&values);
        assert_eq!(unit.activity, Some(Activity::Failed));
        assert_eq!(
            unit.invocation.flatten().map(|run| run.to_string()).as_deref(),
            Some("000102030405060708090a0b0c0d0e0f")
        );
        assert_eq!((unit.active_enter, unit.active_enter_monotonic), (Some(5), None));
        let service = service_change(&values);
        assert_eq!(
            (service.main_pid, service.result.as_deref(), service.code, service.status),
            (Some(7), Some("signal"), Some(2), Some(9))
        );
    }

    #[test]
    fn a_value_of_another_type_says_nothing() {
        let values: HashMap<&str, Variant<'_>> =
            [("ActiveState", Variant::from(1_u32)), ("InvocationID", Variant::from("x"))].into();
        let unit = unit_change(&values);
        assert_eq!((unit.activity, unit.invocation), (None, None));
        assert_eq!(invocation(&[]), None);
    }
}
