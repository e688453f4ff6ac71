//! The connection to the bus, and what its errors mean.

use std::path::Path;
use std::time::Duration;

use zbus::match_rule::MatchRule;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::proxy::CacheProperties;
use zbus::{Connection, DBusError, connection, fdo};

use super::SystemdError;
use super::proxies::{ManagerProxy, ServiceProxy, UnitProxy};
use crate::place::Scope;

pub const SYSTEMD: &str = "org.freedesktop.systemd1";
/// systemd does not answer while it reloads, which takes seconds on a large machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long systemd may stay away from its bus while it executes itself again.
const OWNER_TIMEOUT: Duration = Duration::from_secs(10);
const OWNER_PAUSE: Duration = Duration::from_millis(50);

/// What is heard of systemd. One rule for all units: the bus bounds the number of rules, and one for each of a
/// thousand services would cross it.
const RULES: &[&str] = &[
    "type='signal',sender='org.freedesktop.systemd1',path_namespace='/org/freedesktop/systemd1/unit',\
     interface='org.freedesktop.DBus.Properties',member='PropertiesChanged'",
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobNew'",
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='UnitRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='Reloading'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];

/// systemd, at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Link {
    pub manager: ManagerProxy<'static>,
    pub owner: OwnedUniqueName,
    pub version: String,
    /// Microseconds on the monotonic clock; a systemd that executes itself anew has begun when the old one did.
    pub began: u64,
    /// systemd's own bound of processes for a service without one.
    pub default_tasks: u64,
}

impl Link {
    /// One unit's properties.
    pub async fn unit(&self, path: &str) -> zbus::Result<(UnitProxy<'static>, ServiceProxy<'static>)> {
        let connection = self.manager.inner().connection();
        let unit = UnitProxy::builder(connection)
            .destination(self.owner.clone())
            .path(path.to_owned())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let service = ServiceProxy::builder(connection)
            .destination(self.owner.clone())
            .path(path.to_owned())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok((unit, service))
    }
}

/// Connects to the bus of the scope.
pub async fn connect(scope: Scope) -> Result<Connection, SystemdError> {
    let builder = match scope {
        Scope::System => connection::Builder::system(),
        Scope::User => match user_bus(|name| std::env::var(name).ok(), |path| path.exists()) {
            Some(address) => connection::Builder::address(address.as_str()),
            None => {
                return Err(unreachable(scope, "there is no user bus (XDG_RUNTIME_DIR/bus) to connect to"));
            }
        },
    };
    let connected = builder.method_timeout(CALL_TIMEOUT).build().await;
    connected.map_err(|error| unreachable(scope, &error.to_string()))
}

/// systemd's own bus of the user comes first: in a desktop's session bus there may be no systemd.
fn user_bus(var: impl Fn(&str) -> Option<String>, exists: impl Fn(&Path) -> bool) -> Option<String> {
    let runtime = var("XDG_RUNTIME_DIR").filter(|folder| folder.starts_with('/'));
    let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", nix::unistd::geteuid()));
    let socket = format!("{runtime}/bus");
    if exists(Path::new(&socket)) {
        return Some(format!("unix:path={socket}"));
    }
    var("DBUS_SESSION_BUS_ADDRESS").filter(|address| !address.is_empty())
}

/// Asks the bus for systemd's signals. To be done once for a connection, before anything else.
pub async fn listen(connection: &Connection, scope: Scope) -> Result<(), SystemdError> {
    let lost = |error: &dyn std::fmt::Display| unreachable(scope, &error.to_string());
    let bus = fdo::DBusProxy::new(connection).await.map_err(|e| lost(&e))?;
    for rule in RULES {
        let rule = MatchRule::try_from(*rule).map_err(|e| lost(&e))?;
        bus.add_match_rule(rule).await.map_err(|e| lost(&e))?;
    }
    Ok(())
}

/// Who systemd is on this bus. Waits a while for it to come back.
pub async fn owner(connection: &Connection, scope: Scope) -> Result<OwnedUniqueName, SystemdError> {
    find_owner(connection).await.map_err(|error| unreachable(scope, &error.to_string()))
}

