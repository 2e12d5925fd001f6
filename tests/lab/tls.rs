//! A TLS client that is up to no good: it offers what it is told to, writes its ClientHello in
//! records and segments as it is told to, takes every certificate, and goes on with a request
//! whatever the other side has negotiated. It counts every octet that it gets.
//!
//! Handshakes are rustls's own and real, TLS 1.2 and 1.3, early data included.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::hello;

/// What is asked for as soon as it can be.
pub const REQUEST: &str =
    "GET /page HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n";
/// How long the other side may be silent before it is left. What is refused is closed at once.
const SILENCE: Duration = Duration::from_secs(8);

/// A version of TLS, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub const BOTH: [Self; 2] = [Self::Tls12, Self::Tls13];
}

/// How the ClientHello is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// As rustls does: one record, one segment.
    Plain,
    /// In segments of one octet.
    Segments,
    /// In records of one octet, in segments of one octet.
    Records,
    /// In two records that part in the midst of this text.
    PartedAt(&'static str),
}

/// Sessions of TLS 1.3 to be resumed; clones share them. They are a configuration, for rustls resumes
/// none of another one's.
#[derive(Clone, Debug)]
pub struct Sessions(ClientConfig);

impl Sessions {
    pub fn new() -> Self {
        let mut config = configuration(Version::Tls13);
        config.resumption = Resumption::in_memory_sessions(64);
        config.enable_early_data = true;
        Self(config)
    }
}

/// What a client offers and does.
#[derive(Clone, Debug)]
pub struct Client {
    pub version: Version,
    /// The server name, if one is sent.
    pub name: Option<&'static str>,
    pub alpn: Vec<&'static str>,
    pub writing: Writing,
    /// Resumes a session of these and sends its request before the handshake is complete.
    pub early: Option<Sessions>,
    /// Says nothing after the handshake, as validators do.
    pub is_silent: bool,
}

/// What a client got.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// Every octet, of whatever layer.
    pub octets: usize,
    /// Application data.
    pub data: Vec<u8>,
    /// Whether the handshake came to its end.
    pub is_complete: bool,
    /// Whether early data was sent.
    pub was_early: bool,
    /// What was negotiated by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// The server's certificate, DER.
    pub certificate: Option<Vec<u8>>,
    /// Why it went no further.
    pub error: Option<String>,
}

impl Got {
    /// Application data, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

impl Client {
    /// Asks for a name and offers these protocols.
    pub fn new(version: Version, name: Option<&'static str>, alpn: &[&'static str]) -> Self {
        Self {
            version,
            name,
            alpn: alpn.to_vec(),
            writing: Writing::Plain,
            early: None,
            is_silent: false,
        }
    }

    pub fn writing(self, writing: Writing) -> Self {
        Self { writing, ..self }
    }

    pub fn early(self, sessions: &Sessions) -> Self {
        let early = Some(sessions.clone());
        Self { early, ..self }
    }

    pub fn silent(self) -> Self {
        Self {
            is_silent: true,
            ..self
        }
    }

    /// Does all that on a fresh connection, until the other side ends it.
    pub fn run(&self, mut stream: TcpStream) -> Got {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let mut got = Got::default();
        let mut tls = self.session();
        if self.early.is_some()
            && let Some(mut early) = tls.early_data()
        {
            got.was_early = early.write_all(REQUEST.as_bytes()).is_ok();
        }
        self.write_first(&mut stream, unsent(&mut tls));
        let start = Instant::now();
        let mut has_asked = false;
        let mut buffer = [0; 16 * 1024];
        while start.elapsed() < 2 * SILENCE {
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    got.error.get_or_insert(error.to_string());
                    break;
                }
            };
            got.octets += count;
            let mut has_ended = false;
            match take(&mut tls, &buffer[..count], &mut got.data) {
                Ok(said_goodbye) => has_ended = said_goodbye,
                Err(error) => drop(got.error.get_or_insert(error)),
            }
            if !tls.is_handshaking() && !has_asked {
                has_asked = true;
                got.is_complete = true;
                got.alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
                let own = tls.peer_certificates().and_then(|chain| chain.first());
                got.certificate = own.map(|certificate| certificate.to_vec());
                if !self.is_silent {
                    tls.writer()
                        .write_all(REQUEST.as_bytes())
                        .expect("a buffer");
                }
            }
            // Whoever has closed does not take it any more, and that is seen by the next read.
            let _ = stream.write_all(&unsent(&mut tls));
            if has_ended || got.is_complete && self.is_silent {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
        got
    }

