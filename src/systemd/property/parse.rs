//! Values of unit files: words, sizes, times, signals, masks.

/// Splits as systemd does: blanks separate, `"` and `'` group, a backslash escapes.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().ok_or("a backslash at the end escapes nothing")?;
                word.get_or_insert_default().push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    's' => ' ',
                    '\\' | '"' | '\'' | ' ' => escaped,
                    other => return Err(format!("\\{other} is no escape that is known here")),
                });
            }
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            _ if quote.is_none() && c.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(expected("yes or no", text)),
    }
}

pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| expected("a whole number in its range", text))
}

/// `512M` with steps of `base` (1000 or 1024), or `infinity`.
pub fn size(text: &str, base: u64) -> Result<u64, String> {
    let wrong = || expected("a size such as 512M, 2G or infinity", text);
    let text = text.trim();
    if text == "infinity" {
        return Ok(u64::MAX);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (value, unit) = text.split_at(digits);
    let power = match unit.trim() {
        "" | "B" => 0,
        unit => {
            let mut letters = unit.chars();
            let at = letters.next().and_then(|c| "KMGTPE".find(c)).ok_or_else(wrong)?;
            if !matches!(letters.as_str(), "" | "B" | "iB") {
                return Err(wrong());
            }
            u32::try_from(at).map_err(|_| wrong())? + 1
        }
    };
    scaled(value, base.checked_pow(power).ok_or_else(wrong)?).ok_or_else(wrong)
}

/// `50%` as systemd's share of 2^32 - 1.
pub fn percent_scale(text: &str) -> Option<u32> {
    let permyriad = scaled(text.trim().strip_suffix('%')?, 100).filter(|p| *p <= 10_000)?;
    u32::try_from((permyriad * u64::from(u32::MAX) + 5000) / 10_000).ok()
}

/// A decimal number times `unit`, exactly, rounded down.
fn scaled(value: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let parts = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit);
    let parts = parts / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(u64::try_from(parts).ok()?)
}

const NANO: &[(&str, u64)] = &[
    ("ns", 1),
    ("nsec", 1),
    ("us", 1_000),
    ("usec", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("msec", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("second", 1_000_000_000),
    ("seconds", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("minute", 60_000_000_000),
    ("minutes", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("hr", 3_600_000_000_000),
    ("hour", 3_600_000_000_000),
    ("hours", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("day", 86_400_000_000_000),
    ("days", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
    ("week", 604_800_000_000_000),
    ("weeks", 604_800_000_000_000),
];

/// `1h 30min`, `1.5`, `infinity`, in nanoseconds; a bare number counts in `bare` nanoseconds.
pub fn nanoseconds(text: &str, bare: u64) -> Result<u64, String> {
    let wrong = || expected("a time such as 90, 500ms, 1min 30s or infinity", text);
    let mut rest = text.trim();
    if rest == "infinity" {
        return Ok(u64::MAX);
    }
    let mut total = 0_u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (value, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "" => bare,
            unit => NANO.iter().find(|(name, _)| *name == unit).map(|(_, n)| *n).ok_or_else(wrong)?,
        };
        total = total.checked_add(scaled(value, factor).ok_or_else(wrong)?).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    Ok(total)
}

/// `1h 30min`, `1.5` (seconds), `infinity`, in microseconds.
pub fn microseconds(text: &str) -> Result<u64, String> {
    match nanoseconds(text, 1_000_000_000)? {
        u64::MAX => Ok(u64::MAX),
        nano => Ok(nano / 1000),
    }
}

/// `SIGTERM`, `TERM` or `15`.
pub fn signal_number(text: &str) -> Result<i32, String> {
    let wrong = || expected("a signal such as SIGTERM", text);
    let text = text.trim();
    let number = match text.parse::<i32>() {
        Ok(number) => number,
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            name.parse::<nix::sys::signal::Signal>().map_err(|_| wrong())? as i32
        }
    };
    if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) }
}

/// `0-3,5 7` as systemd's bytes of a CPU mask, lowest first.
pub fn cpu_mask(text: &str) -> Result<Vec<u8>, String> {
    /// Linux knows no machine with more.
    const HIGHEST: usize = 8191;
    let wrong = || expected("CPU numbers such as 0-3,8", text);
    let mut mask = Vec::new();
    for range in text.split([',', ' ', '\t']).filter(|r| !r.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) =
            (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last > HIGHEST {
            return Err(wrong());
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0);
        }
        for cpu in first..=last {
            mask[cpu / 8] |= 1 << (cpu % 8);
        }
    }
    Ok(mask)
}

/// The address, its family and the length of its prefix, for each network that the word means.
pub fn networks(word: &str) -> Result<Vec<(i32, Vec<u8>, u32)>, String> {
    let several = match word {
        "any" => &["0.0.0.0/0", "::/0"][..],
        "localhost" => &["127.0.0.0/8", "::1/128"],
        "link-local" => &["169.254.0.0/16", "fe80::/64"],
        "multicast" => &["224.0.0.0/4", "ff00::/8"],
        _ => &[],
    };
    if !several.is_empty() {
        return several.iter().map(|word| network(word)).collect();
    }
    Ok(vec![network(word)?])
}

fn network(word: &str) -> Result<(i32, Vec<u8>, u32), String> {
    let wrong = || expected("an address such as 10.0.0.0/8, ::1, localhost or any", word);
    let (address, length) = match word.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| wrong())?)),
        None => (word, None),
    };
    let (family, bytes) = match address.parse::<std::net::IpAddr>().map_err(|_| wrong())? {
        std::net::IpAddr::V4(v4) => (nix::libc::AF_INET, v4.octets().to_vec()),
        std::net::IpAddr::V6(v6) => (nix::libc::AF_INET6, v6.octets().to_vec()),
    };
    let most = u32::try_from(bytes.len() * 8).map_err(|_| wrong())?;
    let length = length.unwrap_or(most);
    if length > most {
        return Err(wrong());
    }
    Ok((family, bytes, length))
}

pub fn expected(what: &str, found: &str) -> String {
    format!("expected {what}, found {found:?}")
}
