//! Text for people: tables that fit the terminal, colours with a meaning, nothing that could steer the terminal.

use unicode_width::UnicodeWidthChar;

/// How to write for the reader at hand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// Columns of the terminal; `None` where there is none, and nothing is shortened.
    pub(super) width: Option<usize>,
    /// Whether colours are understood.
    pub(super) colours: bool,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// On the way, or half well.
    Changing,
    /// Wrong.
    Bad,
    /// Not meant to be.
    Off,
    /// Says nothing.
    Plain,
    /// Head of a table.
    Head,
}

/// A cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clean(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Columns aligned, two spaces between them. The last column is shortened to the width, so that no line wraps.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[Cell; N]], style: Style) -> String {
    let head = head.map(|text| Cell::new(text, Tone::Head));
    let all = || std::iter::once(&head).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| all().map(|row| width(&row[column].text)).max().unwrap_or(0));
    let mut text = String::new();
    for row in all() {
        let mut used = 0;
        for (column, cell) in row.iter().enumerate() {
            if column + 1 < N {
                let padding = " ".repeat(widths[column] - width(&cell.text) + 2);
                text.push_str(&paint(&cell.text, cell.tone, style));
                text.push_str(&padding);
                used += widths[column] + 2;
            } else {
                let room = style.width.map(|width| width.saturating_sub(used).max(12));
                text.push_str(&paint(&shorten(&cell.text, room), cell.tone, style));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// Wraps in the escape codes of its tone.
pub(super) fn paint(text: &str, tone: Tone, style: Style) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Changing => "33",
        Tone::Bad => "31",
        Tone::Off => "2",
        Tone::Head => "1",
        Tone::Plain => "",
    };
    if code.is_empty() || !style.colours || text.is_empty() {
        return text.into();
    }
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// One line, without anything that a terminal obeys: what a service or a file says must not reach it as a command.
pub(super) fn clean(text: &str) -> String {
    let bidi =
        |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    text.trim_end()
        .chars()
        .filter(|c| !bidi(*c))
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

pub(super) fn shorten(text: &str, room: Option<usize>) -> String {
    let Some(room) = room.filter(|room| width(text) > *room) else { return text.into() };
    let mut left = room.saturating_sub(1);
    let mut short: String = text
        .chars()
        .take_while(|c| {
            let fits = c.width().unwrap_or(0) <= left;
            left = left.saturating_sub(c.width().unwrap_or(0));
            fits
        })
        .collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_last_is_shortened() {
        let rows = [
            [Cell::from("a"), Cell::from("short")],
            [Cell::from("日本"), Cell::from("a reason that is longer than the line")],
        ];
        let narrow = Style { width: Some(20), colours: false };
        assert_eq!(table(["ID", "WHY"], &rows, narrow), "ID    WHY\na     short\n日本  a reason that…\n");
        assert!(table(["ID", "WHY"], &rows, Style::default()).ends_with("longer than the line\n"));
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let rows = [[Cell::new("up", Tone::Good), Cell::from("x")]];
        let style = Style { width: None, colours: true };
        assert_eq!(
            table(["S", "T"], &rows, style),
            "\x1b[1mS\x1b[0m   \x1b[1mT\x1b[0m\n\x1b[32mup\x1b[0m  x\n"
        );
    }

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(clean("a\x1b[31mb\nc\u{9b}d\u{202e}e\n"), "a\u{fffd}[31mb c\u{fffd}de");
    }
}
