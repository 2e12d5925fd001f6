//! One question to a service of the web that speaks JSON: HTTP/1.1 over TLS, or without TLS on the loopback.
//!
//! Small on purpose, and blocking: a command's own thread, an overall deadline, a cap on the answer, one request for
//! each connection, no redirects, no proxies. Certificates are checked by webpki against the roots of the system:
//! its bundle is a file of PEM, which rustls reads itself, so no further crate is needed for it. `SSL_CERT_FILE`
//! names another bundle, as everywhere.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::doctor::timed::{Timed, left};

/// The most octets of an answer, head and all.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// How long one address is tried.
const DIAL: Duration = Duration::from_secs(10);
/// Where distributions keep the roots: Debian and Alpine, Fedora, others.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    host: String,
    port: u16,
    /// Without a slash at its end; empty for the root.
    path: String,
}

impl Url {
    /// Reads the base of a service's addresses.
    ///
    /// # Errors
    /// One line: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("it has no scheme: https://…")?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                return Err(format!(
                    "its scheme is {scheme}, and only https can be asked"
                ));
            }
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'<' | b'>');
        if !path.bytes().all(is_plain) {
            return Err("its path has more than plain characters".to_owned());
        }
        if authority.contains('@') {
            return Err("a password in an address is seen by everybody: keys come from a file or the environment".to_owned());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("its address has no ]")?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_host =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'_');
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err("it has no host".to_owned());
        }
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| format!("there is no port {port}"))?,
            None if is_tls => 443,
            None => 80,
        };
        let url = Self {
            is_tls,
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        };
        match is_tls || url.is_loopback() {
            true => Ok(url),
            false => Err("without TLS anybody on the way reads the key and writes the answer: use https (http is for the loopback alone)".to_owned()),
        }
    }

    /// Whether it is this host whatever a resolver says.
    fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
    }

    /// The same with more path, unless that is its end already.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        let mut url = self.clone();
        if !url.path.ends_with(path) {
            url.path += path;
        }
        url
    }

    /// Who is asked, for people.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// A secret that goes with a request, in a field of its head. It is never shown.
#[derive(Clone)]
pub struct Key {
    field: String,
    value: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("field", &self.field)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// A field and its value, white space around it cut off.
    ///
    /// # Errors
    /// One line: what cannot stand in a request's head.
    pub fn new(field: &str, value: &str) -> Result<Self, String> {
        let value = value.trim();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if field.is_empty() || !field.bytes().all(is_token) {
            return Err(format!("{field} cannot be the name of a field"));
        }
        if value.is_empty() || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(
                "the key is empty, or has more than plain characters on one line".to_owned(),
            );
        }
        Ok(Self {
            field: field.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Asks; the answer is the status and the body. With `body` it is a POST of JSON, else a GET.
///
/// # Errors
/// One line: what failed, and where.
pub fn ask(
    url: &Url,
    key: Option<&Key>,
    body: Option<&[u8]>,
    deadline: Instant,
) -> Result<(u16, Vec<u8>), String> {
    let stream = dial(url, deadline)?;
    let stream = Timed { stream, deadline };
    let request = request(url, key, body);
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("{} did not answer in time", url.host)
        }
        _ => format!("{}: {error}", url.host),
    };
    let octets = match url.is_tls {
        false => exchange(stream, &request).map_err(said)?,
        true => {
            let name = ServerName::try_from(url.host.clone())
                .map_err(|_| format!("{} is no name that a certificate can have", url.host))?;
            let connection = ClientConnection::new(Arc::new(trust()?), name)
                .map_err(|error| format!("TLS: {error}"))?;
            exchange(StreamOwned::new(connection, stream), &request).map_err(said)?
        }
    };
    understand(&octets).ok_or_else(|| format!("what {} answered cannot be read as HTTP", url.host))
}

/// Asks for a path on this very host, at an address where the gate listens, in the name of an identifier.
///
/// # Errors
/// As [`ask`].
pub fn ask_here(
    at: SocketAddr,
    authority: &str,
    path: &str,
    deadline: Instant,
) -> Result<(u16, Vec<u8>), String> {
    let said = |error: io::Error| format!("{at}: {error}");
    let stream =
        TcpStream::connect_timeout(&at, left(deadline).map_err(said)?.min(DIAL)).map_err(said)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: acmegate-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let octets = exchange(Timed { stream, deadline }, request.as_bytes()).map_err(said)?;
    understand(&octets).ok_or_else(|| format!("what {at} answered cannot be read as HTTP"))
}

fn request(url: &Url, key: Option<&Key>, body: Option<&[u8]>) -> Vec<u8> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let path = if url.path.is_empty() { "/" } else { &url.path };
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: acmegate/{}\r\nAccept: application/json\r\n",
        url.authority(),
        env!("CARGO_PKG_VERSION")
    );
    if let Some(Key { field, value }) = key {
        head += &format!("{field}: {value}\r\n");
    }
    if let Some(body) = body {
        head += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    head += "Connection: close\r\n\r\n";
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut octets = Vec::new();
    match stream.take(MAX_ANSWER_BYTES).read_to_end(&mut octets) {
        // Many close without saying so in TLS; what HTTP says of the length decides.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !octets.is_empty() => {}
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    Ok(octets)
}

/// The status and the body of a whole answer; `None` if it is none or was cut off.
pub fn understand(octets: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(octets).ok()? else {
        return None;
    };
    // Three digits of which the first is no nought (RFC 9110 §15); httparse takes any three.
    let status = head.code.filter(|code| *code >= 100)?;
    let rest = &octets[length..];
    let field = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        found
            .and_then(|field| std::str::from_utf8(field.value).ok())
            .map(str::trim)
    };
    if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Some((status, unchunked(rest)?));
    }
    match field("content-length").map(str::parse::<usize>) {
        None => Some((status, rest.to_vec())),
        Some(length) => Some((status, rest.get(..length.ok()?)?.to_vec())),
    }
}

