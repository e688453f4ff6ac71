//! supervisord's files, read as Python's `RawConfigParser` reads them for it: `;` and `#` begin a comment at the start of a
//! line or after white space, `=` or `:` end a key, a deeper line goes on with the value before it, and of two equal keys
//! the later one counts. An INI library reads other files than that.

use super::Report;

/// One option, where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// In small letters.
    pub key: String,
    pub value: String,
    pub file: String,
    pub line: usize,
}

/// One section; all parts of it with that name are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub name: String,
    pub file: String,
    pub line: usize,
    pub fields: Vec<Field>,
}

impl Section {
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key == key)
    }
}

/// Adds what `text` has to `sections`. The error says where, and what was expected.
pub(super) fn read(
    file: &str,
    text: &str,
    sections: &mut Vec<Section>,
    report: &mut Report,
) -> Result<(), String> {
    let mut current: Option<usize> = None;
    // The option that a deeper line goes on with, and how deep its own line is.
    let (mut open, mut depth): (Option<String>, usize) = (None, 0);
    for (number, line) in
        text.trim_start_matches('\u{feff}').lines().enumerate().map(|(n, line)| (n + 1, line))
    {
        let bare = without_comment(line);
        let value = bare.trim();
        let indent = line.len() - line.trim_start().len();
        if value.is_empty() {
            if bare.len() == line.len()
                && let Some(field) = field_of(sections, current, open.as_deref())
            {
                field.value.push('\n');
            }
            continue;
        }
        if indent > depth
            && let Some(field) = field_of(sections, current, open.as_deref())
        {
            field.value.push('\n');
            field.value.push_str(value);
            continue;
        }
        depth = indent;
        if let Some(name) =
            value.strip_prefix('[').and_then(|rest| Some(&rest[..rest.rfind(']')?])).filter(|n| !n.is_empty())
        {
            current = Some(section_at(sections, name, file, number));
            open = None;
            continue;
        }
        let Some(section) = current.and_then(|at| sections.get_mut(at)) else {
            return Err(format!(
                "{file}:{number}: a section such as [program:web] is expected before the first key"
            ));
        };
        let Some(at) = value.find(['=', ':']).filter(|at| *at > 0) else {
            return Err(format!(
                "{file}:{number}: a line \"key=value\" is expected, not \"{}\"",
                value.escape_debug()
            ));
        };
        let key = value[..at].trim_end().to_lowercase();
        let field =
            Field { key: key.clone(), value: value[at + 1..].trim().into(), file: file.into(), line: number };
        if let Some(old) = section.fields.iter().position(|old| old.key == key) {
            let old = section.fields.remove(old);
            report.dropped(
                &old,
                &section.name,
                &format!("{}:{} sets it again, which counts", field.file, field.line),
            );
        }
        section.fields.push(field);
        open = Some(key);
    }
    for section in sections.iter_mut() {
        section.fields.iter_mut().for_each(|field| field.value.truncate(field.value.trim_end().len()));
    }
    Ok(())
}

fn field_of<'a>(
    sections: &'a mut [Section],
    current: Option<usize>,
    key: Option<&str>,
) -> Option<&'a mut Field> {
    sections.get_mut(current?)?.fields.iter_mut().find(|field| Some(field.key.as_str()) == key)
}

fn section_at(sections: &mut Vec<Section>, name: &str, file: &str, line: usize) -> usize {
    if let Some(at) = sections.iter().position(|section| section.name == name) {
        return at;
    }
    sections.push(Section { name: name.into(), file: file.into(), line, fields: Vec::new() });
    sections.len() - 1
}

/// Up to a `;` or `#` at the start of the line or after white space.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with([';', '#']) {
        return "";
    }
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if (c == ';' || c == '#') && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// `%(name)s`, `%(process_num)02d`, `%%`, as Python's `%` makes them.
pub(super) fn expand(text: &str, name: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let named = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let Some((wanted, after)) = named else {
            return Err("a \"%\" that is none has to be written \"%%\"".into());
        };
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (width, after) = after.split_at(digits);
        let kind = after.chars().next().filter(|kind| matches!(kind, 's' | 'd'));
        let Some(kind) = kind else { return Err(format!("%({wanted}) has to end with s or d")) };
        let value = name(wanted).ok_or_else(|| {
            let hint =
                if wanted.starts_with("ENV_") { "; set it in the environment of this command" } else { "" };
            format!("%({wanted}){kind} is not known{hint}")
        })?;
        let zeros = width.starts_with('0') && kind == 'd';
        let width = width.parse::<usize>().unwrap_or(0).min(64);
        if zeros {
            out.push_str(&format!("{value:0>width$}"))
        } else {
            out.push_str(&format!("{value:>width$}"))
        }
        rest = &after[1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Words of a command, as Python's `shlex.split` makes them: no shell is involved.
pub(super) fn words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) =
        (Vec::new(), None, None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => {
                let next = chars.next().ok_or("it ends with a backslash")?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => {
                word.get_or_insert_default().push(chars.next().ok_or("it ends with a backslash")?)
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// `KEY="value",KEY2=value2`, with the rules of supervisord: a value with a comma, a space or a sign needs quotes.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let tokens = tokens(text)?;
    let mut pairs = Vec::new();
    for part in tokens.chunks(4) {
        match part {
            [key, equals, value, rest @ ..]
                if equals == "=" && rest.first().is_none_or(|comma| comma == ",") =>
            {
                pairs.push((key.clone(), value.trim_matches(['\'', '"']).to_owned()));
            }
            _ => {
                return Err(
                    "KEY=\"value\",KEY2=\"value2\" is expected; put quotes around values with signs in them"
                        .into(),
                );
            }
        }
    }
    Ok(pairs)
}

/// As `shlex.shlex` splits without POSIX rules, with `/.+-():` in words.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let in_word = |c: char| c.is_alphanumeric() || "_/.+-():".contains(c);
    let (mut tokens, mut chars) = (Vec::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '\'' | '"' => {
                let mut token = String::from(c);
                loop {
                    let next = chars.next().ok_or("a quote is not closed")?;
                    token.push(next);
                    if next == c {
                        break;
                    }
                }
                tokens.push(token);
            }
            c if in_word(c) => {
                let mut token = String::from(c);
                while let Some(next) = chars.next_if(|c| in_word(*c) || *c == '\'' || *c == '"') {
                    token.push(next);
                }
                tokens.push(token);
            }
            c => tokens.push(c.into()),
        }
    }
    Ok(tokens)
}
