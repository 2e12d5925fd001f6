//! Real handshakes with openssl over loopback, and with peers that want anything else.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::gate::allow_list::AllowList;
use crate::gate::site::{Redirect, Site};
use crate::gate::tls::{Hello, Offer, ServerName, TlsDecision};
use crate::gate::token::{KeyAuthorization, TlsAnswer};
use crate::gate::window::Windows;
use crate::gate::{Admission, Exposure, Gate, RedirectFor};

const KEY_AUTHORIZATION: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// Longer than any handshake over loopback takes on a busy machine, shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn answer() -> TlsAnswer {
    KeyAuthorization::parse(KEY_AUTHORIZATION.as_bytes())
        .unwrap()
        .into()
}

/// What the gate makes of a validation with this server name.
fn vouched(server_name: &str) -> VouchedTls {
    let gate = Gate {
        sites: vec![Site {
            identifiers: Vec::new(),
            is_default: true,
            redirect: Redirect::Off,
            accounts: Vec::new(),
        }],
        allow: AllowList::default().into(),
        exposure: Exposure::Windowed,
        redirect_for: RedirectFor::Everybody,
    };
    let hello = Hello {
        server_name: ServerName::Value(server_name),
        offer: Offer::AcmeTls,
        has_early_data: false,
    };
    let decided = gate.decide_tls(&hello, Admission::Everybody, &Windows::default(), now());
    let TlsDecision::Challenge(permit) = decided else {
        panic!("{decided:?}")
    };
    gate.vouch_tls(&permit, answer()).unwrap()
}

type Responding = JoinHandle<Result<(), Failure>>;

/// Answers one connection, whose first octets are taken for a ClientHello.
async fn responding(server_name: &str, time: Duration) -> (SocketAddr, Responding) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let vouched = vouched(server_name);
    let responding = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = vec![0; 4096];
        let length = stream.read(&mut first).await.unwrap();
        respond(&stream, &first[..length], &vouched, now() + time).await
    });
    (address, responding)
}

async fn end(responding: Responding) -> Result<(), Failure> {
    timeout(PATIENCE, responding).await.unwrap().unwrap()
}

/// Runs openssl with this on its standard input: what it says, on both ways.
async fn openssl(arguments: &[&str], input: &[u8]) -> String {
    let mut openssl = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = openssl.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let said = timeout(PATIENCE, openssl.wait_with_output());
    let said = said.await.unwrap().unwrap();
    let both = [said.stdout, said.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

async fn s_client(address: SocketAddr, name: &str, options: &[&str], input: &[u8]) -> String {
    let address = address.to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-servername", name];
    arguments.extend(options);
    openssl(&arguments, input).await
}

/// How text holds octets in openssl's words.
fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}

#[tokio::test]
async fn openssl_gets_the_certificate_of_rfc_8737() {
    let names = [
        ("example.com", "DNS:example.com"),
        ("7.2.0.192.in-addr.arpa", "IP Address:192.0.2.7"),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            "IP Address:2001:DB8:0:0:0:0:0:7",
        ),
    ];
    for (name, expected) in names {
        for version in ["-tls1_2", "-tls1_3"] {
            let (address, responding) = responding(name, PATIENCE).await;
            let said = s_client(address, name, &[version, "-alpn", "acme-tls/1"], b"").await;
            assert_eq!(end(responding).await, Ok(()), "{said}");
            assert!(said.contains("ALPN protocol: acme-tls/1"), "{said}");
            assert!(!said.contains("ession ticket"), "{said}");
            assert!(!said.contains("New Session Ticket"), "{said}");

            let (from, until) = ("-----BEGIN CERTIFICATE", "END CERTIFICATE-----\n");
            let begin = said.find(from).unwrap();
            let length = said[begin..].find(until).unwrap() + until.len();
            let certificate = &said.as_bytes()[begin..begin + length];
            let text = openssl(&["x509", "-noout", "-text"], certificate).await;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                text.contains(&format!(
                    "X509v3 Subject Alternative Name: {expected} 1.3.6.1.5.5.7.1.31: critical"
                )),
                "{text}"
            );
            assert!(text.contains("NIST CURVE: P-256"), "{text}");
            let whose = ["x509", "-noout", "-subject", "-issuer"];
            let whose = openssl(&whose, certificate).await;
            assert_eq!(
                whose,
                "subject=CN = ACME challenge\nissuer=CN = ACME challenge\n"
            );
            let parsed = openssl(&["asn1parse"], certificate).await;
            let digest = format!(
                "[HEX DUMP]:0420{}",
                hexadecimal(answer().digest().as_bytes())
            );
            assert!(parsed.contains(&digest), "{parsed}");

            let directory = std::env::temp_dir();
            let file = directory.join(format!("acmegate-{}{version}-{name}", std::process::id()));
            std::fs::write(&file, certificate).unwrap();
            let path = file.to_str().unwrap();
            let verify = ["verify", "-ignore_critical", "-check_ss_sig", "-trusted"];
            let verified = openssl(&[&verify[..], &[path, path]].concat(), b"").await;
            std::fs::remove_file(&file).unwrap();
            assert!(verified.ends_with(": OK\n"), "{verified}");
        }
    }
}

/// Shakes hands, says so, sends what is its second argument, and says what it gets until the end.
/// Without a second argument it stays until its standard input is closed.
const PEER: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["acme-tls/1"])
context.maximum_version = ssl.TLSVersion[sys.argv[2]]
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
tls = context.wrap_socket(raw, server_hostname="a.test", suppress_ragged_eofs=False)
print("shaken", flush=True)
if len(sys.argv) > 3:
    tls.sendall(sys.argv[3].encode())
    print("got", tls.recv(4096), flush=True)
else:
    sys.stdin.read()
"#;

