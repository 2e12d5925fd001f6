//! Through a real server, OpenSSL's, that would serve HTTP to anybody after the handshake.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::*;

const NAME: &str = "www.example.com";
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// `openssl s_server -www`, ended when dropped.
struct WebServer {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

impl WebServer {
    fn start(alpn: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned()]).unwrap();
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("acmegate-handshake-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(unique);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cert"), cert.der()).unwrap();
        fs::write(folder.join("key"), signing_key.serialize_der()).unwrap();
        let mut child = Command::new("openssl")
            .args(["s_server", "-www", "-accept", "127.0.0.1:0", "-alpn", alpn])
            .args([
                "-cert",
                "cert",
                "-certform",
                "DER",
                "-key",
                "key",
                "-keyform",
                "DER",
            ])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl (package openssl)");
        let output = BufReader::new(child.stdout.take().unwrap());
        let address = output
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("ACCEPT ")?.parse().ok())
            .expect("where it listens");
        Self {
            child,
            folder,
            address,
            certificate: cert.der().clone(),
        }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![crate::gate::tls::ACME_TLS.to_vec()];
        ClientConnection::new(Arc::new(config), ServerName::try_from(NAME).unwrap()).unwrap()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What `peer` does behind the relay to `server`, and how that ended.
fn through<T>(
    server: SocketAddr,
    time: Duration,
    peer: impl FnOnce(StdStream) -> T,
) -> (T, Result<(), Failure>) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let gate = listener.local_addr().unwrap();
    let relay = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut hello = vec![0; 4096];
        let length = peer.read(&mut hello).unwrap();
        peer.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let peer = TcpStream::from_std(peer).unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            relay_handshake(&peer, &server, b"", &hello[..length], now() + time).await
        })
    });
    let stream = StdStream::connect(gate).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let seen = peer(stream);
    (seen, relay.join().unwrap())
}

const TIME: Duration = Duration::from_secs(20);

fn shake_hands(
    client: ClientConnection,
    stream: StdStream,
) -> StreamOwned<ClientConnection, StdStream> {
    let mut tls = StreamOwned::new(client, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
    tls
}

/// Whatever application data comes back, by all means.
fn ask(mut tls: StreamOwned<ClientConnection, StdStream>) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = tls.write_all(REQUEST);
    let _ = tls.flush();
    let _ = tls.read_to_end(&mut answer);
    answer
}

#[test]
fn a_validation_sees_the_responders_certificate_and_leaves() {
    let server = WebServer::start("acme-tls/1");
    for version in VERSIONS {
        let client = server.client(version);
        let (alpn, ended) = through(server.address, TIME, |stream| {
            let mut tls = shake_hands(client, stream);
            tls.conn.send_close_notify();
            let _ = tls.flush();
            tls.conn.alpn_protocol().map(<[u8]>::to_vec)
        });
        assert_eq!(alpn.as_deref(), Some(&b"acme-tls/1"[..]), "{version:?}");
        assert_eq!(ended, Ok(()), "{version:?}");
    }
}

#[test]
fn a_web_server_named_by_mistake_hands_out_nothing() {
    let server = WebServer::start("acme-tls/1");
    for version in VERSIONS {
        let direct = StdStream::connect(server.address).unwrap();
        let answer = ask(shake_hands(server.client(version), direct));
        assert!(answer.starts_with(b"HTTP/1.0 200"), "it is a web server");
        let client = server.client(version);
        let (answer, ended) = through(server.address, TIME, |stream| {
            ask(shake_hands(client, stream))
        });
        assert_eq!(answer, b"", "{version:?}");
        assert_eq!(ended.unwrap_err().0, Reason::NotHandshake, "{version:?}");
    }
}

#[test]
fn a_peer_that_stays_is_shown_out() {
    let server = WebServer::start("acme-tls/1");
    let client = server.client(&rustls::version::TLS13);
    let begun = now();
    let (answer, ended) = through(server.address, TIME, |stream| {
        let mut tls = shake_hands(client, stream);
        let mut answer = Vec::new();
        let _ = tls.read_to_end(&mut answer);
        answer
    });
    assert_eq!(answer, b"");
    assert_eq!(ended, Ok(()));
    assert!(begun.elapsed() < TIME / 2, "long before its deadline");
}

