//! Values that are not to be shown, and what is shown in their place.

/// Shorter values are words such as `true` or port numbers: they hide nothing, and masking them would hide the text.
/// Bytes.
const SHORTEST: usize = 6;

/// Hides values wherever they stand in a text.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// The longest first: one may be a part of another.
    values: Vec<String>,
}

impl Mask {
    /// Of these. A value of several lines is hidden line by line, as logs show it.
    pub fn new<'v>(values: impl IntoIterator<Item = &'v str>) -> Self {
        let lines = values.into_iter().flat_map(str::lines).filter(|line| line.len() >= SHORTEST);
        let mut values: Vec<String> = lines.map(str::to_owned).collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self { values }
    }

    /// The text with `***` in place of each value.
    pub fn hide(&self, mut text: String) -> String {
        for value in &self.values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), "***");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_whole_wherever_they_stand() {
        let mask = Mask::new(["hunter2", "hunter2-long", "true", "-----BEGIN KEY\nc2VjcmV0\n"]);
        for (text, shown) in [
            ("x hunter2-long, hunter2; true", "x ***, ***; true"),
            ("-----BEGIN KEY", "***"),
            ("key c2VjcmV0!", "key ***!"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(mask.hide(text.into()), shown);
        }
    }
}
