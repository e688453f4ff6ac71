//! The texts of the kernel, read with doubt: what is not as expected is `None`, and nothing here can fail.

/// A file with one number. `max` is none.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    decimal(text.trim_ascii())
}

/// The number after `key` on a line of its own: `nr_periods 12`.
pub(crate) fn keyed(text: &[u8], key: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key)?.strip_prefix(b" ")?;
        decimal(rest.trim_ascii())
    })
}

/// `some avg10=1.23 avg60=..`: 1.23, if it is a share of 100.
pub(crate) fn pressure(text: &[u8]) -> Option<f64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"some "))?;
    let word = words(line).find_map(|word| word.strip_prefix(b"avg10="))?;
    let value: f64 = str::from_utf8(word).ok()?.parse().ok()?;
    (0.0..=100.0).contains(&value).then_some(value)
}

/// Bytes read and written, of all devices, in `io.stat`: `8:0 rbytes=1 wbytes=2 rios=..`. An empty file is zero.
pub(crate) fn io_v2(text: &[u8]) -> (u64, u64) {
    let (mut read, mut written) = (0u64, 0u64);
    for word in text.split(|byte| *byte == b'\n').flat_map(words) {
        if let Some(bytes) = word.strip_prefix(b"rbytes=").and_then(decimal) {
            read = read.saturating_add(bytes);
        } else if let Some(bytes) = word.strip_prefix(b"wbytes=").and_then(decimal) {
            written = written.saturating_add(bytes);
        }
    }
    (read, written)
}

/// The same in `blkio.throttle.io_service_bytes`: `8:0 Read 1`.
pub(crate) fn io_v1(text: &[u8]) -> (u64, u64) {
    let (mut read, mut written) = (0u64, 0u64);
    for line in text.split(|byte| *byte == b'\n') {
        let mut words = words(line);
        let (Some(_device), Some(what), Some(bytes)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let bytes = decimal(bytes).unwrap_or(0);
        match what {
            b"Read" => read = read.saturating_add(bytes),
            b"Write" => written = written.saturating_add(bytes),
            _ => {}
        }
    }
    (read, written)
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn decimal(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(number(b"123456\n"), Some(123_456));
        let stat = b"usage_usec 99\nnr_periods 10\nnr_throttled 4\nthrottled_usec 7\n";
        assert_eq!(keyed(stat, b"nr_throttled"), Some(4));
        assert_eq!(keyed(stat, b"nr_"), None, "a key is a whole word");
        let psi = b"some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0.00\n";
        assert_eq!(pressure(psi), Some(12.5));
        let io = b"8:0 rbytes=100 wbytes=5 rios=1 wios=1 dbytes=0 dios=0\n254:16 rbytes=1 wbytes=2 rios=0\n";
        assert_eq!(io_v2(io), (101, 7));
        assert_eq!(io_v1(b"8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\nTotal 31\n"), (11, 20));
    }

    #[test]
    fn garbage_is_nothing() {
        for text in
            [&b""[..], b"\n\n", b"max\n", b"-1", b"99999999999999999999999", b"\xff\xfe\0", b"some avg10="]
        {
            assert_eq!(number(text), None, "{text:?}");
            assert_eq!(keyed(text, b"max"), None);
            assert_eq!(pressure(text), None);
            assert_eq!((io_v1(text), io_v2(text)), ((0, 0), (0, 0)));
        }
        for text in ["some avg10=nan", "some avg10=inf", "some avg10=-3", "some avg10=101", "full avg10=1"] {
            assert_eq!(pressure(text.as_bytes()), None, "{text}");
        }
        assert_eq!(io_v2(b"rbytes=18446744073709551615\nrbytes=9"), (u64::MAX, 0));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = (number(&text), keyed(&text, b"a"), pressure(&text), io_v1(&text), io_v2(&text));
        }
    }
}
