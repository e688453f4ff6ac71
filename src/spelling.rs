//! What a person may have meant by a word that is not known: a key of the configuration, a service, a group.

/// What other supervisors call a thing.
const ALIASES: &[(&str, &str)] = &[
    ("autorestart", "auto_restart"),
    ("autostart", "enabled"),
    ("cmd", "command"),
    ("cpu", "max_cpu_percent"),
    ("cwd", "working_directory"),
    ("depends_on", "dependencies"),
    ("directory", "working_directory"),
    ("env", "environment"),
    ("env_file", "environment_file"),
    ("exec", "command"),
    ("healthcheck", "health_check"),
    ("limits", "resource_limits"),
    ("memory", "max_memory_mb"),
    ("programs", "services"),
    ("restart", "restart_policy"),
    ("retries", "failure_threshold"),
    ("settings", "supervisor"),
    ("startretries", "max_retries"),
    ("stopsignal", "signal"),
    ("stopwaitsecs", "timeout"),
    ("title", "name"),
    ("url", "endpoint"),
    ("workdir", "working_directory"),
];

/// Longer words are not compared, nor more than this many.
const MAX_LENGTH: usize = 64;
const MAX_WORDS: usize = 10_000;

/// The known word nearest to `given`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > MAX_LENGTH {
        return None;
    }
    let folded = fold(given);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == given.to_lowercase()).map(|(_, name)| *name);
    let allowed = (folded.len() / 3).clamp(1, 4);
    let mut best: Option<(usize, &str)> = None;
    for word in known.into_iter().take(MAX_WORDS) {
        if alias == Some(word) {
            return Some(word);
        }
        let candidate = fold(word);
        if candidate.len().abs_diff(folded.len()) > allowed {
            continue;
        }
        let distance = distance(&folded, &candidate);
        if distance <= allowed && distance < candidate.len() && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

/// As [`nearest`], for names that people also shorten: `reading` for `reading-app`.
pub(crate) fn nearest_name<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    const SHORTEST: usize = 3;
    let part = given.to_lowercase();
    let holds = |name: &&str| part.len() >= SHORTEST && name.to_lowercase().contains(&part);
    nearest(given, known.clone()).or_else(|| known.into_iter().find(holds))
}

/// Case and separators are what people mix up first.
fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !"_-. ".contains(*c)).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut cost = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let known = ["interval", "timeout", "type", "working_directory", "environment", "user", "enabled"];
        for (given, meant) in [
            ("intervall", Some("interval")),
            ("timeuot", Some("timeout")),
            ("Timeout", Some("timeout")),
            ("workingDirectory", Some("working_directory")),
            ("working-directory", Some("working_directory")),
            ("env", Some("environment")),
            ("cwd", Some("working_directory")),
            ("autostart", Some("enabled")),
            ("tpye", Some("type")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
    }

    #[test]
    fn names_may_be_shortened() {
        let known = ["architect-prod", "architect-qa", "reading-app", "pharma"];
        for (asked, meant) in [
            ("architect-prd", Some("architect-prod")),
            ("architect-rpod", Some("architect-prod")),
            ("Pharma", Some("pharma")),
            ("pharam", Some("pharma")),
            ("reading", Some("reading-app")),
            ("qa", None),
            ("postgres", None),
            ("", None),
            (&"x".repeat(1000), None),
        ] {
            assert_eq!(nearest_name(asked, known), meant, "{asked:?}");
        }
    }

    proptest! {
        #[test]
        fn one_slip_is_always_found(word in "[a-z]{5,20}", at in 0usize..20, extra in "[a-z]") {
            let at = at.min(word.len());
            let mut slipped = word.clone();
            slipped.insert_str(at, &extra);
            prop_assert_eq!(nearest(&slipped, ["0123456789", word.as_str()]), Some(word.as_str()));
        }

        #[test]
        fn any_words_can_be_compared(given: String, known: Vec<String>) {
            nearest(&given, known.iter().map(String::as_str));
        }
    }
}
