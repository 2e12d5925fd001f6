//! A responder's ServerHello, as far as it says what may follow it (RFC 8446 §4.1.3, RFC 5246
//! §7.4.1.3).
//!
//! What it never does: choose anything, or read what is encrypted.

use crate::front::octets::Octets;

const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: usize = 43;
/// RFC 8446 §4.1.3: the random of a HelloRetryRequest.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a ServerHello says of what follows.
pub(super) struct ServerHello {
    pub(super) suite: u16,
    pub(super) is_tls13: bool,
    pub(super) is_retry: bool,
    /// Octets of the message, its header included.
    pub(super) length: usize,
}

/// What a cipher suite of TLS 1.3 makes of the two messages that a peer may encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    number: u16,
    pub(super) finished_bytes: usize,
    pub(super) alert_bytes: usize,
}

impl Suite {
    /// RFC 8446 §4.4.4 and §5.2: the message's header and hash, one octet of type, and the tag.
    pub(super) fn new(number: u16) -> Option<Self> {
        let (hash, tag) = match number {
            0x1301 | 0x1303 | 0x1304 => (32, 16),
            0x1302 => (48, 16),
            0x1305 => (32, 8),
            _ => return None,
        };
        Some(Self {
            number,
            finished_bytes: 4 + hash + 1 + tag,
            alert_bytes: 2 + 1 + tag,
        })
    }
}

impl ServerHello {
    /// RFC 8446 §4.1.3, RFC 5246 §7.4.1.3. `None` for other messages, other versions, and what is
    /// not whole.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut bytes = Octets(payload);
        let (message, length) = (bytes.number(1)?, bytes.number(3)?);
        let mut body = Octets(bytes.take(length)?);
        let version = body.number(2)?;
        let random = body.take(32)?;
        let session = body.number(1)?;
        body.take(session)?;
        let suite = u16::try_from(body.number(2)?).ok()?;
        body.number(1)?;
        let mut is_tls13 = false;
        if !body.is_empty() {
            let length = body.number(2)?;
            let mut extensions = Octets(body.take(length)?);
            while !extensions.is_empty() {
                let (kind, length) = (extensions.number(2)?, extensions.number(2)?);
                let content = extensions.take(length)?;
                if kind == SUPPORTED_VERSIONS {
                    if content != [3, 4] {
                        return None;
                    }
                    is_tls13 = true;
                }
            }
        }
        let is_fit = message == usize::from(SERVER_HELLO) && version == 0x0303;
        (is_fit && body.is_empty()).then_some(Self {
            suite,
            is_tls13,
            is_retry: random == RETRY,
            length: 4 + length,
        })
    }
}
