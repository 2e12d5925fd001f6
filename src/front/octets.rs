//! Reads TLS structures off the front of bytes (RFC 8446 §3), and the numbers of records that both
//! readers of handshakes need. What it never does: look at what the octets mean.

/// The octets of a record's header (RFC 8446 §5.1).
pub(super) const RECORD_HEADER_BYTES: usize = 5;
/// `handshake`, of the record types.
pub(super) const HANDSHAKE: u8 = 22;
/// `client_hello`, of the handshake types.
pub(super) const CLIENT_HELLO: u8 = 1;

/// What has not been read yet. `None` from any of its ways means that there is too little.
pub(super) struct Octets<'bytes>(pub(super) &'bytes [u8]);

impl<'bytes> Octets<'bytes> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'bytes [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of two octets.
    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.as_array()?))
    }

    /// A number of so many octets, four at most.
    pub(super) fn number(&mut self, octets: usize) -> Option<usize> {
        let taken = self.take(octets)?;
        let number = taken
            .iter()
            .fold(0, |sum, &octet| sum << 8 | usize::from(octet));
        Some(number)
    }

    /// A vector with a length of one octet in front.
    pub(super) fn vector8(&mut self) -> Option<&'bytes [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(usize::from(length))
    }

    /// A vector with a length of two octets in front.
    pub(super) fn vector16(&mut self) -> Option<&'bytes [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}