fn peer(address: SocketAddr, arguments: &[&str]) -> Child {
    Command::new("python3")
        .args(["-c", PEER, &address.port().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn nothing_follows_the_handshake_whatever_is_sent() {
    for version in ["TLSv1_2", "TLSv1_3"] {
        let (address, responding) = responding("a.test", PATIENCE).await;
        let peer = peer(
            address,
            &[version, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"],
        );
        let said = timeout(PATIENCE, peer.wait_with_output()).await;
        assert_eq!(end(responding).await, Err((Reason::NotHandshake, None)));
        // The end that it got is a close_notify: an end without one is an exception to it.
        let said = String::from_utf8(said.unwrap().unwrap().stdout).unwrap();
        assert_eq!(said, "shaken\ngot b''\n");
    }
}

#[tokio::test]
async fn who_does_not_offer_exactly_acme_tls_gets_no_certificate() {
    for alpn in [
        &["-alpn", "http/1.1"][..],
        &["-alpn", "acme-tls/1,http/1.1"],
        &["-alpn", "acme-tls/1,acme-tls/1"],
        &[],
    ] {
        let (address, responding) = responding("a.test", PATIENCE).await;
        let said = s_client(address, "a.test", alpn, b"").await;
        let failure = end(responding).await.unwrap_err();
        assert_eq!(failure.0, Reason::HandshakeFailed, "{alpn:?}: {failure:?}");
        assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
    }
}

#[tokio::test]
async fn half_a_handshake_ends_with_its_deadline_and_a_gone_peer_at_once() {
    let time = Duration::from_millis(300);
    // A record that announces more than comes.
    for (sent, closes, expected) in [
        (
            &b"\x16\x03\x01\x02\x00\x01"[..],
            false,
            Reason::HandshakeFailed,
        ),
        (b"\x16\x03\x01\x02\x00\x01", true, Reason::PeerGone),
        (b"GET / HTTP/1.1\r\n\r\n", true, Reason::HandshakeFailed),
        (&[0xff; 3000], true, Reason::HandshakeFailed),
    ] {
        let time = if closes { PATIENCE } else { time };
        let (address, responding) = responding("a.test", time).await;
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(sent).await.unwrap();
        if closes {
            peer.shutdown().await.unwrap();
        }
        let (reason, detail) = end(responding).await.unwrap_err();
        assert_eq!(reason, expected, "{detail:?}");
        assert!(!detail.unwrap_or_default().contains("GET"));
    }
}

#[tokio::test]
async fn a_peer_that_sends_and_sends_is_left() {
    let (address, responding) = responding("a.test", PATIENCE).await;
    let mut peer = TcpStream::connect(address).await.unwrap();
    // Records of the largest size with one handshake message that would go on for long.
    let mut record = [0; 5 + 16 * 1024];
    record[..5].copy_from_slice(b"\x16\x03\x01\x40\x00");
    let mut first = record;
    first[5..9].copy_from_slice(b"\x01\x00\xff\x00");
    peer.write_all(&first).await.unwrap();
    // That it is left may be before all is sent.
    let _ = peer.write_all(&record).await;
    assert_eq!(end(responding).await, Err((Reason::NotHandshake, None)));
}

#[tokio::test]
async fn a_peer_that_stays_is_left_after_a_second() {
    for version in ["TLSv1_2", "TLSv1_3"] {
        let (address, responding) = responding("a.test", PATIENCE).await;
        let mut peer = peer(address, &[version]);
        let mut said = [0; 7];
        let mut stdout = peer.stdout.take().unwrap();
        let shaken = timeout(PATIENCE, stdout.read_exact(&mut said)).await;
        shaken.unwrap().unwrap();
        let begun = now();
        assert_eq!(&said, b"shaken\n");
        assert_eq!(end(responding).await, Ok(()));
        assert!(begun.elapsed() > LINGER_TIME / 2, "{:?}", begun.elapsed());
        drop(peer.stdin.take());
        assert!(peer.wait().await.unwrap().success());
    }
}

#[test]
fn the_certificate_has_one_name_and_the_digest_and_nothing_else_is_critical() {
    let answer = answer();
    for (identifier, name) in [
        ("A.Example.COM", &b"\x30\x0f\x82\x0da.example.com"[..]),
        ("192.0.2.7", b"\x30\x06\x87\x04\xc0\x00\x02\x07"),
        (
            "2001:db8::7",
            b"\x30\x12\x87\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07",
        ),
    ] {
        let identifier = Identifier::parse(identifier).unwrap();
        let (certificate, _) = certificate(&identifier, answer.digest()).unwrap();
        let count = |wanted: &[u8]| {
            let windows = certificate.windows(wanted.len());
            windows.filter(|window| *window == wanted).count()
        };
        // 2.5.29.17, then an octet string with the name.
        let length = u8::try_from(name.len()).unwrap();
        let san = [b"\x06\x03\x55\x1d\x11\x04", &[length][..], name].concat();
        assert_eq!(count(&san), 1, "{identifier}");
        // 1.3.6.1.5.5.7.1.31, TRUE, an octet string that holds an octet string.
        let head = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20";
        let proof = [&head[..], answer.digest().as_bytes()].concat();
        assert_eq!(count(&proof), 1, "{identifier}");
        assert_eq!(count(b"\x01\x01\xff"), 1, "{identifier}");
    }
}

#[test]
fn a_held_handshake_stays_small() {
    fn size_of_output<'a, F>(
        _: fn(&'a TcpStream, &'a [u8], &'a VouchedTls, Instant) -> F,
    ) -> usize {
        std::mem::size_of::<F>()
    }
    let bytes = size_of_output(respond);
    println!("{bytes} octets");
    assert!(bytes <= 512, "{bytes} octets per handshake");
}
