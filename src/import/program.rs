//! `[program:x]` and `[group:x]`: what each key means in ours.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::parse::{self, Field, Section};
use super::{Report, World, at_field, expanded};

/// Most processes that `numprocs` may make of one program.
const MOST_PROCESSES: i64 = 1000;
/// Signs that mean something to a shell alone.
const SHELL_SIGNS: [&str; 8] = ["|", "||", "&", "&&", ";", ">", ">>", "<"];

const TO_THE_JOURNAL: &str =
    "what it writes goes to the journal, which rotates by itself: `supervisorctl logs NAME`";

/// Converts every program; groups and the `supervisor` block come of it, too.
pub(super) fn all(
    sections: &[Section],
    world: &dyn World,
    report: &mut Report,
    services: &mut Map<String, Value>,
    groups: &mut Map<String, Value>,
    supervisor: &mut Map<String, Value>,
) -> Result<(), String> {
    let own = sections.iter().find(|section| section.name == "supervisord");
    let common = Common::of(own, world, report, supervisor)?;
    let defaults = sections.iter().find(|section| section.name == "DEFAULT");
    let member_of = groups_of(sections, report)?;
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for section in sections {
        let Some(name) = section.name.strip_prefix("program:").map(str::trim) else { continue };
        let mut section = section.clone();
        for field in defaults.into_iter().flat_map(|defaults| &defaults.fields) {
            if section.field(&field.key).is_none() {
                section.fields.push(field.clone());
            }
        }
        let own_groups = member_of.get(name).cloned().unwrap_or_default();
        let group = own_groups.first().map_or(name, String::as_str);
        let made = Program { section: &section, name, group, world, common: &common }.convert(report)?;
        let several = made.len() > 1;
        for (process, service) in made {
            let id = free_id(services, name, &process);
            let joined = own_groups
                .iter()
                .map(String::as_str)
                .chain(several.then_some(name).filter(|_| own_groups.is_empty()));
            joined.for_each(|group| members.entry(as_id(group)).or_default().push(id.clone()));
            services.insert(id, service);
        }
    }
    groups.extend(members.into_iter().map(|(group, members)| (group, json!({"services": members}))));
    Ok(())
}

/// What `[supervisord]` says for every program.
struct Common {
    environment: Vec<(String, String)>,
    umask: Option<String>,
}

impl Common {
    fn of(
        section: Option<&Section>,
        world: &dyn World,
        report: &mut Report,
        supervisor: &mut Map<String, Value>,
    ) -> Result<Self, String> {
        let mut common = Self { environment: Vec::new(), umask: None };
        for field in section.iter().flat_map(|section| &section.fields) {
            let value = || expanded(field, world, &BTreeMap::new());
            match field.key.as_str() {
                "environment" => {
                    common.environment = parse::pairs(&value()?).map_err(|why| at_field(field, &why))?;
                    report.mapped(field, "supervisord", "in the \"environment\" of each service");
                }
                "umask" => {
                    common.umask = Some(value()?);
                    report.mapped(field, "supervisord", "unit_properties.UMask of each service");
                }
                "user" => {
                    supervisor.insert("default_user".into(), value()?.into());
                    report.changed(
                        field,
                        "supervisord",
                        "supervisor.default_user: services run as that user, the supervisor does not",
                    );
                }
                "logfile" | "logfile_maxbytes" | "logfile_backups" | "loglevel" => {
                    report.dropped(
                        field,
                        "supervisord",
                        "the supervisor writes to the journal: journalctl -u process-supervisor",
                    );
                }
                "pidfile" | "nodaemon" | "silent" => {
                    report.dropped(field, "supervisord", "systemd runs the supervisor")
                }
                "childlogdir" | "strip_ansi" | "nocleanup" => {
                    report.dropped(field, "supervisord", TO_THE_JOURNAL)
                }
                "minfds" | "minprocs" => {
                    report.dropped(
                        field,
                        "supervisord",
                        "set LimitNOFILE or LimitNPROC in unit_properties of the services that need it",
                    );
                }
                "directory" => report.dropped(
                    field,
                    "supervisord",
                    "set \"working_directory\" of the services that need it",
                ),
                "identifier" => report.dropped(field, "supervisord", "the host's name is enough"),
                _ => report.dropped(field, "supervisord", "it is not a key of supervisord"),
            }
        }
        Ok(common)
    }
}