/// Has systemd send its signals.
pub async fn subscribe(
    connection: &Connection,
    owner: OwnedUniqueName,
    scope: Scope,
) -> Result<Link, SystemdError> {
    let lost = |error: &dyn std::fmt::Display| unreachable(scope, &error.to_string());
    // By its unique name: a systemd that goes away is then noticed at once.
    let manager = ManagerProxy::builder(connection)
        .destination(owner.clone())
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .map_err(|e| lost(&e))?;
    match manager.subscribe().await {
        Err(error) if error_name(&error).ends_with("AlreadySubscribed") => {}
        other => other.map_err(|e| explain(scope, e, "Subscribe", "the manager"))?,
    }
    let version = manager.version().await.map_err(|e| lost(&e))?;
    let began = manager.userspace_timestamp_monotonic().await.map_err(|e| lost(&e))?;
    let default_tasks = manager.default_tasks_max().await.map_err(|e| lost(&e))?;
    Ok(Link { manager, owner, version, began, default_tasks })
}

async fn find_owner(connection: &Connection) -> fdo::Result<OwnedUniqueName> {
    let bus = fdo::DBusProxy::new(connection).await?;
    let deadline = tokio::time::Instant::now() + OWNER_TIMEOUT;
    loop {
        let name = BusName::try_from(SYSTEMD)?;
        match bus.get_name_owner(name).await {
            Err(fdo::Error::NameHasNoOwner(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(OWNER_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Nothing can be asked of systemd now.
pub fn unreachable(scope: Scope, reason: &str) -> SystemdError {
    let (manager, remedy) = match scope {
        Scope::System => (
            "systemd",
            "Is systemd PID 1 here, and is the D-Bus system bus running (package dbus, see `systemctl status dbus`)?",
        ),
        Scope::User => (
            "systemd --user",
            "Log in as that user with a session, or run `loginctl enable-linger USER`, and set \
             XDG_RUNTIME_DIR=/run/user/UID; or use --system as root.",
        ),
    };
    SystemdError::Unreachable { manager, reason: reason.into(), remedy: remedy.into() }
}

/// D-Bus name of an error that came as an answer; empty for others.
pub fn error_name(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, ..) => name.to_string(),
        zbus::Error::FDO(error) => error.name().to_string(),
        _ => String::new(),
    }
}

/// systemd's own words.
pub fn error_words(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, words, _) => words.clone().unwrap_or_else(|| name.to_string()),
        zbus::Error::FDO(error) => error.description().map_or_else(|| error.to_string(), str::to_owned),
        other => other.to_string(),
    }
}

/// What an error means for a person.
pub fn explain(scope: Scope, error: zbus::Error, what: &'static str, unit: &str) -> SystemdError {
    let reason = error_words(&error);
    let unit = unit.to_owned();
    let name = error_name(&error);
    match name.rsplit('.').next().unwrap_or_default() {
        "" => unreachable(scope, &reason),
        "ServiceUnknown" | "NameHasNoOwner" | "NoReply" | "Disconnected" | "Timeout" | "TimedOut" => {
            unreachable(scope, &reason)
        }
        "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => {
            SystemdError::Denied { what, unit, reason }
        }
        "NoSuchUnit" | "NoSuchProcess" => SystemdError::NoSuchUnit { unit, reason },
        _ => SystemdError::Refused { what, unit, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_systemd_is_found() {
        let var = |name: &str| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/7".to_owned()),
            "DBUS_SESSION_BUS_ADDRESS" => Some("unix:abstract=x".to_owned()),
            _ => None,
        };
        assert_eq!(user_bus(var, |_| true).as_deref(), Some("unix:path=/run/user/7/bus"));
        assert_eq!(user_bus(var, |_| false).as_deref(), Some("unix:abstract=x"));
        assert_eq!(user_bus(|_| None, |_| false), None);
        let here = format!("unix:path=/run/user/{}/bus", nix::unistd::geteuid());
        assert_eq!(user_bus(|_| None, |_| true), Some(here));
    }

    #[test]
    fn errors_say_what_to_do() {
        let denied = fdo::Error::AccessDenied("Permission denied".into());
        let gone = fdo::Error::NoReply("gone".into());
        let wrong = fdo::Error::InvalidArgs("no".into());
        let explain =
            |error| explain(Scope::System, zbus::Error::FDO(Box::new(error)), "StopUnit", "x.service");
        assert!(explain(denied).to_string().contains("org.freedesktop.systemd1.manage-units"));
        assert!(explain(gone).is_unreachable());
        assert_eq!(explain(wrong).to_string(), "systemd refuses StopUnit for x.service: no");
    }

    #[test]
    fn every_rule_is_legal() {
        for rule in RULES {
            MatchRule::try_from(*rule).unwrap();
        }
    }
}