/// RFC 9112 §7.1; trailers are left out.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        // httparse takes no digit at all for a nought.
        rest.first().filter(|byte| byte.is_ascii_hexdigit())?;
        let httparse::Status::Complete((begin, size)) = httparse::parse_chunk_size(rest).ok()?
        else {
            return None;
        };
        let size = usize::try_from(size).ok()?;
        let end = begin.checked_add(size)?;
        body.extend_from_slice(rest.get(begin..end)?);
        if size == 0 {
            return Some(body);
        }
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

fn dial(url: &Url, deadline: Instant) -> Result<TcpStream, String> {
    let Url { host, port, .. } = url;
    let addresses = (host.as_str(), *port)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    let mut refused = format!("{host} has no address");
    for address in addresses {
        let left = left(deadline).map_err(|_| format!("{host} did not answer in time"))?;
        match TcpStream::connect_timeout(&address, left.min(DIAL)) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = format!("{host} ({address}): {error}"),
        }
    }
    Err(refused)
}

/// The roots of the system.
fn trust() -> Result<ClientConfig, String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = || {
        BUNDLES
            .iter()
            .map(PathBuf::from)
            .find(|bundle| bundle.exists())
    };
    let bundle = named
        .or_else(usual)
        .ok_or("this host has no roots of trust: install ca-certificates")?;
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", bundle.display());
    let roots = CertificateDer::pem_file_iter(&bundle).map_err(|error| told(&error))?;
    let mut store = RootCertStore::empty();
    // A root that nobody can read vouches for nobody.
    store.add_parsable_certificates(roots.filter_map(Result::ok));
    if store.is_empty() {
        return Err(told(&"it has no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_by_tls_or_on_the_loopback() {
        let url = Url::parse("https://mpic.example.com/v2/").unwrap();
        assert_eq!(
            url.at("/mpic").to_string(),
            "https://mpic.example.com/v2/mpic"
        );
        assert_eq!(url.at("/mpic").at("/mpic"), url.at("/mpic"));
        let local = Url::parse("http://[::1]:8000").unwrap();
        assert_eq!((local.host.as_str(), local.port), ("::1", 8000));
        assert_eq!(local.to_string(), "http://[::1]:8000");
        for bad in [
            "mpic.example.com",
            "ftp://a",
            "http://mpic.example.com/",
            "http://localhost/",
            "http://10.0.0.1/",
            "https:///x",
            "https://a:x/",
            "https://key@a/",
            "https://a/ b",
            "https://a/\r\nx: y",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_never_shown_and_never_more_than_a_field() {
        let key = Key::new("x-api-key", " secret\n").unwrap();
        assert_eq!(key.value, "secret");
        assert!(!format!("{key:?}").contains("secret"));
        for (field, value) in [
            ("", "a"),
            ("a b", "a"),
            ("a:", "a"),
            ("a", ""),
            ("a", "x\r\nb: c"),
        ] {
            assert!(Key::new(field, value).is_err(), "{field:?} {value:?}");
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let answer = |text: &str| understand(text.as_bytes());
        let is = |body: &str| Some((200, body.as_bytes().to_vec()));
        assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\n{}"), is("{}"));
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
            is("{}")
        );
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
            None
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            answer(&format!("{chunked}1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n")),
            is("{}")
        );
        for cut in [
            "1\r\n{",
            "1\r\n{\r\n",
            "5\r\n{}\r\n0\r\n\r\n",
            "z",
            "ffffffffffffffff\r\nx",
        ] {
            assert_eq!(answer(&format!("{chunked}{cut}")), None, "{cut:?}");
        }
        assert_eq!(answer("HTTP/1.1 200"), None);
        assert_eq!(answer("HTTP/1.1 020 OK\r\n\r\n{}"), None);
        assert_eq!(answer("nonsense"), None);
    }
}
