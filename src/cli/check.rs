//! `validate` and `schema`: the configuration, without a supervisor.

use std::io::Read;
use std::path::Path;

use serde_json::json;

use super::failure::Failure;
use super::out::Out;
use super::table::{Cell, Style, Tone, clean, table};
use crate::config::{self, Loaded, Problem, Severity};
use crate::place::Scope;

/// Most of a file that is read again to show the place of a problem.
const SHOWN_BYTES: u64 = 8 << 20;

pub(super) fn validate(out: &mut Out, file: &Path, scope: Scope) -> Result<(), Failure> {
    let loaded = match config::load(file, scope) {
        Ok(loaded) => loaded,
        Err(problems) => {
            if out.json {
                out.value(&json!({"valid": false, "errors": problems}))?;
            } else {
                out.complain(render(&problems, Severity::Error).trim_end());
            }
            let errors = if problems.len() == 1 { "error" } else { "errors" };
            return Err(Failure::Failed(format!("{}: {} {errors}", file.display(), problems.len())));
        }
    };
    if out.json {
        let services: Vec<_> = loaded
            .plan
            .services
            .values()
            .map(|service| json!({"id": service.id, "enabled": service.enabled, "command": service.exec.program}))
            .collect();
        return out.value(&json!({"valid": true, "warnings": loaded.warnings, "services": services}));
    }
    if !loaded.warnings.is_empty() {
        out.complain(render(&loaded.warnings, Severity::Warning).trim_end());
    }
    out.text(&chosen(&loaded, out.style))?;
    let count = loaded.plan.services.len();
    let services = if count == 1 { "service" } else { "services" };
    // Only the systemd that is to run them can tell.
    let open = loaded.plan.services.values().any(|service| !service.exec.unit_properties.is_empty());
    let open = if open {
        " Values of unit_properties are checked by systemd: `supervisorctl reload --dry-run`."
    } else {
        ""
    };
    out.line(&format!("{} is valid: {count} {services}.{open}", file.display()))
}

/// Each service with the program file that was found for it.
fn chosen(loaded: &Loaded, style: Style) -> String {
    let rows: Vec<[Cell; 3]> = loaded
        .plan
        .services
        .values()
        .map(|service| {
            let (word, tone) = if service.enabled { ("yes", Tone::Good) } else { ("no", Tone::Off) };
            [service.id.as_str().into(), Cell::new(word, tone), (&service.exec.program).into()]
        })
        .collect();
    if rows.is_empty() { String::new() } else { table(["NAME", "ENABLED", "PROGRAM"], &rows, style) }
}

pub(super) fn schema(out: &mut Out) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| Failure::Failed(format!("cannot write the schema: {error}")))?;
    out.line(&text)
}

/// Problems as text, with the lines that they are in where the files can be read from here.
pub(super) fn render(problems: &[Problem], severity: Severity) -> String {
    let text = config::render(problems, severity, |file| {
        // Opening a pipe would keep us waiting.
        std::fs::metadata(file).ok()?.is_file().then_some(())?;
        let mut text = String::new();
        std::fs::File::open(file).ok()?.take(SHOWN_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    });
    text.lines().map(|line| clean(line) + "\n").collect()
}
