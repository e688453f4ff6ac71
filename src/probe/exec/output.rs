//! What a check prints: the beginning is kept, the rest is thrown away.

use std::io::Read;

use crate::mask::Mask;

/// Kept of what a check prints, in bytes.
const KEPT: usize = 4 << 10;
/// Shown of a line, in characters.
const SHOWN: usize = 200;

pub(super) struct Output {
    kept: Vec<u8>,
    cut: bool,
    mask: Mask,
}

impl Output {
    /// What `mask` hides is not shown, wherever it stands in a line.
    pub fn new(mask: Mask) -> Self {
        Self { kept: Vec::new(), cut: false, mask }
    }

    /// Reads once; `false` at the end.
    pub fn read_some(&mut self, from: &mut impl Read) -> bool {
        let mut chunk = [0; 16 << 10];
        match from.read(&mut chunk) {
            Ok(0) => false,
            Ok(read) => {
                let room = KEPT.saturating_sub(self.kept.len()).min(read);
                self.kept.extend_from_slice(&chunk[..room]);
                self.cut |= room < read;
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::Interrupted,
        }
    }

    /// The last line that says something: there a program puts its conclusion. Of longer output, the last whole line
    /// of the beginning.
    pub fn last_line(&self) -> Option<String> {
        let mut text = self.mask.hide(String::from_utf8_lossy(&self.kept).into_owned());
        if self.cut {
            // Half a line may end in half a secret.
            text.truncate(text.rfind('\n')?);
        }
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Some(line.chars().map(plain).take(SHOWN).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8], secrets: &[&str]) -> Option<String> {
        let mut output = Output::new(Mask::new(secrets.iter().copied()));
        let mut rest = text;
        while output.read_some(&mut rest) {}
        assert!(output.kept.len() <= KEPT);
        output.last_line()
    }

    #[test]
    fn the_last_line_is_shown_and_no_more_than_the_beginning_is_kept() {
        for (text, shown) in [
            (&b""[..], None),
            (b"\n \n", None),
            (b"one\ntwo\n\n", Some("two")),
            (b"a\x1b[31mred\xff\n", Some("a [31mred\u{fffd}")),
        ] {
            assert_eq!(line(text, &[]).as_deref(), shown);
        }
        assert_eq!(line(&[b'x'; 1000], &[]).unwrap().len(), SHOWN);
        let long = ["first\n".repeat(600), "x".repeat(9000), "\nlast".into()].concat();
        assert_eq!(line(long.as_bytes(), &[]).as_deref(), Some("first"));
        assert_eq!(line(&[b'x'; 9000], &[]), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let secrets = ["hunter2"];
        assert_eq!(line(b"x hunter2", &secrets).as_deref(), Some("x ***"));
        let at_the_edge = [&vec![b'\n'; KEPT - 3][..], b"hunter2 ", &[b'x'; 5000]].concat();
        assert_eq!(line(&at_the_edge, &secrets), None);
    }
}
