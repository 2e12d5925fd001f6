//! Reads one ClientHello out of its TLS records: bytes in, one of three answers out.
//!
//! What it is for: telling whom a peer asks for and what it offers to speak, before anybody answers
//! it. What it never does: read a socket, complete a handshake, repair what is written wrong, or
//! look behind the hello. Follows RFC 8446 §4.1.2, §4.2 and §5.1, RFC 5246 §7.4.1.2, RFC 6066 §3 and
//! RFC 7301 §3.1, in all that a server must be able to read; what a site's server makes of the rest
//! is its own affair.
//!
//! As in [`head`](super::head), the verdict is a function of the shortest prefix that settles it:
//! whoever parses a growing buffer gets `NeedMore` until one other answer, and that answer for every
//! longer buffer, however the bytes were cut into segments. An unfinished hello costs one step for
//! each record that has begun, so one step for each segment of what clients send; at worst, 16 KiB
//! as records of one octet in segments of one octet, 22 million steps in all, an eighth of a second.
//! The structure is read once, when the hello is whole, in less than a microsecond.

use std::borrow::Cow;

use super::octets::{CLIENT_HELLO, HANDSHAKE, Octets, RECORD_HEADER_BYTES};
use crate::gate::Reason;
use crate::gate::tls::{ACME_TLS, Hello, Offer, ServerName};

/// The most octets of a hello with its record headers. Ours: post-quantum hellos have about 1,800
/// octets, those that resume with large tickets some thousand.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

/// The longest server name that is looked at; longer ones are no DNS names in any form.
const MAX_SERVER_NAME_BYTES: usize = 255;

/// The most octets in one record (RFC 8446 §5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;
const HANDSHAKE_HEADER_BYTES: usize = 4;

/// The first octet of every version from SSL 3.0 to TLS 1.3. The second one says nothing: a
/// server must ignore it in records (RFC 8446 §5.1).
const MAJOR_VERSION: u8 = 3;

/// Extension types (IANA, TLS ExtensionType Values).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const EARLY_DATA: u16 = 42;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// `host_name`, of the name types of a server name list.
const HOST_NAME: u8 = 0;

/// What the bytes so far are.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'bytes> {
    /// A whole, well-formed ClientHello.
    Complete(ClientHello<'bytes>),
    /// The beginning of something that may become one.
    NeedMore,
    /// Nothing that could follow makes a ClientHello of this.
    Refused(Reason),
}

/// A well-formed ClientHello. Nothing in it is believed yet.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientHello<'bytes> {
    /// Where the records that hold it end; what is behind them is ignored.
    pub length: usize,
    server_name: Name<'bytes>,
    offer: Offer,
    has_early_data: bool,
}

/// As [`ServerName`], but a name that was scattered over records is owned.
#[derive(Debug, PartialEq, Eq)]
enum Name<'bytes> {
    Missing,
    Malformed,
    Value(Cow<'bytes, str>),
}

impl ClientHello<'_> {
    /// What the gate wants to know of it.
    pub fn hello(&self) -> Hello<'_> {
        Hello {
            server_name: match &self.server_name {
                Name::Missing => ServerName::Missing,
                Name::Malformed => ServerName::Malformed,
                Name::Value(name) => ServerName::Value(name),
            },
            offer: self.offer,
            has_early_data: self.has_early_data,
        }
    }
}

/// Parses the bytes received so far. No buffer of [`MAX_HELLO_BYTES`] or longer needs more.
///
/// Refusals are [`Reason::NotTls`], [`Reason::MalformedHello`] and [`Reason::HelloTooLarge`].
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let extent = match extent(bytes) {
        Ok(Some(extent)) => extent,
        Ok(None) => return Parsed::NeedMore,
        Err(reason) => return Parsed::Refused(reason),
    };
    let length = extent.length;
    let understood = match extent.is_in_one_record {
        true => understand(&bytes[RECORD_HEADER_BYTES + HANDSHAKE_HEADER_BYTES..length])
            .map(|hello| own(length, &hello, Cow::Borrowed)),
        false => understand(&joined(&bytes[..length])[HANDSHAKE_HEADER_BYTES..])
            .map(|hello| own(length, &hello, |name| Cow::Owned(name.to_owned()))),
    };
    match understood {
        Some(hello) => Parsed::Complete(hello),
        None => Parsed::Refused(Reason::MalformedHello),
    }
}

