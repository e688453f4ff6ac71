//! What systemd wrote about the end of a run: the only witness when no supervisor was there.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::line::{number, text};
use crate::core::event::{Exit, ExitResult, InvocationId};
use crate::place::Scope;

/// "Deactivated successfully."
const SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";
/// "Failed with result ...": `UNIT_RESULT`.
const FAILURE: &str = "d9b373ed55a64feb8242e02dbe79a49c";
/// "Main process exited ...": `EXIT_CODE`, `EXIT_STATUS`. Not written for a clean exit.
const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";
/// "Stopping ...": a stop job runs.
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
/// "Stopped ...": a stop job is done.
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";

const MESSAGE_IDS: [&str; 5] = [SUCCESS, FAILURE, PROCESS_EXIT, STOPPING, STOPPED];

/// How a run of a unit ended, as systemd wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How. After a clean end neither `code` nor `signal` is known: systemd does not write them down.
    pub exit: Exit,
    /// A stop job was at work (`systemctl stop`, host shutdown) before it ended.
    pub stopped_by_job: bool,
}

/// What was read about runs so far.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<InvocationId, Note>);

#[derive(Debug, Default)]
struct Note {
    code: Option<i32>,
    signal: Option<i32>,
    /// From the way the process ended, for want of systemd's verdict.
    presumed: Option<ExitResult>,
    result: Option<ExitResult>,
    job: bool,
    job_done: bool,
}

pub(super) fn args(scope: Scope, invocations: &[InvocationId]) -> Vec<String> {
    let fields = "MESSAGE_ID,INVOCATION_ID,USER_INVOCATION_ID,UNIT_RESULT,EXIT_CODE,EXIT_STATUS,COMMAND";
    let mut args: Vec<String> = ["--output=json", "--no-pager", "--quiet", "--all"].map(String::from).into();
    args.push(format!("--output-fields={fields}"));
    args.extend(MESSAGE_IDS.iter().map(|id| format!("MESSAGE_ID={id}")));
    // What systemd itself says: anybody may write lines with these fields.
    let (name, witness) = match scope {
        Scope::System => ("INVOCATION_ID", "_PID=1".into()),
        Scope::User => ("USER_INVOCATION_ID", format!("_UID={}", nix::unistd::geteuid())),
    };
    args.push(witness);
    args.extend(invocations.iter().map(|id| format!("{name}={id}")));
    args
}

impl Notes {
    /// One line of `journalctl -o json`; anything else is passed over.
    pub fn take(&mut self, json: &[u8]) {
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(json) else { return };
        let invocation = ["INVOCATION_ID", "USER_INVOCATION_ID"].iter().find_map(|name| text(&fields, name));
        let Some(invocation) = invocation.and_then(|id| InvocationId::try_from(id).ok()) else { return };
        let note = self.0.entry(invocation).or_default();
        match text(&fields, "MESSAGE_ID").as_deref() {
            Some(SUCCESS) => note.verdict(ExitResult::Success),
            Some(FAILURE) => {
                let word = text(&fields, "UNIT_RESULT");
                note.verdict(word.map_or(ExitResult::ExitedUnsupervised, |word| word.as_str().into()));
            }
            Some(PROCESS_EXIT) => note.process_exit(&fields),
            // One that comes after the end stops nothing.
            Some(STOPPING) if note.result.is_none() && note.presumed.is_none() => note.job = true,
            Some(STOPPED) if note.result.is_none() => note.job_done = true,
            _ => {}
        }
    }

    /// Those runs that ended.
    pub fn ended(self) -> BTreeMap<InvocationId, Ended> {
        self.0.into_iter().filter_map(|(id, note)| Some((id, note.ended()?))).collect()
    }
}

impl Note {
    /// The first one counts.
    fn verdict(&mut self, result: ExitResult) {
        self.result.get_or_insert(result);
    }

    fn process_exit(&mut self, fields: &Map<String, Value>) {
        // Of the main process, not of a command before or after it.
        if text(fields, "COMMAND").is_some_and(|command| command != "ExecStart") {
            return;
        }
        let status = number(fields, "EXIT_STATUS");
        match text(fields, "EXIT_CODE").as_deref() {
            Some("exited") => (self.code, self.presumed) = (status, Some(ExitResult::ExitCode)),
            Some("killed") => (self.signal, self.presumed) = (status, Some(ExitResult::Signal)),
            Some("dumped") => (self.signal, self.presumed) = (status, Some(ExitResult::CoreDump)),
            _ => {}
        }
    }

