//! The `environment_file` of a service, as systemd reads it.

use std::collections::BTreeMap;
use std::io::Read;

/// As much as systemd reads of a file, in bytes.
const LONGEST: u64 = 4 << 20;

/// The variables that it sets. Fails where there is no regular file, or none of UTF-8. Blocks.
pub fn read(path: &str) -> std::io::Result<BTreeMap<String, String>> {
    // A pipe would hold us for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| std::io::Error::other("not UTF-8"))?;
    Ok(parse(&text))
}

/// As `man systemd.exec` describes `EnvironmentFile=`: quotes, backslashes, comments. Lines that set nothing are
/// passed over.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let line_end = rest.find('\n').unwrap_or(rest.len());
        match rest[..line_end].split_once('=') {
            Some((name, _)) if !rest.starts_with(['#', ';']) => {
                let mut value = Value::default();
                let after = value.take(&rest[name.len() + 1..]);
                let name = name.trim();
                let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
                if !name.is_empty()
                    && name.chars().all(word)
                    && !name.starts_with(|c: char| c.is_ascii_digit())
                {
                    variables.insert(name.into(), value.text);
                }
                rest = after.trim_start();
            }
            _ => rest = rest[line_end..].trim_start(),
        }
    }
    variables
}

#[derive(Default)]
struct Value {
    text: String,
    quote: Option<char>,
    /// Up to where white space is part of the value.
    solid: usize,
}

impl Value {
    /// Takes the value and gives what comes after its line.
    fn take<'t>(&mut self, text: &'t str) -> &'t str {
        let text = text.trim_start_matches([' ', '\t']);
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match (self.quote, c) {
                (None, '\n') => {
                    self.text.truncate(self.solid);
                    return &text[at + 1..];
                }
                (None, '"' | '\'') if self.quotes_may_begin() => self.quote = Some(c),
                (Some(quote), c) if c == quote => {
                    self.quote = None;
                    self.solid = self.text.len();
                }
                (None | Some('"'), '\\') => match chars.next() {
                    Some((_, '\n')) | None => {}
                    Some((_, c)) => {
                        if self.quote.is_some() && !"\"\\`$".contains(c) {
                            self.text.push('\\');
                        }
                        self.keep(c);
                    }
                },
                (None, ' ' | '\t' | '\r') => self.text.push(c),
                _ => self.keep(c),
            }
        }
        if self.quote.is_none() {
            self.text.truncate(self.solid);
        }
        ""
    }

    /// In the midst of an unquoted value they are characters as others.
    fn quotes_may_begin(&self) -> bool {
        self.text.len() == self.solid && self.text.is_empty()
    }

    fn keep(&mut self, c: char) {
        self.text.push(c);
        self.solid = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_systemd_reads_them() {
        let text = "# comment=1\n;c=2\n\nA=plain words  \n B = spaced\nC=\"a \\\"b\\\" \\$x \\n\nsecond\"\nD='raw \\ \"'\n\
                    E=one\\\n two\nnothing here\n9=bad\nF=\nG=a\\ b\\\\\nH=it's\nI=last";
        let expected = [
            ("A", "plain words"),
            ("B", "spaced"),
            ("C", "a \"b\" $x \\n\nsecond"),
            ("D", "raw \\ \""),
            ("E", "one two"),
            ("F", ""),
            ("G", "a b\\"),
            ("H", "it's"),
            ("I", "last"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(parse(text), expected);
    }
}
