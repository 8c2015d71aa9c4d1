//! The number fields of a header: octal text, or two's complement where the first bit is set.

/// The value of a field; none if it is no number or does not fit.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

fn binary(field: &[u8]) -> Option<i64> {
    // The second bit is the sign; the first only says that the field is binary.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = match at {
            0 if negative => *byte,
            0 => byte & 0x7f,
            _ => *byte,
        };
        // Twelve bytes at the most: this cannot overflow.
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let text = field
        .split(|byte| *byte == 0)
        .find(|part| !part.is_empty())
        .unwrap_or_default()
        .trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    i64::from_str_radix(std::str::from_utf8(text).ok()?, 8)
        .ok()
        .filter(|value| *value >= 0)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn fields_are_octal_or_binary() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  644 \0 ", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77777777777)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"64x\0", None),
            (b"-1\0", None),
            (b"9\0", None),
        ] {
            assert_eq!(parse(field), value, "{field:?}");
        }
    }
}
