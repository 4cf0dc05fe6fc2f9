//! How deep a body is nested: engines answer one that is too deep for them as if they were broken.

use memchr::memchr2;

use crate::refusal::Refusal;

/// Levels of arrays and objects; as many as this program reads itself.
const DEEPEST: usize = 128;

/// Checks a body that need not be JSON.
///
/// # Errors
/// [`Refusal::BadRequest`] when it is nested too deep.
pub(super) fn check(body: &[u8]) -> Result<(), Refusal> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_text(body, at),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            let message = format!("the request is nested too deep: at most {DEEPEST} levels of arrays and objects");
            return Err(Refusal::BadRequest(message));
        }
    }
    Ok(())
}

/// Behind the text that began before `at`.
fn end_of_text(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if body[at - 1] == b'"' {
            return at;
        }
        // What is escaped ends nothing.
        at += 1;
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        let objects = levels / 2;
        format!(
            "{}{}0{}{}",
            "{\"a\":".repeat(objects),
            "[".repeat(levels - objects),
            "]".repeat(levels - objects),
            "}".repeat(objects)
        )
    }

    #[test]
    fn so_many_levels_are_taken_and_no_more() {
        assert_eq!(check(nested(DEEPEST).as_bytes()), Ok(()));
        assert!(check(nested(DEEPEST + 1).as_bytes()).is_err());
        assert!(check("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn levels_that_are_closed_count_no_more() {
        assert_eq!(check(format!("[{}0]", "[[]],{},".repeat(1000)).as_bytes()), Ok(()));
    }

    #[test]
    fn what_is_in_texts_is_no_level() {
        for text in ["[".repeat(200), format!("\\\"{}", "{".repeat(200)), format!("\\\\\\\"{}", "[".repeat(200))] {
            assert_eq!(check(format!("{{\"a\":\"{text}\"}}").as_bytes()), Ok(()), "{text}");
        }
        let behind = format!("[\"\\\\\",{}", "[".repeat(DEEPEST));
        assert!(check(behind.as_bytes()).is_err());
    }

    #[test]
    fn a_body_that_breaks_off_is_not_its_business() {
        for body in ["", "\"", "\"\\", "[\"abc", "]]]"] {
            assert_eq!(check(body.as_bytes()), Ok(()), "{body}");
        }
    }
}