/// Which groups each program is in.
fn groups_of(sections: &[Section], report: &mut Report) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut member_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for section in sections {
        let Some(group) = section.name.strip_prefix("group:").map(str::trim) else { continue };
        for field in &section.fields {
            match field.key.as_str() {
                "programs" => {
                    for program in field.value.split(',').map(str::trim).filter(|program| !program.is_empty())
                    {
                        let known = |kind: &str| {
                            sections.iter().any(|s| s.name.trim() == format!("{kind}:{program}"))
                        };
                        if known("program") {
                            member_of.entry(program.into()).or_default().push(group.into());
                        } else if known("fcgi-program") {
                            report.changed(
                                field,
                                &section.name,
                                &format!("{program} is an fcgi-program and left out"),
                            );
                        } else {
                            return Err(at_field(field, &format!("there is no [program:{program}]")));
                        }
                    }
                    report.mapped(field, &section.name, &format!("groups.{}", as_id(group)));
                }
                "priority" => report.dropped(
                    field,
                    &section.name,
                    "order is by \"dependencies\" and \"priority\" of services",
                ),
                _ => report.dropped(field, &section.name, "it is not a key of supervisord"),
            }
        }
    }
    Ok(member_of)
}

/// Letters, digits, `_`, `.` and `-`, as an id has to be.
fn as_id(name: &str) -> String {
    let id: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' })
        .collect();
    let id = id.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let id: String = id.chars().take(64).collect();
    if id.is_empty() { "service".into() } else { id }
}

/// The name of the process, or with its program before it where that is taken.
fn free_id(services: &Map<String, Value>, program: &str, process: &str) -> String {
    let short = as_id(process);
    if !services.contains_key(&short) {
        return short;
    }
    let long: String = as_id(&format!("{program}-{process}")).chars().take(60).collect();
    (1..)
        .map(|n| if n == 1 { long.clone() } else { format!("{long}-{n}") })
        .find(|id| !services.contains_key(id))
        .unwrap_or(long)
}

/// One section on its way.
struct Program<'a> {
    section: &'a Section,
    name: &'a str,
    group: &'a str,
    world: &'a dyn World,
    common: &'a Common,
}

impl Program<'_> {
    /// A service for each process, with its name.
    fn convert(&self, report: &mut Report) -> Result<Vec<(String, Value)>, String> {
        let number = |key: &str, usual: i64| match self.section.field(key) {
            Some(field) => integer(field, &expanded(field, self.world, &self.names(None))?),
            None => Ok(usual),
        };
        let (count, first) = (number("numprocs", 1)?, number("numprocs_start", 0)?);
        if !(0..=MOST_PROCESSES).contains(&count) {
            return Err(format!(
                "{}:{}: numprocs can be 0 to {MOST_PROCESSES}",
                self.section.file, self.section.line
            ));
        }
        if self.section.field("command").is_none() {
            return Err(format!(
                "{}:{}: [{}] has no command",
                self.section.file, self.section.line, self.section.name
            ));
        }
        (first..first + count).map(|number| self.process(number, count, report)).collect()
    }

    fn names(&self, process: Option<(i64, i64)>) -> BTreeMap<String, String> {
        let mut names = BTreeMap::from([
            ("program_name".to_owned(), self.name.to_owned()),
            ("group_name".into(), self.group.into()),
        ]);
        if let Some((number, count)) = process {
            names
                .extend([("process_num".into(), number.to_string()), ("numprocs".into(), count.to_string())]);
        }
        names
    }

    fn process(&self, number: i64, count: i64, report: &mut Report) -> Result<(String, Value), String> {
        let mut names = self.names(Some((number, count)));
        let mut environment = self.common.environment.clone();
        if let Some(field) = self.section.field("environment") {
            let own =
                parse::pairs(&expanded(field, self.world, &names)?).map_err(|why| at_field(field, &why))?;
            names.extend(own.iter().map(|(key, value)| (format!("ENV_{key}"), value.clone())));
            environment.extend(own);
        }
        let mut made = Made::default();
        for field in &self.section.fields {
            let value = expanded(field, self.world, &names)?;
            made.take(&mut Key { field, value: value.trim(), section: &self.section.name, report })?;
        }
        let process = made.process_name.take().unwrap_or_else(|| self.name.to_owned());
        if count > 1
            && self.section.field("process_name").is_none_or(|field| !field.value.contains("%(process_num)"))
        {
            let why = "process_name has to have %(process_num)s in it where numprocs is above 1";
            return Err(format!(
                "{}:{}: [{}]: {why}",
                self.section.file, self.section.line, self.section.name
            ));
        }
        if let Some(umask) = &self.common.umask {
            made.properties.entry("UMask".to_owned()).or_insert_with(|| umask.clone().into());
        }
        if !environment.is_empty() {
            let environment: Map<String, Value> =
                environment.into_iter().map(|(key, value)| (key, value.into())).collect();
            made.service.insert("environment".into(), environment.into());
        }
        Ok((process, made.finish()))
    }
}