#[test]
fn a_responder_that_does_not_speak_the_protocol_fails_the_handshake() {
    let server = WebServer::start("h2");
    let client = server.client(&rustls::version::TLS13);
    let (heard, ended) = through(server.address, TIME, |mut stream| {
        let mut client = client;
        client.complete_io(&mut stream).unwrap_err().to_string()
    });
    assert!(heard.contains("NoApplicationProtocol"), "{heard}");
    let (reason, detail) = ended.unwrap_err();
    assert_eq!(reason, Reason::HandshakeFailed);
    assert_eq!(detail.unwrap(), "the responder ended it with alert 120");
}

#[test]
fn a_peer_that_leaves_or_objects_is_told_apart() {
    let server = WebServer::start("acme-tls/1");
    let client = server.client(&rustls::version::TLS13);
    let (_, ended) = through(server.address, TIME, |mut stream| {
        let mut client = client;
        client.write_tls(&mut stream).unwrap();
        stream.read_exact(&mut [0; 100]).unwrap();
    });
    assert_eq!(ended, Err((Reason::PeerGone, None)));
    // It does not trust that certificate, and says so under the handshake's keys.
    let other = WebServer::start("acme-tls/1");
    let client = other.client(&rustls::version::TLS13);
    let (_, ended) = through(server.address, TIME, |mut stream| {
        let mut client = client;
        client.complete_io(&mut stream).unwrap_err();
    });
    let (reason, detail) = ended.unwrap_err();
    assert_eq!(reason, Reason::HandshakeFailed);
    assert_eq!(detail.unwrap(), "the peer ended it with an encrypted alert");
}

/// A listener of ours in place of the server, and a client's first flight.
fn listener_and_hello() -> (StdListener, Vec<u8>) {
    let mut hello = Vec::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![crate::gate::tls::ACME_TLS.to_vec()];
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    client.write_tls(&mut hello).unwrap();
    (StdListener::bind("127.0.0.1:0").unwrap(), hello)
}

#[test]
fn a_silent_responder_is_slow_and_one_that_hangs_up_is_gone() {
    let (listener, hello) = listener_and_hello();
    let address = listener.local_addr().unwrap();
    let time = Duration::from_millis(300);
    let (_, ended) = through(address, time, |mut stream| {
        stream.write_all(&hello).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    assert_eq!(ended, Err((Reason::UpstreamSlow, None)));
    drop(listener.accept().unwrap());

    let (_, ended) = through(address, TIME, |mut stream| {
        stream.write_all(&hello).unwrap();
        drop(listener.accept().unwrap());
        stream.read(&mut [0]).unwrap_or(0)
    });
    assert_eq!(ended, Err((Reason::UpstreamGone, None)));
}

#[tokio::test]
async fn the_proxy_header_goes_first() {
    let (listener, hello) = listener_and_hello();
    let address = listener.local_addr().unwrap();
    let (peer, server) = (
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    );
    let (_far_peer, _) = listener.accept().unwrap();
    let (mut far_server, _) = listener.accept().unwrap();
    let soon = now() + Duration::from_millis(50);
    let ended = relay_handshake(&peer, &server, b"PROXY UNKNOWN\r\n", &hello, soon).await;
    assert_eq!(ended, Err((Reason::UpstreamSlow, None)));
    drop((peer, server));
    let mut heard = Vec::new();
    far_server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, [b"PROXY UNKNOWN\r\n", hello.as_slice()].concat());
}

#[tokio::test]
async fn what_is_no_hello_reaches_nobody() {
    let (listener, _) = listener_and_hello();
    let address = listener.local_addr().unwrap();
    let (peer, server) = (
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    );
    let (_far_peer, _) = listener.accept().unwrap();
    let (mut far_server, _) = listener.accept().unwrap();
    let ended = relay_handshake(&peer, &server, b"PROXY", REQUEST, now() + TIME).await;
    assert_eq!(ended.unwrap_err().0, Reason::NotHandshake);
    drop((peer, server));
    assert_eq!(far_server.read(&mut [0]).unwrap(), 0, "not even the header");
}
