//! What happened, in words.

use super::event::{Exit, ExitResult};
use super::plan::{Id, Limits};

/// How a run ended: `killed by signal 9 (out of memory, limit 512 MiB)`.
pub(super) fn exit(exit: &Exit, limits: &Limits) -> String {
    let how = match (exit.code, exit.signal) {
        (_, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name}"),
            None => format!("killed by signal {signal} ("),
        },
        (Some(code), None) => format!("exited with status {code} ("),
        (None, None) => "ended (".into(),
    };
    let why = match &exit.result {
        ExitResult::Success | ExitResult::ExitCode | ExitResult::Signal => String::new(),
        ExitResult::CoreDump => "core dumped".into(),
        ExitResult::OomKill => match limits.memory_bytes {
            Some(limit) => format!("out of memory, limit {}", bytes(limit)),
            None => "out of memory, no limit of its own".into(),
        },
        ExitResult::Timeout => "it took longer than its timeout".into(),
        ExitResult::Watchdog => "its watchdog messages stopped".into(),
        ExitResult::Resources => "systemd lacked resources to run it".into(),
        ExitResult::Protocol => "it ended without READY=1".into(),
        ExitResult::ExitedUnsupervised => "while no supervisor was there, nobody noted how".into(),
        ExitResult::Other(word) => format!("systemd says {word}"),
    };
    // An OOM kill is named first: "signal 9 (SIGKILL" would hide the cause.
    let how = if exit.result == ExitResult::OomKill {
        how.split_inclusive('(').next().unwrap_or(&how).into()
    } else {
        how
    };
    match (how.ends_with('('), why.is_empty()) {
        (true, true) => how.trim_end_matches(" (").into(),
        (true, false) => format!("{how}{why})"),
        (false, true) => format!("{how})"),
        (false, false) => format!("{how}, {why})"),
    }
}

/// `512 MiB`, `1.5 GiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, size)) = UNITS.into_iter().find(|(_, size)| n >= *size) else {
        return format!("{n} bytes");
    };
    match (n / size, n % size * 10 / size) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenth) => format!("{whole}.{tenth} {unit}"),
    }
}

/// `db`, `db and web`, `db, web and 3 more`.
pub(super) fn list(ids: &[Id]) -> String {
    match ids {
        [] => String::new(),
        [a] => a.to_string(),
        [a, b] => format!("{a} and {b}"),
        [a, b, c] => format!("{a}, {b} and {c}"),
        [a, b, rest @ ..] => format!("{a}, {b} and {} more", rest.len()),
    }
}

/// `SIGTERM`, `signal 37`.
pub(super) fn signal(signal: i32) -> String {
    signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// Linux's names of the signals that end services in practice; others go by number.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        let names = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM";
        for (number, name) in (1..).zip(names.split(' ')).chain([(24, "XCPU"), (25, "XFSZ"), (31, "SYS")]) {
            assert_eq!(signal(number), format!("SIG{name}"));
        }
        assert_eq!(signal(16), "signal 16");
    }

    #[test]
    fn exits_say_what_happened() {
        let limits = Limits { memory_bytes: Some(512 << 20), ..Limits::default() };
        for (code, signal, result, words) in [
            (Some(0), None, ExitResult::Success, "exited with status 0"),
            (Some(3), None, ExitResult::ExitCode, "exited with status 3"),
            (None, Some(9), ExitResult::Signal, "killed by signal 9 (SIGKILL)"),
            (None, Some(11), ExitResult::CoreDump, "killed by signal 11 (SIGSEGV, core dumped)"),
            (None, Some(9), ExitResult::OomKill, "killed by signal 9 (out of memory, limit 512 MiB)"),
            (Some(1), None, ExitResult::OomKill, "exited with status 1 (out of memory, limit 512 MiB)"),
            (None, Some(40), ExitResult::Signal, "killed by signal 40"),
            (
                None,
                Some(9),
                ExitResult::Timeout,
                "killed by signal 9 (SIGKILL, it took longer than its timeout)",
            ),
            (
                None,
                None,
                ExitResult::ExitedUnsupervised,
                "ended (while no supervisor was there, nobody noted how)",
            ),
            (None, None, ExitResult::Other("exec-condition".into()), "ended (systemd says exec-condition)"),
        ] {
            assert_eq!(exit(&Exit { code, signal, result }, &limits), words);
        }
    }

    #[test]
    fn sizes_and_lists() {
        for (n, shown) in [(5, "5 bytes"), (64 << 20, "64 MiB"), (3 << 29, "1.5 GiB"), (1 << 30, "1 GiB")] {
            assert_eq!(bytes(n), shown);
        }
        let ids: Vec<Id> = ["a", "b", "c", "d"].iter().map(|id| Id::new(id).unwrap()).collect();
        assert_eq!(
            [list(&ids[..1]), list(&ids[..2]), list(&ids[..3]), list(&ids)],
            ["a", "a and b", "a, b and c", "a, b and 2 more"]
        );
    }
}