fn integer(field: &Field, value: &str) -> Result<i64, String> {
    value.trim().parse().map_err(|_| {
        at_field(field, &format!("a whole number is expected, not \"{}\"", value.escape_debug()))
    })
}

/// A key on its way, with its value expanded, and where it is told what became of it.
struct Key<'a> {
    field: &'a Field,
    value: &'a str,
    section: &'a str,
    report: &'a mut Report,
}

impl Key<'_> {
    fn mapped(&mut self, text: &str) {
        self.report.mapped(self.field, self.section, text);
    }

    fn changed(&mut self, text: &str) {
        self.report.changed(self.field, self.section, text);
    }

    fn dropped(&mut self, text: &str) {
        self.report.dropped(self.field, self.section, text);
    }

    fn error(&self, why: &str) -> String {
        at_field(self.field, why)
    }

    fn integer(&self) -> Result<i64, String> {
        integer(self.field, self.value)
    }

    fn boolean(&self) -> Result<bool, String> {
        match self.value.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            other => Err(self.error(&format!("true or false is expected, not \"{}\"", other.escape_debug()))),
        }
    }
}

/// A service on its way.
struct Made {
    service: Map<String, Value>,
    policy: Map<String, Value>,
    shutdown: Map<String, Value>,
    properties: Map<String, Value>,
    process_name: Option<String>,
}

impl Default for Made {
    /// supervisord's own defaults, where they are not ours.
    fn default() -> Self {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        Self {
            service: object(json!({"priority": 999})),
            policy: object(json!({"max_retries": 3, "retry_delay": 1, "reset_after": 1})),
            shutdown: object(json!({"timeout": 10})),
            properties: Map::new(),
            process_name: None,
        }
    }
}

