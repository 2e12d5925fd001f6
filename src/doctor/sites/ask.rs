//! Asks the gate as a validation does, from this host: one request on one connection, or one handshake.
//!
//! What comes back is kept within bounds and believed by nobody: it is compared with what was put up.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::Answer;
use crate::doctor::timed::Timed;
use crate::gate::event::Ends;
use crate::gate::identifier::Identifier;
use crate::gate::tls::ProxyVersion;
use crate::proxy_protocol;

/// How long connecting to this host itself may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a whole answer may take, or a handshake: an upstream's ten seconds and some.
const ANSWER: Duration = Duration::from_secs(12);
/// The most of an answer that is read: its head and a page's beginning.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;
/// The one protocol of a validation (RFC 8737 §6.2).
const ALPN: &[u8] = b"acme-tls/1";

/// Whom to ask, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Whether it wants to be told for whom the connection is.
    pub(super) proxy: Option<ProxyVersion>,
    /// Whether to come from a loopback address, which the allow-list has.
    pub(super) by_loopback: bool,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// No connection.
    NotReached(String),
    /// It was closed, or went silent, without a whole head.
    Nothing,
    /// An answer.
    Answer(Answer),
}

/// Asks for a target with this Host. Blocks, for a bounded time.
pub(super) fn get(door: Door, host: &str, target: &str) -> Heard {
    let mut stream = match connect(door) {
        Ok(stream) => stream,
        Err(error) => return Heard::NotReached(error.to_string()),
    };
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: acmegate-doctor\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let mut bytes = Vec::new();
    // A refusal may be there although the question could not be written.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
    Answer::parse(&bytes).map_or(Heard::Nothing, Heard::Answer)
}

fn connect(door: Door) -> io::Result<Timed> {
    let socket = Socket::new(
        Domain::for_address(door.address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if door.by_loopback {
        let from: IpAddr = match door.address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket
        .connect_timeout(&door.address.into(), CONNECT)
        .map_err(|error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                io::Error::other("no answer to a SYN within two seconds")
            }
            _ => error,
        })?;
    let mut timed = Timed {
        stream: TcpStream::from(socket),
        deadline: Instant::now() + ANSWER,
    };
    if let Some(version) = door.proxy {
        let ends = Ends {
            source: timed.stream.local_addr()?,
            destination: timed.stream.peer_addr()?,
        };
        timed.write_all(&proxy_protocol::write(version, &ends))?;
    }
    Ok(timed)
}

/// What a handshake that offers `acme-tls/1` alone came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shaken {
    /// No connection.
    NotReached(String),
    /// It was closed without a word.
    Nothing,
    /// A connection, and no handshake: why.
    Failed(String),
    /// A handshake: whether `acme-tls/1` was agreed on, and the certificate, DER.
    Done {
        /// Whether the other side took the offer up.
        is_agreed: bool,
        /// What it showed.
        certificate: Vec<u8>,
    },
}

/// Shakes hands as a validation of this identifier does (RFC 8737 §3). Blocks, for a bounded time.
pub(super) fn shake(door: Door, identifier: &Identifier) -> Shaken {
    let Ok(name) = ServerName::try_from(server_name(identifier)) else {
        return Shaken::Failed("no server name can be made of it".to_owned());
    };
    let mut stream = match connect(door) {
        Ok(stream) => stream,
        Err(error) => return Shaken::NotReached(error.to_string()),
    };
    let mut tls = match client(name) {
        Ok(tls) => tls,
        Err(error) => return Shaken::Failed(error.to_string()),
    };
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut stream) {
            let is_closed = matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            );
            // The version is known as soon as the other side has said something.
            return match is_closed && tls.protocol_version().is_none() {
                true => Shaken::Nothing,
                false => Shaken::Failed(error.to_string()),
            };
        }
    }
    let certificate = tls.peer_certificates().and_then(|chain| chain.first());
    Shaken::Done {
        is_agreed: tls.alpn_protocol() == Some(ALPN),
        certificate: certificate.map_or_else(Vec::new, |first| first.to_vec()),
    }
}

fn client(name: ServerName<'static>) -> Result<ClientConnection, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AsItComes(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    ClientConnection::new(Arc::new(config), name)
}

/// What the server name of a validation is (RFC 8737 §3, RFC 8738 §6).
fn server_name(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.as_str().to_owned(),
        Identifier::Ip(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Identifier::Ip(IpAddr::V6(address)) => {
            let octets = address.octets();
            let nibbles = octets
                .iter()
                .rev()
                .flat_map(|octet| [octet & 15, octet >> 4]);
            let labels: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            format!("{labels}ip6.arpa")
        }
    }
}

/// Takes every certificate and signature. The certificate is self-signed by definition, and its critical extension is
/// one that webpki knows nothing of (RFC 8737 §3); what it proves is looked at afterwards. Nothing is sent over it.
#[derive(Debug)]
struct AsItComes(Arc<CryptoProvider>);

impl ServerCertVerifier for AsItComes {
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
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_validated_by_their_reverse_names() {
        for (identifier, name) in [
            ("www.example.com", "www.example.com".to_owned()),
            ("192.0.2.7", "7.2.0.192.in-addr.arpa".to_owned()),
            (
                "2001:db8::1",
                format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23)),
            ),
        ] {
            let identifier = Identifier::parse(identifier).unwrap();
            assert_eq!(server_name(&identifier), name);
            assert_eq!(Identifier::from_server_name(&name).unwrap(), identifier);
        }
    }
}