/// Where a whole ClientHello is.
struct Extent {
    /// The octets of its records.
    length: usize,
    is_in_one_record: bool,
}

/// Walks the records up to the end of the ClientHello, in the order of the bytes. `None` needs more.
fn extent(bytes: &[u8]) -> Result<Option<Extent>, Reason> {
    let mut header = [0; HANDSHAKE_HEADER_BYTES];
    // Octets of `header` that are known; octets of the hello that the records up to here hold.
    let (mut known, mut held) = (0, 0);
    let mut at = 0;
    loop {
        // Not even a record of one octet would fit.
        if at + RECORD_HEADER_BYTES >= MAX_HELLO_BYTES {
            return Err(Reason::HelloTooLarge);
        }
        let Some(length) = record(&bytes[at..], at == 0)? else {
            return Ok(None);
        };
        let start = at + RECORD_HEADER_BYTES;
        let end = start + length;
        if end > MAX_HELLO_BYTES {
            return Err(Reason::HelloTooLarge);
        }
        let fragment = &bytes[start..end.min(bytes.len())];
        // known >= held while the header is unfinished: what earlier records hold was read.
        while known < header.len()
            && let Some(byte) = fragment.get(known - held)
        {
            header[known] = *byte;
            known += 1;
        }
        if known > 0 && header[0] != CLIENT_HELLO {
            return Err(Reason::MalformedHello);
        }
        held += length;
        if known == header.len() {
            let [_, high, middle, low] = header;
            let whole =
                HANDSHAKE_HEADER_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize;
            if whole > MAX_HELLO_BYTES - RECORD_HEADER_BYTES {
                return Err(Reason::HelloTooLarge);
            }
            // A client says nothing after its hello until it is answered, but for early data, which
            // comes in records of another type. So no second message can begin in this one.
            if held > whole {
                return Err(Reason::MalformedHello);
            }
            if held == whole && bytes.len() >= end {
                return Ok(Some(Extent {
                    length: end,
                    is_in_one_record: at == 0,
                }));
            }
        }
        if bytes.len() < end {
            return Ok(None);
        }
        at = end;
    }
}

/// The length of the record that begins here; `None` when its header is not whole.
fn record(bytes: &[u8], is_first: bool) -> Result<Option<usize>, Reason> {
    // Only the first octets tell other protocols from TLS: SSL 2.0 begins with 0x80, HTTP with a
    // letter. Later ones are what a TLS client wrote wrong.
    let other = match is_first {
        true => Reason::NotTls,
        false => Reason::MalformedHello,
    };
    let differs = |at: usize, expected: u8| bytes.get(at).is_some_and(|byte| *byte != expected);
    if differs(0, HANDSHAKE) || differs(1, MAJOR_VERSION) {
        return Err(other);
    }
    let &[_, _, _, high, low, ..] = bytes else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        // RFC 8446 §5.1 forbids empty fragments of handshake messages.
        1..=MAX_RECORD_BYTES => Ok(Some(usize::from(u16::from_be_bytes([high, low])))),
        _ => Err(Reason::MalformedHello),
    }
}

/// What the records of a whole hello hold.
fn joined(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.len());
    while let &[_, _, _, high, low, ref rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (fragment, behind) = rest.split_at(length.min(rest.len()));
        message.extend_from_slice(fragment);
        bytes = behind;
    }
    message
}

fn own<'hello, 'bytes>(
    length: usize,
    hello: &Hello<'hello>,
    name: impl Fn(&'hello str) -> Cow<'bytes, str>,
) -> ClientHello<'bytes> {
    ClientHello {
        length,
        server_name: match hello.server_name {
            ServerName::Missing => Name::Missing,
            ServerName::Malformed => Name::Malformed,
            ServerName::Value(value) => Name::Value(name(value)),
        },
        offer: hello.offer,
        has_early_data: hello.has_early_data,
    }
}