    fn ended(self) -> Option<Ended> {
        let stopped = self.job_done.then_some(ExitResult::Success);
        let result = self.result.or(self.presumed).or(stopped)?;
        let exit = Exit { code: self.code, signal: self.signal, result };
        Some(Ended { exit, stopped_by_job: self.job || self.job_done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUN: InvocationId = InvocationId(0x3042_d996_5e35_4124_904a_4f92_6d6d_3051);

    /// The end that these lines tell. As systemd 252 writes them; fields that play no part left out.
    fn told(lines: &[(&str, &str)]) -> Option<Ended> {
        let mut notes = Notes::default();
        for (message, fields) in lines {
            notes.take(format!(r#"{{"MESSAGE_ID":"{message}","INVOCATION_ID":"{RUN}"{fields}}}"#).as_bytes());
        }
        notes.ended().remove(&RUN)
    }

    fn ended(code: Option<i32>, signal: Option<i32>, result: ExitResult, job: bool) -> Option<Ended> {
        Some(Ended { exit: Exit { code, signal, result }, stopped_by_job: job })
    }

    #[test]
    fn what_systemd_says_about_an_end() {
        let exited =
            |status| format!(r#","COMMAND":"ExecStart","EXIT_CODE":"exited","EXIT_STATUS":"{status}""#);
        let (three, zero) = (exited(3), exited(0));
        let killed = r#","COMMAND":"ExecStart","EXIT_CODE":"killed","EXIT_STATUS":"9""#;
        let dumped = r#","COMMAND":"ExecStart","EXIT_CODE":"dumped","EXIT_STATUS":"11""#;
        let after = r#","COMMAND":"ExecStopPost","EXIT_CODE":"exited","EXIT_STATUS":"1""#;
        let result = |word| format!(r#","UNIT_RESULT":"{word}""#);
        let (exit_code, signal, core_dump) = (result("exit-code"), result("signal"), result("core-dump"));
        let (oom, timeout) = (result("oom-kill"), result("timeout"));
        let stop = r#","JOB_TYPE":"stop""#;
        for (lines, expected) in [
            (vec![(SUCCESS, "")], ended(None, None, ExitResult::Success, false)),
            (
                vec![(PROCESS_EXIT, three.as_str()), (FAILURE, &exit_code)],
                ended(Some(3), None, ExitResult::ExitCode, false),
            ),
            (
                vec![(PROCESS_EXIT, killed), (FAILURE, &signal)],
                ended(None, Some(9), ExitResult::Signal, false),
            ),
            (vec![(PROCESS_EXIT, killed), (FAILURE, &oom)], ended(None, Some(9), ExitResult::OomKill, false)),
            (
                vec![(PROCESS_EXIT, dumped), (FAILURE, &core_dump)],
                ended(None, Some(11), ExitResult::CoreDump, false),
            ),
            (
                vec![(STOPPING, stop), (SUCCESS, ""), (STOPPED, stop)],
                ended(None, None, ExitResult::Success, true),
            ),
            (
                vec![(STOPPING, stop), (PROCESS_EXIT, killed), (FAILURE, &timeout), (STOPPED, stop)],
                ended(None, Some(9), ExitResult::Timeout, true),
            ),
            // A stop of what had failed already.
            (
                vec![(PROCESS_EXIT, three.as_str()), (FAILURE, &exit_code), (STOPPED, stop)],
                ended(Some(3), None, ExitResult::ExitCode, false),
            ),
            (
                vec![(PROCESS_EXIT, after), (FAILURE, &exit_code)],
                ended(None, None, ExitResult::ExitCode, false),
            ),
            (vec![(PROCESS_EXIT, killed)], ended(None, Some(9), ExitResult::Signal, false)),
            (
                vec![(PROCESS_EXIT, zero.as_str()), (SUCCESS, "")],
                ended(Some(0), None, ExitResult::Success, false),
            ),
            (vec![(STOPPED, stop)], ended(None, None, ExitResult::Success, true)),
            (vec![(STOPPING, stop)], None),
            (vec![(FAILURE, "")], ended(None, None, ExitResult::ExitedUnsupervised, false)),
            (vec![], None),
        ] {
            assert_eq!(told(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn runs_are_kept_apart_in_both_scopes() {
        let mut notes = Notes::default();
        notes.take(format!(r#"{{"MESSAGE_ID":"{SUCCESS}","INVOCATION_ID":"{RUN}"}}"#).as_bytes());
        let other = InvocationId(7);
        let line =
            format!(r#"{{"MESSAGE_ID":"{FAILURE}","USER_INVOCATION_ID":"{other}","UNIT_RESULT":"signal"}}"#);
        notes.take(line.as_bytes());
        notes.take(br#"{"MESSAGE_ID":"x","INVOCATION_ID":"not hex"}"#);
        let ended = notes.ended();
        assert_eq!(ended.len(), 2);
        assert_eq!(ended[&RUN].exit.result, ExitResult::Success);
        assert_eq!(ended[&other].exit.result, ExitResult::Signal);
    }

    proptest! {
        #[test]
        fn no_line_panics(bytes: Vec<u8>, message in 0..5_usize, field in ".*", status: i64) {
            let mut notes = Notes::default();
            notes.take(&bytes);
            notes.take(serde_json::json!({
                "MESSAGE_ID": MESSAGE_IDS[message], "INVOCATION_ID": RUN.to_string(), "UNIT_RESULT": field,
                "EXIT_CODE": field, "EXIT_STATUS": status.to_string(),
            }).to_string().as_bytes());
            notes.ended();
        }
    }
}
