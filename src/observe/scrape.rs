//! Shows the metrics by HTTP to whoever is on this host: `GET /metrics`, and nothing else.
//!
//! Each connection has one answer, one deadline and one place of few. A browser on this host is kept
//! from reading for a page from elsewhere (DNS rebinding): only a Host that means this host is answered.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::metrics;

/// How many may ask at once; who comes on top is closed on.
pub const MAX_SCRAPERS: usize = 16;
/// How long one may take, from its connection to its answer's last octet: the timeout of a scrape is
/// 10 s (Prometheus' default).
const DEADLINE: Duration = Duration::from_secs(10);
/// After a failed accept(2): a shortage that has to pass.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes the metrics of the moment.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves until `stop` becomes true.
///
/// # Errors
/// The socket cannot be used: the system's fault.
pub async fn serve(
    listener: StdTcpListener,
    page: Page,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_SCRAPERS));
    let mut scrapers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while scrapers.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let page = Arc::clone(&page);
                    scrapers.spawn(async move {
                        answer(stream, page).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept who asks for metrics");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // A scrape is milliseconds; who is slow is cut with the set.
    Ok(())
}

async fn answer(stream: TcpStream, page: Page) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &page);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // How it ended is the scraper's matter: it sees whether it has its text.
    let _ = tokio::time::timeout(DEADLINE, served).await;
}

fn respond<Body>(request: &Request<Body>, page: &Page) -> Response<Full<Bytes>> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() || !host.is_some_and(is_this_host) {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host field must be localhost or a loopback address\n",
        );
    }
    if request.uri().path() != "/metrics" {
        return refuse(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    typed(StatusCode::OK, metrics::CONTENT_TYPE, page())
}

fn refuse(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", words.to_owned())
}

fn typed(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Whether a Host field means this host: `localhost` or a loopback address, with any port.
fn is_this_host(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if port.is_empty() || is_port(port) => address,
        Some(_) => return false,
        None => match host.split_once(':') {
            Some((name, _)) if is_port(&host[name.len()..]) => name,
            Some(_) => return false,
            None => host,
        },
    };
    let address = name.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, target: &str, hosts: &[&str]) -> StatusCode {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let page: Page = Arc::new(|| "acmegate_build_info 1\n".to_owned());
        respond(&request.body(()).unwrap(), &page).status()
    }

    #[test]
    fn only_a_get_of_metrics_is_answered() {
        let host = ["127.0.0.1:9402"];
        assert_eq!(status("GET", "/metrics", &host), StatusCode::OK);
        assert_eq!(status("GET", "/metrics?x=1", &host), StatusCode::OK);
        for target in ["/", "/metrics/", "/Metrics", "//metrics"] {
            assert_eq!(
                status("GET", target, &host),
                StatusCode::NOT_FOUND,
                "{target}"
            );
        }
        for method in ["HEAD", "POST", "OPTIONS", "DELETE"] {
            let got = status(method, "/metrics", &host);
            assert_eq!(got, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
    }

    #[test]
    fn a_host_that_is_not_this_one_gets_nothing() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.9.9.9:9402",
            "[::1]",
            "[::1]:9402",
        ] {
            assert_eq!(status("GET", "/metrics", &[host]), StatusCode::OK, "{host}");
        }
        for hosts in [
            &["attacker.test"][..],
            &["attacker.test:9402"],
            &["localhost.attacker.test"],
            &["127.0.0.1.attacker.test"],
            &["127.0.0.1:x"],
            &["[::1]x"],
            &["::1"],
            &["203.0.113.7"],
            &[""],
            &[],
            &["localhost", "attacker.test"],
        ] {
            let got = status("GET", "/metrics", hosts);
            assert_eq!(got, StatusCode::MISDIRECTED_REQUEST, "{hosts:?}");
        }
    }
}