/// Reads the body of the message; `None` if it is malformed.
fn understand(body: &[u8]) -> Option<Hello<'_>> {
    let mut body = Octets(body);
    let [MAJOR_VERSION, _] = body.take(2)? else {
        return None;
    };
    let _random = body.take(32)?;
    let session_id = body.vector8()?;
    let cipher_suites = body.vector16()?;
    let compression_methods = body.vector8()?;
    if session_id.len() > 32
        || cipher_suites.is_empty()
        || !cipher_suites.len().is_multiple_of(2)
        // Uncompressed must be offered, and so there is at least one (RFC 5246 §7.4.1.2).
        || !compression_methods.contains(&0)
    {
        return None;
    }
    let mut hello = Hello {
        server_name: ServerName::Missing,
        offer: Offer::Nothing,
        has_early_data: false,
    };
    // No extensions at all are the form before TLS 1.2, and legal.
    if body.is_empty() {
        return Some(hello);
    }
    let mut extensions = Octets(body.vector16()?);
    if !body.is_empty() {
        return None;
    }
    let mut seen = Seen([0; 1 << 10]);
    let mut is_encrypted = false;
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        // Whoever reads the first and whoever reads the last must not see two different hellos.
        if !seen.insert(kind) {
            return None;
        }
        match kind {
            SERVER_NAME => {
                hello.server_name =
                    server_name(data).map_or(ServerName::Malformed, ServerName::Value);
            }
            ALPN => hello.offer = offer(data)?,
            EARLY_DATA if data.is_empty() => hello.has_early_data = true,
            EARLY_DATA => return None,
            ENCRYPTED_CLIENT_HELLO => is_encrypted = true,
            _ => {}
        }
    }
    // To a server that has the key, what is encrypted is the true hello and may offer anything, so
    // this is no offer of exactly one name. Validators encrypt nothing.
    if is_encrypted && hello.offer == Offer::AcmeTls {
        hello.offer = Offer::AcmeTlsAmongOthers;
    }
    Some(hello)
}

/// Reads the data of a server name extension: exactly one host name (RFC 6066 §3).
fn server_name(data: &[u8]) -> Option<&str> {
    let mut data = Octets(data);
    let mut list = Octets(data.vector16()?);
    let [HOST_NAME] = list.take(1)? else {
        return None;
    };
    let name = list.vector16()?;
    // Two names would be for the server to choose from: one more way to be seen as two.
    let is_one = list.is_empty() && data.is_empty();
    let fits = (1..=MAX_SERVER_NAME_BYTES).contains(&name.len());
    match is_one && fits && name.iter().all(u8::is_ascii_graphic) {
        true => str::from_utf8(name).ok(),
        false => None,
    }
}

/// Reads the data of an ALPN extension: at least one name, none of them empty (RFC 7301 §3.1).
fn offer(data: &[u8]) -> Option<Offer> {
    let mut data = Octets(data);
    let mut names = Octets(data.vector16()?);
    if names.is_empty() || !data.is_empty() {
        return None;
    }
    let (mut count, mut has_acme_tls) = (0, false);
    while !names.is_empty() {
        let name = names.vector8()?;
        if name.is_empty() {
            return None;
        }
        count += 1;
        has_acme_tls |= name == ACME_TLS;
    }
    Some(match (has_acme_tls, count) {
        (true, 1) => Offer::AcmeTls,
        (true, _) => Offer::AcmeTlsAmongOthers,
        (false, _) => Offer::Others,
    })
}

/// The extension types that were there: a bit for each, so that thousands of them cost no more than
/// a pass.
struct Seen([u64; 1 << 10]);

impl Seen {
    /// Whether this one is new.
    fn insert(&mut self, kind: u16) -> bool {
        let (word, bit) = (usize::from(kind >> 6), 1 << (kind & 63));
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests;
