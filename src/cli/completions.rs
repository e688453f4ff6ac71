//! `completions`: commands and options from the definition of the command line, names of services from the supervisor.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Args;

const NAME: &str = "supervisorctl";

/// Where a shell's script has names of services to complete, it asks for them: quick, and silent where nobody answers.
const BASH_NAMES: &str = r#"
_supervisorctl_or_name() {
    _supervisorctl "$@"
    local word=${COMP_WORDS[COMP_CWORD]}
    if [[ $COMP_CWORD -gt 1 && $word != -* ]]; then
        COMPREPLY+=($(compgen -W "$(supervisorctl avail --names 2>/dev/null)" -- "$word"))
    fi
}
complete -F _supervisorctl_or_name -o nosort -o bashdefault -o default supervisorctl
"#;

const FISH_NAMES: &str = r#"
complete -c supervisorctl -n "not __fish_use_subcommand" -f -a "(supervisorctl avail --names 2>/dev/null)"
"#;

/// zsh's script asks this function wherever a service is expected.
const ZSH_NAMES: &str = r#"
_supervisorctl_names() {
    local -a names
    names=(${(f)"$(supervisorctl avail --names 2>/dev/null)"})
    compadd -a names
}
"#;

pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH_NAMES,
        Shell::Fish => script + FISH_NAMES,
        Shell::Zsh => {
            // The first line says what it completes, and has to stay the first.
            let (first, rest) = script.split_once('\n').unwrap_or((&script, ""));
            let rest: Vec<String> = rest.lines().map(with_names).collect();
            format!("{first}\n{ZSH_NAMES}{}\n", rest.join("\n"))
        }
        _ => script,
    }
}

/// A line of zsh's script, which is about a service where its argument is called so.
fn with_names(line: &str) -> String {
    let about_services =
        ["'*::services", "':service", "'::service"].iter().any(|begin| line.starts_with(begin));
    if about_services { line.replace(":_default'", ":_supervisorctl_names'") } else { line.into() }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::golden::golden;

    const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

    #[test]
    fn the_scripts_that_packages_bring_are_those_of_this_program() {
        for (name, shell) in SHELLS {
            golden(&format!("completions/{name}"), &script(shell));
        }
    }

    #[test]
    fn services_are_asked_for_where_they_are_expected() {
        let zsh = script(Shell::Zsh);
        assert!(zsh.starts_with("#compdef supervisorctl\n"));
        assert!(zsh.matches(":_supervisorctl_names'").count() >= 10, "start, stop, restart, logs, ...");
        // What bash makes of it: the words after `start w`, with a supervisorctl that knows two services.
        let script = script(Shell::Bash);
        let ask = format!(
            "supervisorctl() {{ echo web; echo worker; echo db; }}\n{script}\nCOMP_WORDS=(supervisorctl start w); COMP_CWORD=2; \
             _supervisorctl_or_name supervisorctl w start; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let bash = Command::new("bash").args(["-c", &ask]).stderr(Stdio::inherit()).output().unwrap();
        let words = String::from_utf8(bash.stdout).unwrap();
        let words: Vec<&str> = words.lines().collect();
        assert!(words.contains(&"web") && words.contains(&"worker") && !words.contains(&"db"), "{words:?}");
    }

    /// Each command has a page, as `man supervisorctl-start` finds it.
    #[test]
    fn the_manual_is_that_of_this_program() {
        let page = |command: clap::Command| {
            let mut text = Vec::new();
            let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
            clap_mangen::Man::new(command).date("").render(&mut text).unwrap();
            golden(&format!("man/{name}.1"), &String::from_utf8(text).unwrap());
        };
        let mut all = Args::command().disable_help_subcommand(true);
        all.build();
        all.get_subcommands().filter(|one| !one.is_hide_set()).cloned().for_each(page);
        page(all);
    }
}
