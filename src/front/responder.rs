//! Answers a TLS-ALPN-01 validation: one handshake with a certificate that proves control, and
//! nothing after it (RFC 8737 §3, RFC 8738 §4).
//!
//! What it never does: decide who may have the answer, speak any other protocol than `acme-tls/1`,
//! let a session be resumed, take data before or after the handshake, or send a byte of its own
//! once the handshake is complete but the word that it ends.
//!
//! The certificate is made for each validation, with a key that is forgotten after it: that takes a
//! tenth of a millisecond, and there is nothing to store or to steal.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};
use rustix::net::{Shutdown, shutdown};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::edge::{is_passing, now, with_buffer};
use super::report::Failure;
use crate::gate::Reason;
use crate::gate::identifier::Identifier;
use crate::gate::tls::{ACME_TLS, VouchedTls};
use crate::gate::token::KeyAuthorizationDigest;

/// The most that a peer may send after its first flight: without certificates of its own, all of it
/// is some hundred octets.
const MAX_BYTES: usize = 16 * 1024;
/// How long the peer may take to close, so that no reset overtakes our last flight.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// The most characters of a detail.
const MAX_DETAIL_CHARS: usize = 160;

/// Completes the handshake that begins with `received`, a whole ClientHello and what came with it,
/// proves what was vouched for, and takes leave. What was proven has been proven when this is `Ok`,
/// whether or not the peer closes. The socket is shut for writing then, and to be closed.
///
/// # Errors
/// [`Reason::HandshakeFailed`], also when it is not complete by `deadline`; [`Reason::PeerGone`];
/// [`Reason::NotHandshake`] if the peer sends data, or too much of anything.
pub(super) async fn respond(
    stream: &TcpStream,
    received: &[u8],
    vouched: &VouchedTls,
    deadline: Instant,
) -> Result<(), Failure> {
    let tls = session(vouched).map_err(|why| failed(why.to_string()))?;
    let mut handshake = Handshake {
        stream,
        tls: Box::new(tls),
        left: MAX_BYTES,
    };
    let shaken = match timeout_at(deadline.into(), handshake.run(received)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(failed("it was not complete in time".to_owned())),
    };
    if matches!(shaken, Err((Reason::PeerGone, _))) {
        return shaken;
    }
    let lingering = deadline.min(now() + LINGER_TIME);
    match timeout_at(lingering.into(), handshake.take_leave()).await {
        // What the peer does after a failure is no worse than the failure.
        Ok(left) => shaken.and(left),
        Err(_) => shaken,
    }
}

struct Handshake<'a> {
    stream: &'a TcpStream,
    tls: Box<ServerConnection>,
    /// How many octets more are read.
    left: usize,
}

impl Handshake<'_> {
    async fn run(&mut self, received: &[u8]) -> Result<(), Failure> {
        self.take(received)?;
        loop {
            self.flush().await.map_err(gone)?;
            if !self.tls.is_handshaking() {
                break;
            }
            if self.read().await? == 0 {
                return Err((Reason::PeerGone, None));
            }
        }
        // The certificate is given to nobody else; this is for whoever changes that.
        match self.tls.alpn_protocol() {
            Some(ACME_TLS) => Ok(()),
            _ => Err(failed("another protocol was negotiated".to_owned())),
        }
    }

    /// Says that it is over, and waits until the peer has gone.
    async fn take_leave(&mut self) -> Result<(), Failure> {
        // A failed handshake has said so by its alert.
        if !self.tls.is_handshaking() {
            self.tls.send_close_notify();
        }
        if self.flush().await.is_err() {
            return Ok(());
        }
        let _ = shutdown(self.stream, Shutdown::Write);
        loop {
            match self.read().await {
                Ok(1..) => {}
                Err((Reason::NotHandshake, detail)) => return Err((Reason::NotHandshake, detail)),
                // It has gone, or says what is no TLS: it has had all that it gets.
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }

    /// Reads once, and hands what came to the session: how much it was.
    async fn read(&mut self) -> Result<usize, Failure> {
        loop {
            poll_fn(|cx| self.stream.poll_read_ready(cx))
                .await
                .map_err(gone)?;
            if self.left == 0 {
                return Err(no_handshake());
            }
            let read = with_buffer(|buffer| {
                let most = self.left.min(buffer.len());
                let length = self.stream.try_read(&mut buffer[..most])?;
                self.left -= length;
                Ok(self.take(&buffer[..length]).map(|()| length))
            });
            match read {
                Ok(taken) => return taken,
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }

    /// Hands octets to the session. Data in them is kept by nobody.
    fn take(&mut self, mut octets: &[u8]) -> Result<(), Failure> {
        while !octets.is_empty() {
            let refused = |error: io::Error| failed(error.to_string());
            if self.tls.read_tls(&mut octets).map_err(refused)? == 0 {
                // After the peer's last word nothing is read any more.
                return Ok(());
            }
            let state = self.tls.process_new_packets();
            let state = state.map_err(|error| failed(error.to_string()))?;
            if state.plaintext_bytes_to_read() > 0 {
                return Err(no_handshake());
            }
        }
        Ok(())
    }

    /// Sends all that the session has to say.
    async fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            poll_fn(|cx| self.stream.poll_write_ready(cx)).await?;
            match self.tls.write_tls(&mut Writer(self.stream)) {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One write that does not wait.
struct Writer<'a>(&'a TcpStream);

impl io::Write for Writer<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone(_: io::Error) -> Failure {
    (Reason::PeerGone, None)
}

fn no_handshake() -> Failure {
    (Reason::NotHandshake, None)
}

/// rustls names what is wrong in words and numbers of its own, never in a peer's octets.
fn failed(why: String) -> Failure {
    let detail = why.chars().take(MAX_DETAIL_CHARS).collect();
    (Reason::HandshakeFailed, Some(detail))
}

/// A session that proves what was vouched for, and leaves nothing behind that could be resumed.
fn session(vouched: &VouchedTls) -> Result<ServerConnection, Box<dyn std::error::Error>> {
    let answer = vouched.answer();
    let only = OnlyCertificate(Arc::new(certified(vouched.identifier(), answer.digest())?));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(only));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(ServerConnection::new(Arc::new(config))?)
}

/// Gives its certificate to whoever offers exactly `acme-tls/1`.
#[derive(Debug)]
struct OnlyCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OnlyCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello
            .alpn()
            .is_some_and(|offered| offered.eq([ACME_TLS]))
            .then(|| Arc::clone(&self.0))
    }
}

fn certified(
    identifier: &Identifier,
    digest: &KeyAuthorizationDigest,
) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let (certificate, key) = certificate(identifier, digest)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    // Not by rustls' own check of certificate and key: it wants to understand critical extensions.
    Ok(CertifiedKey::new(vec![certificate], any_ecdsa_type(&key)?))
}

/// A self-signed certificate: one name, and the digest in a critical extension (RFC 8737 §3).
///
/// Its dates are rcgen's, centuries apart: it is proof for one moment, and no clock is asked.
fn certificate(
    identifier: &Identifier,
    digest: &KeyAuthorizationDigest,
) -> Result<(CertificateDer<'static>, KeyPair), rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "ACME challenge");
    parameters.subject_alt_names = vec![match identifier {
        Identifier::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        Identifier::Ip(address) => SanType::IpAddress(*address),
    }];
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_bytes())];
    // ECDSA over P-256 with SHA-256.
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.into(), key))
}

#[cfg(test)]
mod tests;
