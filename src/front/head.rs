//! Reads one request head: bytes in, one of three answers out.
//!
//! What it is for: finding the end of the head and what is in it, stricter than RFC 9112 asks,
//! because validators send nothing but the plainest requests. What it never does: read a socket,
//! normalise, guess where a line might have ended, or look behind the head.
//!
//! The verdict is a function of the shortest prefix that settles it. So it does not depend on how
//! the bytes were cut into segments: whoever parses a growing buffer gets `NeedMore` until one
//! other answer, and that answer for every longer buffer.

use std::mem::MaybeUninit;

use crate::gate::{Host, MAX_TARGET_BYTES, Reason};

/// The longest request line without its line end (RFC 9112 §3 advises to support 8000 octets;
/// longer ones would only ever be redirected).
pub const MAX_REQUEST_LINE_BYTES: usize = MAX_TARGET_BYTES;
/// The most octets of all field lines together, with their line ends.
pub const MAX_FIELDS_BYTES: usize = 8 * 1024;
/// The most field lines.
pub const MAX_FIELD_LINES: usize = 64;
/// No buffer of this length or longer needs more: one blank line, the request line, the fields and
/// the empty line.
pub const MAX_HEAD_BYTES: usize = 2 + MAX_REQUEST_LINE_BYTES + 2 + MAX_FIELDS_BYTES + 2;

/// The first octet of every TLS record with a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What the bytes so far are.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'bytes> {
    /// A whole, well-formed head.
    Complete(Head<'bytes>),
    /// The beginning of something that may become a head.
    NeedMore,
    /// Nothing that could follow makes a head of this.
    Refused(Reason),
}

/// A well-formed head. Nothing in it is believed yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'bytes> {
    /// The method, case-sensitive.
    pub method: &'bytes str,
    /// The target as it came.
    pub target: &'bytes str,
    /// The Host fields.
    pub host: Host<'bytes>,
    /// The field lines as they came, and the empty one: for what only some peers are believed.
    pub fields: &'bytes [u8],
    /// Where the head ends; what is behind it is ignored.
    pub length: usize,
}

/// Parses the bytes received so far.
///
/// Refusals are [`Reason::NotHttp1`], [`Reason::MalformedHead`], [`Reason::TargetTooLong`],
/// [`Reason::HeadTooLarge`] and, for the methods that the gate knows, [`Reason::Body`].
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Parsed::Refused(Reason::NotHttp1);
    }
    match end_of_head(bytes) {
        Ok(Some(Lines { start, fields, end })) => match understand(&bytes[start..end]) {
            Ok(head) => Parsed::Complete(Head {
                fields: &bytes[fields..end],
                length: end,
                ..head
            }),
            Err(reason) => Parsed::Refused(reason),
        },
        Ok(None) => Parsed::NeedMore,
        Err(reason) => Parsed::Refused(reason),
    }
}

/// Where the parts of a head begin: its request line, its field lines, and what is behind it.
struct Lines {
    start: usize,
    fields: usize,
    end: usize,
}

/// Walks the lines up to the empty one: octets, line ends, sizes and the version, in the order of
/// the bytes. `None` needs more.
fn end_of_head(bytes: &[u8]) -> Result<Option<Lines>, Reason> {
    // RFC 9112 §2.2 lets a server ignore at least one empty line; we ignore at most one.
    let start = match line(bytes, MAX_REQUEST_LINE_BYTES, Reason::TargetTooLong)? {
        None => return Ok(None),
        Some([]) => 2,
        Some(_) => 0,
    };
    let mut at = match line(
        &bytes[start..],
        MAX_REQUEST_LINE_BYTES,
        Reason::TargetTooLong,
    )? {
        None => return Ok(None),
        Some([]) => return Err(Reason::MalformedHead),
        Some(request_line) => {
            speaks_http1(request_line)?;
            start + request_line.len() + 2
        }
    };
    let fields = at;
    let fields_end = fields + MAX_FIELDS_BYTES;
    for lines in 0..=MAX_FIELD_LINES {
        let room = match lines {
            MAX_FIELD_LINES => 0,
            _ => (fields_end - at).saturating_sub(2),
        };
        match line(&bytes[at..], room, Reason::HeadTooLarge)? {
            None => return Ok(None),
            Some([]) => {
                let end = at + 2;
                return Ok(Some(Lines { start, fields, end }));
            }
            Some(field_line) => at += field_line.len() + 2,
        }
    }
    // Not reached: the last turn has no room for anything but the empty line.
    Err(Reason::HeadTooLarge)
}

/// The line at the beginning of `bytes`, without its CRLF; `None` when it has no end yet. Printable
/// ASCII only: a control character, a bare CR or LF and every octet from 0x80 are refused.
fn line(bytes: &[u8], max: usize, too_long: Reason) -> Result<Option<&[u8]>, Reason> {
    // One octet more than fits is looked at: it is the one that says that the line is too long.
    let seen = &bytes[..bytes.len().min(max + 1)];
    let printable = |byte: &u8| matches!(byte, 0x20..=0x7e);
    match seen.iter().position(|byte| !printable(byte)) {
        None if seen.len() > max => Err(too_long),
        None => Ok(None),
        Some(end) if seen[end] != b'\r' => Err(Reason::MalformedHead),
        Some(end) => match bytes.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&bytes[..end])),
            Some(_) => Err(Reason::MalformedHead),
        },
    }
}

/// Sorts out other protocols, as early as they can be told.
fn speaks_http1(request_line: &[u8]) -> Result<(), Reason> {
    // RFC 9113 §3.4: what a client sends that knows the server to speak HTTP/2.
    if request_line == b"PRI * HTTP/2.0" {
        return Err(Reason::NotHttp1);
    }
    let mut words = request_line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Ok(()),
        // The simple request of HTTP/0.9 knows no status, so there is nothing to say to it.
        (Some(b"GET"), Some([b'/', ..]), None, None) => Err(Reason::NotHttp1),
        _ => Err(Reason::MalformedHead),
    }
}

/// Reads the fields of a whole head, whose lines are known to be clean.
fn understand(head: &[u8]) -> Result<Head<'_>, Reason> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELD_LINES];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        // Where httparse and the walk above disagree about the end, nobody shall guess.
        _ => return Err(Reason::MalformedHead),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Reason::MalformedHead);
    };
    let mut host = Host::Missing;
    let (mut upgrades, mut lengths, mut has_body) = (false, 0, false);
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("host") {
            let value = str::from_utf8(field.value).map_err(|_| Reason::MalformedHead)?;
            host = match host {
                Host::Missing => Host::Value(value),
                Host::Value(_) | Host::Repeated => Host::Repeated,
            };
        } else if is("content-length") {
            lengths += 1;
            has_body |= field.value != b"0" || lengths > 1;
        } else if is("transfer-encoding") {
            has_body = true;
        } else if is("upgrade") {
            upgrades |= names_h2c(field.value);
        }
    }
    if upgrades {
        return Err(Reason::NotHttp1);
    }
    // Other methods may announce a body; the gate refuses them for what they are.
    if has_body && matches!(method, "GET" | "HEAD") {
        return Err(Reason::Body);
    }
    Ok(Head {
        method,
        target,
        host,
        fields: &[],
        length: head.len(),
    })
}

/// Whether an Upgrade field names cleartext HTTP/2 (RFC 7540 §3.2, withdrawn by RFC 9113).
fn names_h2c(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests;
