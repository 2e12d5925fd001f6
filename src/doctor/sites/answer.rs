//! An HTTP answer as it was heard, its content perhaps cut off.
//!
//! It is believed by nobody: it is compared with what was put up.

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its field lines.
    pub fields: String,
    /// Its content, as far as it was read.
    pub content: Vec<u8>,
}

impl Answer {
    /// Reads an answer whose head is whole; `None` if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..at]);
        let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        let mut words = first.split(' ');
        words.next()?.strip_prefix("HTTP/1.")?;
        // Three digits of which the first is no nought (RFC 9110 §15).
        let status = words.next().filter(|word| word.len() == 3)?.parse().ok();
        Some(Self {
            status: status.filter(|status| *status >= 100)?,
            fields: fields.to_owned(),
            content: bytes[at + 4..].to_vec(),
        })
    }

    /// The first value of a field.
    pub fn field(&self, wanted: &str) -> Option<&str> {
        self.fields.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }

    /// Whether it has the fields that the gate gives every answer, and no Server field, which it never gives.
    pub fn is_the_gates(&self) -> bool {
        self.field("server").is_none() && self.field("x-content-type-options") == Some("nosniff")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gates_answers_are_told_from_others() {
        let answer = |text: &str| Answer::parse(text.as_bytes()).unwrap();
        let ours = answer(
            "HTTP/1.1 404 Not Found\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nno",
        );
        assert!(ours.is_the_gates());
        assert_eq!((ours.status, ours.content.as_slice()), (404, &b"no"[..]));
        let theirs = answer("HTTP/1.1 301 Moved\r\nServer: nginx\r\nLocation: https://a/\r\n\r\n");
        assert!(!theirs.is_the_gates());
        assert_eq!(theirs.field("location"), Some("https://a/"));
        assert_eq!(Answer::parse(b"HTTP/1.1 200 OK\r\nHalf: a head\r\n"), None);
        assert_eq!(Answer::parse(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn a_status_has_three_digits() {
        for status in ["+20", "020", "20", "2000", "2 00", ""] {
            let text = format!("HTTP/1.1 {status} OK\r\n\r\n");
            assert_eq!(Answer::parse(text.as_bytes()), None, "{status}");
        }
    }
}