impl Made {
    /// Takes one key.
    fn take(&mut self, key: &mut Key<'_>) -> Result<(), String> {
        let value = key.value;
        match key.field.key.as_str() {
            "command" => self.command(key)?,
            "process_name" => {
                self.process_name = Some(value.into());
                key.mapped("the service's id");
            }
            "numprocs" | "numprocs_start" => {
                key.mapped("one service for each process, in a group of that name")
            }
            "environment" => key.mapped("environment"),
            "directory" => {
                self.service.insert("working_directory".into(), value.into());
                key.mapped("working_directory");
            }
            "user" => {
                self.service.insert("user".into(), value.into());
                key.mapped("user");
            }
            "umask" => {
                self.properties.insert("UMask".into(), value.into());
                key.mapped("unit_properties.UMask");
            }
            "priority" => {
                self.service.insert("priority".into(), key.integer()?.into());
                key.mapped("priority");
            }
            "autostart" => {
                let enabled = key.boolean()?;
                if !enabled {
                    self.service.insert("enabled".into(), false.into());
                }
                key.mapped("enabled; `supervisorctl start` starts it all the same");
            }
            "autorestart" => self.autorestart(key)?,
            "exitcodes" => self.exitcodes(key)?,
            "startretries" => {
                self.policy.insert("max_retries".into(), key.integer()?.into());
                key.changed("restart_policy.max_retries; the pause is doubled each time, where supervisord adds a second");
            }
            "startsecs" => {
                let seconds = key.integer()?.max(1);
                self.policy.insert("reset_after".into(), seconds.into());
                key.changed("restart_policy.reset_after: after so long, attempts count anew; it is running after 1 s, or with a health_check when that passes",
                );
            }
            "stopsignal" => {
                let name = value.trim().to_uppercase();
                let signal = match name.parse::<u8>() {
                    Ok(number) => Value::from(number),
                    Err(_) if name.starts_with("SIG") => name.into(),
                    Err(_) => format!("SIG{name}").into(),
                };
                self.shutdown.insert("signal".into(), signal);
                key.mapped("graceful_shutdown.signal");
            }
            "stopwaitsecs" => {
                self.shutdown.insert("timeout".into(), key.integer()?.max(1).into());
                key.mapped("graceful_shutdown.timeout");
            }
            "stopasgroup" | "killasgroup" if key.boolean()? => {
                key.mapped("it is always so: the service's control group has all its processes");
            }
            "stopasgroup" | "killasgroup" => {
                key.changed("all processes of the service get the signal, not the first one alone");
            }
            "redirect_stderr" => key.changed("the journal has both, in the order in which they were written"),
            name if name.contains("_logfile") || name.ends_with("_syslog") => key.changed(TO_THE_JOURNAL),
            name if name.ends_with("_capture_maxbytes") || name.ends_with("_events_enabled") => {
                key.dropped(
                    "there are no communication events; GET /api/supervisor/stream tells what happens",
                );
            }
            "serverurl" => key.dropped("programs find the API at /run/process-supervisor/supervisor.sock"),
            _ => key.dropped("it is not a key of supervisord"),
        }
        Ok(())
    }

    fn command(&mut self, key: &mut Key<'_>) -> Result<(), String> {
        let words = parse::words(key.value).map_err(|why| key.error(&why))?;
        let Some((program, arguments)) = words.split_first().filter(|(program, _)| !program.is_empty())
        else {
            return Err(key.error("it is empty"));
        };
        self.service.insert("command".into(), program.clone().into());
        if !arguments.is_empty() {
            self.service.insert("args".into(), arguments.to_vec().into());
        }
        match arguments.iter().find(|word| SHELL_SIGNS.contains(&word.as_str())) {
            Some(sign) => key.changed(&format!(
                "command and args; \"{sign}\" is an argument to the program, for supervisord as well: \
                     for a shell write \"command\": \"/bin/sh\", \"args\": [\"-c\", \"...\"]"
            )),
            None => key.mapped("command and args"),
        }
        Ok(())
    }

    fn autorestart(&mut self, key: &mut Key<'_>) -> Result<(), String> {
        let (restart, on_exit) = match key.value.to_lowercase().as_str() {
            "unexpected" => (true, false),
            _ => key.boolean().map(|yes| (yes, yes))?,
        };
        if !restart {
            self.service.insert("auto_restart".into(), false.into());
        }
        if on_exit {
            self.service.insert("restart_on_exit".into(), true.into());
        }
        key.mapped("auto_restart and restart_on_exit");
        Ok(())
    }

    fn exitcodes(&mut self, key: &mut Key<'_>) -> Result<(), String> {
        let codes: Vec<i64> = key
            .value
            .split(',')
            .map(str::trim)
            .filter(|code| !code.is_empty())
            .map(|code| integer(key.field, code))
            .collect::<Result<_, _>>()?;
        let others: Vec<String> = codes.iter().filter(|code| **code != 0).map(ToString::to_string).collect();
        if !others.is_empty() {
            self.properties.insert("SuccessExitStatus".into(), others.join(" ").into());
        }
        if codes.contains(&0) {
            key.mapped("unit_properties.SuccessExitStatus");
        } else {
            key.changed("unit_properties.SuccessExitStatus; status 0 is a success, too");
        }
        Ok(())
    }

    fn finish(mut self) -> Value {
        self.service.insert("restart_policy".into(), self.policy.into());
        self.service.insert("graceful_shutdown".into(), self.shutdown.into());
        if !self.properties.is_empty() {
            self.service.insert("unit_properties".into(), self.properties.into());
        }
        self.service.into()
    }
}
