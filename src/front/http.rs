//! Writes answers: each header once, and the connection's end in every one of them.
//!
//! What it is for: the few answers that the gate gives. What it never does: name the server, promise
//! HSTS over plain HTTP (RFC 6797 §7.2 forbids it), tell the world more than the status, or read a
//! clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::gate::{Reason, Vouched};

/// How long a redirect may be kept. Browsers keep a 301 for ever unless told otherwise; an hour
/// spares the visits in between and lets a mistake heal.
const REDIRECT_MAX_AGE_SECONDS: u32 = 3600;

/// How visitors are sent to HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectStatus {
    /// 301: what everybody knows.
    #[default]
    MovedPermanently,
    /// 308: the method stays.
    PermanentRedirect,
}

/// What a connection is answered.
#[derive(Debug)]
pub enum Reply<'a> {
    /// 200 and the key authorization.
    KeyAuthorization(&'a Vouched),
    /// The way to HTTPS; the location comes from the gate and is safe for a field.
    Redirect(RedirectStatus, &'a str),
    /// The reason's status, if it has one.
    Refusal(Reason),
}

impl Reply<'_> {
    /// Its status; `None` for reasons that close without a word.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::KeyAuthorization(_) => Some(200),
            Self::Redirect(RedirectStatus::MovedPermanently, _) => Some(301),
            Self::Redirect(RedirectStatus::PermanentRedirect, _) => Some(308),
            Self::Refusal(reason) => reason.status(),
        }
    }
}

/// Renders a whole answer; `None` for reasons that close without a word. To HEAD go GET's fields
/// and no content (RFC 9110 §9.3.2).
pub fn render(reply: &Reply<'_>, is_head: bool, date: &str) -> Option<Vec<u8>> {
    let status = reply.status()?;
    let phrase = phrase(status);
    let (content, content_type) = match reply {
        Reply::KeyAuthorization(answer) => (answer.to_body(), "application/octet-stream"),
        _ => (format!("{status} {phrase}\n"), "text/plain"),
    };
    let mut head = format!(
        "HTTP/1.1 {status} {phrase}\r\n\
         Date: {date}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n",
        content.len()
    );
    match reply {
        Reply::Redirect(_, location) => {
            head.push_str("Location: ");
            head.push_str(location);
            head.push_str(&format!(
                "\r\nCache-Control: max-age={REDIRECT_MAX_AGE_SECONDS}\r\n"
            ));
        }
        // An answer is good for one validation, a refusal perhaps for a second.
        _ => head.push_str("Cache-Control: no-store\r\n"),
    }
    if status == 405 {
        // RFC 9110 §15.5.6 demands it.
        head.push_str("Allow: GET, HEAD\r\n");
    }
    head.push_str("\r\n");
    if !is_head {
        head.push_str(&content);
    }
    Some(head.into_bytes())
}

/// The phrase that RFC 9110 §15 gives a status.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// The Date field (RFC 9110 §6.6.1), rendered once a second.
#[derive(Debug, Default)]
pub struct Dates {
    second: Option<u64>,
    text: String,
}

impl Dates {
    /// The date at `now`. A clock before 1970 is taken for 1970: the field is for display only.
    pub fn at(&mut self, now: SystemTime) -> &str {
        let second = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
            .min(LAST_SECOND);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

/// The end of the year 9999, beyond which an HTTP date cannot be written.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn refusal(reason: Reason) -> String {
        String::from_utf8(render(&Reply::Refusal(reason), false, DATE).unwrap()).unwrap()
    }

    #[test]
    fn every_status_of_a_reason_has_a_phrase_and_every_header_stands_once() {
        for &reason in Reason::ALL {
            let Some(status) = reason.status() else {
                assert!(render(&Reply::Refusal(reason), false, DATE).is_none());
                continue;
            };
            assert_ne!(phrase(status), "", "{reason}");
            let text = refusal(reason);
            let (head, _) = text.split_once("\r\n\r\n").unwrap();
            let mut names: Vec<_> = head
                .lines()
                .skip(1)
                .map(|line| line.split_once(": ").unwrap().0)
                .collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{head}");
            assert!(names.contains(&"Connection") && names.contains(&"Content-Length"));
            assert!(!names.contains(&"Server") && !names.contains(&"Location"));
            assert_eq!(names.contains(&"Allow"), status == 405);
        }
    }

    #[test]
    fn a_refusal_reads_like_this() {
        assert_eq!(
            refusal(Reason::Method),
            "HTTP/1.1 405 Method Not Allowed\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain\r\n\
             Content-Length: 23\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\
             Cache-Control: no-store\r\n\
             Allow: GET, HEAD\r\n\
             \r\n\
             405 Method Not Allowed\n"
        );
    }

    #[test]
    fn head_gets_the_fields_of_get_and_no_content() {
        let reply = Reply::Redirect(RedirectStatus::PermanentRedirect, "https://example.com/a");
        let get = String::from_utf8(render(&reply, false, DATE).unwrap()).unwrap();
        let head = String::from_utf8(render(&reply, true, DATE).unwrap()).unwrap();
        assert!(get.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"));
        assert!(get.contains("\r\nLocation: https://example.com/a\r\n"));
        assert_eq!(
            get.split_once("\r\n\r\n").unwrap().1,
            "308 Permanent Redirect\n"
        );
        assert!(get.starts_with(&head) && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn the_date_follows_the_clock_wherever_it_is_set() {
        let mut dates = Dates::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(dates.at(at(784_111_777)), DATE);
        assert_eq!(dates.at(at(784_111_778)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(dates.at(at(784_111_777)), DATE);
        let early = UNIX_EPOCH - Duration::from_secs(9);
        assert_eq!(dates.at(early), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert!(dates.at(at(LAST_SECOND + 9)).contains("9999"));
    }
}
