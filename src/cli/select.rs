//! From what was typed to services: `web`, `backend:*`, `all`.

use std::collections::BTreeSet;

use super::failure::Failure;
use crate::http::dto::{Service, Status};
use crate::spelling::nearest_name;

/// A service, and whether it was named itself (not through its group or `all`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected<'a> {
    pub(super) service: &'a Service,
    pub(super) by_name: bool,
}

/// The services that `patterns` name, each once; all of them where there are none.
pub(super) fn select<'a>(status: &'a Status, patterns: &[String]) -> Result<Vec<Selected<'a>>, Failure> {
    let mut chosen: Vec<Selected<'a>> = Vec::new();
    let mut add = |service: &'a Service, by_name: bool| match chosen
        .iter_mut()
        .find(|known| known.service.id == service.id)
    {
        Some(known) => known.by_name |= by_name,
        None => chosen.push(Selected { service, by_name }),
    };
    if patterns.is_empty() {
        status.services.values().for_each(|service| add(service, false));
    }
    for pattern in patterns {
        if let Some(group) = pattern.strip_suffix(":*") {
            for service in members(status, group)? {
                add(service, false);
            }
        } else if let Some(service) = status.services.get(pattern) {
            add(service, true);
        } else if pattern == "all" {
            status.services.values().for_each(|service| add(service, false));
        } else {
            return Err(unknown("service", pattern, status.services.keys().map(String::as_str)));
        }
    }
    Ok(chosen)
}

/// Leaves those that `patterns` name.
pub(super) fn keep(status: &mut Status, patterns: &[String]) -> Result<(), Failure> {
    let chosen: BTreeSet<String> = select(status, patterns)?.iter().map(|s| s.service.id.clone()).collect();
    status.services.retain(|id, _| chosen.contains(id));
    Ok(())
}

fn members<'a>(status: &'a Status, group: &str) -> Result<Vec<&'a Service>, Failure> {
    let members: Vec<&Service> =
        status.services.values().filter(|s| s.groups.iter().any(|g| g == group)).collect();
    if members.is_empty() {
        let groups: BTreeSet<&str> =
            status.services.values().flat_map(|s| s.groups.iter().map(String::as_str)).collect();
        return Err(unknown("group", group, groups.iter().copied()));
    }
    Ok(members)
}

fn unknown<'a>(what: &str, asked: &str, known: impl Iterator<Item = &'a str> + Clone) -> Failure {
    let hint = match nearest_name(asked, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "`supervisorctl status` lists what there is".into(),
    };
    Failure::NoService(format!("there is no {what} \"{asked}\": {hint}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::dto::Supervisor;

    pub(in crate::cli) fn service(id: &str, dependencies: &[&str], groups: &[&str]) -> Service {
        let own = |list: &[&str]| list.iter().map(|s| String::from(*s)).collect();
        Service {
            id: id.into(),
            state: "running".into(),
            health: "healthy".into(),
            enabled: true,
            dependencies: own(dependencies),
            groups: own(groups),
            ..Service::default()
        }
    }

    pub(in crate::cli) fn status(services: Vec<Service>) -> Status {
        Status {
            supervisor: Supervisor {
                version: "1.2.3".into(),
                pid: 7,
                scope: "system".into(),
                systemd_version: "252".into(),
                started_at: "2026-01-31T08:00:00.000Z".into(),
                uptime_seconds: 900,
                config_path: "/etc/c.json".into(),
            },
            services: services.into_iter().map(|s| (s.id.clone(), s)).collect(),
        }
    }

    fn ids(selected: &[Selected<'_>]) -> String {
        selected.iter().map(|s| s.service.id.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_groups_and_all() {
        let status = status(vec![service("db", &[], &["back"]), service("web", &["db"], &["front", "back"])]);
        for (patterns, chosen) in [
            (&[][..], "db web"),
            (&["all"], "db web"),
            (&["web", "db", "web"], "web db"),
            (&["front:*"], "web"),
            (&["front:*", "back:*"], "web db"),
        ] {
            let patterns: Vec<String> = patterns.iter().map(|p| String::from(*p)).collect();
            assert_eq!(ids(&select(&status, &patterns).unwrap()), chosen, "{patterns:?}");
        }
        for (pattern, message) in [
            ("wbe", "there is no service \"wbe\": did you mean \"web\"?"),
            ("frnt:*", "there is no group \"frnt\": did you mean \"front\"?"),
            ("x", "there is no service \"x\": `supervisorctl status` lists what there is"),
        ] {
            let failure = select(&status, &[pattern.into()]).unwrap_err();
            assert_eq!((failure.to_string().as_str(), failure.code()), (message, 5));
        }
    }
}
