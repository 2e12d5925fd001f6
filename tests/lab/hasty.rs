//! A server that greets whoever comes as early as TLS lets it: in TLS 1.3 before it has heard the
//! peer's Finished. It has no word about ALPN.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

/// How long a peer may be silent.
const SILENCE: Duration = Duration::from_secs(8);

/// One that serves until the test's process ends.
#[derive(Debug)]
pub struct Hasty {
    heard: Arc<AtomicUsize>,
}

impl Hasty {
    pub const GREETING: &str = "220 SITE-SECRET ready\r\n";

    pub fn start(address: &str) -> Self {
        let key = rcgen::generate_simple_self_signed(["www.example.com".to_owned()]);
        let rcgen::CertifiedKey { cert, signing_key } = key.expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a key that fits");
        config.send_half_rtt_data = true;
        let config = Arc::new(config);
        let listener = TcpListener::bind(address).expect("a free port");
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let octets = greet(stream, Arc::clone(&config));
                count.fetch_add(octets, Ordering::Relaxed);
            }
        });
        Self { heard }
    }

    /// The octets of application data that came.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

/// Greets one peer; gives how many octets of data it sent.
fn greet(mut stream: TcpStream, config: Arc<ServerConfig>) -> usize {
    let mut tls = ServerConnection::new(config).expect("a configuration that can be used");
    tls.writer()
        .write_all(Hasty::GREETING.as_bytes())
        .expect("a buffer");
    let mut octets = 0;
    let _ = stream.set_read_timeout(Some(SILENCE));
    loop {
        while tls.wants_write() {
            if tls.write_tls(&mut stream).is_err() {
                return octets;
            }
        }
        match tls.read_tls(&mut stream) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return octets,
        }
        match tls.process_new_packets() {
            Ok(state) => octets += state.plaintext_bytes_to_read(),
            Err(_) => return octets,
        }
    }
}
