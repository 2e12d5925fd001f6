//! ClientHellos built octet by octet (RFC 8446 §4.1.2), well-formed or not, in records cut anywhere.
//!
//! For what no TLS library would send. `src/front/client_hello/tests.rs` takes in this very file, so
//! there is nothing in it that needs the rest of the lab.

/// Extension types.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const KEY_SHARE: u16 = 51;
/// X25519MLKEM768, of the named groups.
const X25519_MLKEM768: u16 = 0x11ec;
/// The cipher suites and signature algorithms that Go's library offers.
const SUITES: [u16; 16] = [
    0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014, 0x009c, 0x009d,
    0x002f, 0x1301, 0x1302, 0x1303,
];
const SIGNATURES: [u16; 9] = [
    0x0804, 0x0403, 0x0807, 0x0805, 0x0806, 0x0401, 0x0501, 0x0503, 0x0603,
];

/// What a ClientHello says. Its lengths are always right; what they are lengths of may be anything.
#[derive(Clone, Debug)]
pub struct ClientHello {
    pub version: [u8; 2],
    pub session_id: Vec<u8>,
    pub cipher_suites: Vec<u8>,
    pub compression_methods: Vec<u8>,
    /// `None`: not even a length of them.
    pub extensions: Option<Vec<(u16, Vec<u8>)>>,
    /// What follows the extensions.
    pub rest: Vec<u8>,
}

impl ClientHello {
    /// A plain one of TLS 1.2 and 1.3, without name and ALPN.
    pub fn new() -> Self {
        let key_share = [&[0x00, 0x1d, 0, 32][..], &[9; 32]].concat();
        Self {
            version: [3, 3],
            session_id: vec![7; 32],
            cipher_suites: SUITES
                .iter()
                .flat_map(|suite| suite.to_be_bytes())
                .collect(),
            compression_methods: vec![0],
            extensions: Some(vec![
                (43, vec![4, 3, 4, 3, 3]),
                (10, vec![0, 4, 0x00, 0x1d, 0x00, 0x17]),
                (11, vec![1, 0]),
                (13, vector16(&SIGNATURES.map(u16::to_be_bytes).concat())),
                (KEY_SHARE, vector16(&key_share)),
            ]),
            rest: Vec::new(),
        }
    }

    /// What TLS 1.2 had before there were extensions.
    pub fn bare() -> Self {
        Self {
            extensions: None,
            ..Self::new()
        }
    }

    /// With one more extension.
    pub fn with(mut self, kind: u16, data: impl Into<Vec<u8>>) -> Self {
        let extensions = self.extensions.get_or_insert_default();
        extensions.push((kind, data.into()));
        self
    }

    /// Asks for a name.
    pub fn name(self, name: &str) -> Self {
        self.with(SERVER_NAME, names(&[(0, name.as_bytes())]))
    }

    /// Offers protocols.
    pub fn alpn(self, protocols: &[&str]) -> Self {
        let list: Vec<u8> = protocols.iter().flat_map(vector8).collect();
        self.with(ALPN, vector16(&list))
    }

    /// Offers a hybrid key share as well: what makes hellos longer than a segment.
    pub fn post_quantum(mut self) -> Self {
        let entry = [&X25519_MLKEM768.to_be_bytes()[..], &vector16(&[5; 1216])].concat();
        for (kind, data) in self.extensions.iter_mut().flatten() {
            if *kind == KEY_SHARE {
                let others = data.split_off(2);
                *data = vector16(&[entry.clone(), others].concat());
            }
        }
        self
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_vec();
        body.extend([3; 32]);
        body.extend(vector8(&self.session_id));
        body.extend(vector16(&self.cipher_suites));
        body.extend(vector8(&self.compression_methods));
        if let Some(extensions) = &self.extensions {
            let one =
                |(kind, data): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &vector16(data)].concat();
            body.extend(vector16(
                &extensions.iter().flat_map(one).collect::<Vec<_>>(),
            ));
        }
        body.extend(&self.rest);
        message(1, &body)
    }

    /// The message in one record.
    pub fn record(&self) -> Vec<u8> {
        record(&self.message())
    }
}

/// A handshake message of any type.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("three octets of length");
    [&[kind], &length.to_be_bytes()[1..], body].concat()
}

/// One record of handshake messages.
pub fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector16(fragment)].concat()
}

/// A message in records that end at these places.
pub fn records(message: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut at = 0;
    let mut bytes = Vec::new();
    for cut in cuts.iter().copied().chain([message.len()]) {
        bytes.extend(record(&message[at..cut]));
        at = cut;
    }
    bytes
}

/// The data of a server name extension: names with their types.
pub fn names(list: &[(u8, &[u8])]) -> Vec<u8> {
    let one = |(kind, name): &(u8, &[u8])| [&[*kind][..], &vector16(name)].concat();
    vector16(&list.iter().flat_map(one).collect::<Vec<_>>())
}

/// A vector with a length of one octet in front.
pub fn vector8(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let length = u8::try_from(content.len()).expect("one octet of length");
    [&[length], content].concat()
}

/// A vector with a length of two octets in front.
pub fn vector16(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("two octets of length");
    [&length.to_be_bytes(), content].concat()
}