    fn session(&self) -> ClientConnection {
        let mut config = match (&self.early, self.version) {
            (Some(sessions), Version::Tls13) => sessions.0.clone(),
            _ => configuration(self.version),
        };
        let alpn = self.alpn.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = alpn.collect();
        config.enable_sni = self.name.is_some();
        let name = self.name.unwrap_or("www.example.com");
        let name = ServerName::try_from(name).expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a configuration that can be used")
    }

    /// Writes the ClientHello, and early data that may follow it.
    fn write_first(&self, stream: &mut TcpStream, first: Vec<u8>) {
        let (message, rest) = split_hello(&first);
        let bytes = match self.writing {
            Writing::Plain | Writing::Segments => first.clone(),
            Writing::Records => {
                let cuts: Vec<usize> = (1..message.len()).collect();
                [hello::records(message, &cuts), rest.to_vec()].concat()
            }
            Writing::PartedAt(text) => {
                let found = message
                    .windows(text.len())
                    .position(|at| at == text.as_bytes());
                let cut = found.expect("the hello holds it") + text.len() / 2;
                [hello::records(message, &[cut]), rest.to_vec()].concat()
            }
        };
        let step = match self.writing {
            Writing::Plain | Writing::PartedAt(_) => bytes.len(),
            Writing::Segments | Writing::Records => 1,
        };
        for segment in bytes.chunks(step) {
            // Whoever has seen enough may close before the end.
            if stream.write_all(segment).is_err() {
                return;
            }
        }
    }
}

/// What takes every certificate and resumes nothing.
fn configuration(version: Version) -> ClientConfig {
    let version = match version {
        Version::Tls12 => &rustls::version::TLS12,
        Version::Tls13 => &rustls::version::TLS13,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("the provider knows it")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// Sends bytes as they are, ends that direction if told to, and counts what comes back.
pub fn send_raw(mut stream: TcpStream, bytes: &[u8], ends: bool) -> Got {
    stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let mut got = Got::default();
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    if let Err(error) = stream.read_to_end(&mut got.data) {
        got.error = Some(error.to_string());
    }
    got.octets = got.data.len();
    got
}

/// The handshake message of the first record, and what follows that record.
fn split_hello(first: &[u8]) -> (&[u8], &[u8]) {
    let length = usize::from(u16::from_be_bytes([first[3], first[4]]));
    first[5..].split_at(length)
}

fn unsent(tls: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).expect("a buffer");
    }
    bytes
}

/// Hands octets to the session, and takes the data out of it. Whether the other side has said that
/// it will say no more.
fn take(tls: &mut ClientConnection, mut octets: &[u8], data: &mut Vec<u8>) -> Result<bool, String> {
    let mut has_ended = false;
    while !octets.is_empty() {
        let taken = tls
            .read_tls(&mut octets)
            .map_err(|error| error.to_string())?;
        let state = tls
            .process_new_packets()
            .map_err(|error| error.to_string())?;
        has_ended |= state.peer_has_closed();
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        match tls.reader().read_exact(&mut plain) {
            Ok(()) => data.extend(plain),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        if taken == 0 {
            break;
        }
    }
    Ok(has_ended)
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = default_provider().signature_verification_algorithms;
        known.supported_schemes()
    }
}
