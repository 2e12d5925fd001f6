//! Key authorizations from an ACME client further in: certbot's standalone server, lego, Caddy,
//! acme.sh, on an inner host.
//!
//! What it is for: asking one question in our own words and believing one kind of answer. What it
//! never does: forward anything of the peer's (method, fields, the bytes of the path), tell who the
//! peer is unless the configuration says so, relay anything that is not the key authorization of that
//! very token, follow a redirect, keep a connection, or ask without a bound on time, bytes and questions
//! in flight.
//!
//! Hyper speaks the protocol; what real responders do to it is in `FrankStream`.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::gate::Reason;
use crate::gate::challenge::PREFIX;
use crate::gate::event::{Answer, Ends};
use crate::gate::identifier::Identifier;
use crate::gate::tls::Server;
use crate::gate::token::{KeyAuthorization, Token};
use crate::proxy_protocol;

/// How long connecting may take: an inner host answers at once, or its packets are dropped.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long all of it may take: Boulder gives a validation 15 seconds or more, and the peer may
/// have spent some of them already. acme.sh's socat sleeps one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many questions one upstream may have open: half as many as peers may come from one source
/// at once; certbot's standalone server answers one at a time.
const MAX_IN_FLIGHT: usize = 64;
/// The largest content that is looked at: 172 octets and white space.
const MAX_CONTENT_BYTES: usize = 512;
/// The most fields and octets of an upstream's head; hyper takes no less than 8 KiB.
const MAX_FIELDS: usize = 64;
const MAX_BUFFER_BYTES: usize = 8 * 1024;

/// An inner server that answers challenges.
#[derive(Clone, Debug)]
pub struct Upstream {
    server: Server,
    in_flight: Arc<Semaphore>,
}

impl Upstream {
    /// This server. Nothing is connected yet.
    pub fn new(server: impl Into<Server>) -> Self {
        Self {
            server: server.into(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// Asks for the answer to `token`, within ten seconds. `ends` are told to a server that is
    /// configured to be told.
    ///
    /// Reasons: [`Reason::UpstreamBusy`], [`Reason::UpstreamGone`], [`Reason::UpstreamSlow`],
    /// [`Reason::UpstreamUnknown`], [`Reason::UpstreamLied`].
    pub async fn look_up(&self, token: &Token, identifier: &Identifier, ends: Ends) -> Answer {
        // Waiting for a place would only add to the pile of peers that wait.
        let Ok(_place) = self.in_flight.try_acquire() else {
            return no(Reason::UpstreamBusy, "too many questions are open");
        };
        match timeout(TIMEOUT, self.ask(token, identifier, ends)).await {
            Ok(answer) => answer,
            Err(_) => no(Reason::UpstreamSlow, "no whole answer within ten seconds"),
        }
    }

    async fn ask(&self, token: &Token, identifier: &Identifier, ends: Ends) -> Answer {
        let mut stream =
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(self.server.address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return no(Reason::UpstreamGone, format!("connect: {error}")),
                Err(_) => return no(Reason::UpstreamSlow, "not connected within two seconds"),
            };
        let Some(request) = request(token, identifier) else {
            // Token and identifier hold nothing that a URL or a field could not.
            return no(Reason::UpstreamGone, "the question could not be written");
        };
        if let Some(version) = self.server.proxy_protocol {
            let header = proxy_protocol::write(version, &ends);
            match stream.write_all(&header).await {
                Ok(()) => {}
                // Its answer may be there all the same.
                Err(error) if is_reset(&error) => {}
                Err(error) => return no(Reason::UpstreamGone, error.to_string()),
            }
        }
        let handshake = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_FIELDS)
            .max_buf_size(MAX_BUFFER_BYTES)
            .handshake(TokioIo::new(FrankStream::new(stream)))
            .await;
        let (mut sender, connection) = match handshake {
            Ok(parts) => parts,
            Err(error) => return no(Reason::UpstreamGone, error.to_string()),
        };
        let mut exchange = pin!(async {
            match sender.send_request(request).await {
                Ok(response) => understand(response, token).await,
                Err(error) => Err(not_answered(&error)),
            }
        });
        let connection = pin!(connection);
        tokio::select! {
            biased;
            answer = exchange.as_mut() => answer,
            // The connection may end before its last bytes were looked at; its own error, if any,
            // is what the exchange sees too.
            _ = connection => exchange.await,
        }
    }
}

fn no(reason: Reason, detail: impl Into<String>) -> Answer {
    Err((reason, Some(detail.into())))
}

/// The one question, the same bytes for the same token and identifier whatever the peer sent.
fn request(token: &Token, identifier: &Identifier) -> Option<Request<Empty<Bytes>>> {
    Request::get(format!("{PREFIX}{}", token.as_str()))
        .header(HOST, identifier.to_authority())
        .header(USER_AGENT, "acmegate")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .ok()
}

/// What hyper says instead of an answer.
fn not_answered(error: &hyper::Error) -> (Reason, Option<String>) {
    let detail = if error.is_incomplete_message() {
        // certbot's standalone server does so for every token that it does not know.
        "it closed without an answer".to_owned()
    } else {
        error.to_string()
    };
    let reason = match error.is_parse() {
        true => Reason::UpstreamLied,
        false => Reason::UpstreamGone,
    };
    (reason, Some(detail))
}

async fn understand(response: Response<Incoming>, token: &Token) -> Answer {
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err((Reason::UpstreamUnknown, None)),
        other => return no(Reason::UpstreamLied, format!("status {}", other.as_u16())),
    }
    let content = match Limited::new(response.into_body(), MAX_CONTENT_BYTES)
        .collect()
        .await
    {
        Ok(content) => content.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return no(
                Reason::UpstreamLied,
                format!("more than {MAX_CONTENT_BYTES} octets"),
            );
        }
        Err(_) => return no(Reason::UpstreamGone, "it closed within its answer"),
    };
    match KeyAuthorization::parse(&content) {
        Some(answer) if answer.token() == token => Ok(answer),
        Some(_) => no(Reason::UpstreamLied, "another token's key authorization"),
        None => no(Reason::UpstreamLied, "not a key authorization"),
    }
}

/// A stream that hears a responder out, however rude it is.
///
/// acme.sh's responders write their answer without reading the question. So the answer may be there
/// before hyper has asked, which hyper takes for an error; and our question may be met by a reset,
/// behind an answer that has arrived. Here nothing is read before something was written, a failed
/// write counts as done, and a reset is the end of the answer. Whatever was cut off by that is no
/// whole key authorization and fails for that.
struct FrankStream<S> {
    stream: S,
    has_written: bool,
    reader: Option<Waker>,
}

impl<S> FrankStream<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            has_written: false,
            reader: None,
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for FrankStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.has_written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.stream).poll_read(cx, buffer)) {
            Err(error) if is_reset(&error) => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrankStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            Err(error) if is_reset(&error) => Ok(bytes.len()),
            other => other,
        };
        self.has_written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Has its answer ready, resets on writes, and ends in a reset.
    struct Rude {
        answer: &'static [u8],
    }

    impl AsyncRead for Rude {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.answer.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buffer.put_slice(std::mem::take(&mut self.answer));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Rude {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_heard_before_the_question_and_all_of_it_afterwards() {
        let mut stream = FrankStream::new(Rude { answer: b"answer" });
        let mut heard = String::new();
        let early = timeout(Duration::from_secs(1), stream.read_u8()).await;
        assert!(early.is_err());
        stream.write_all(b"question").await.unwrap();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
    }

    #[tokio::test]
    async fn hyper_hears_an_answer_that_was_there_before_its_question() {
        let answer = b"HTTP/1.0 200 OK\r\n\r\nanswer";
        let stream = FrankStream::new(Rude { answer });
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut connection = pin!(connection);
        let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        // The connection is polled first: the question is only queued by then.
        let exchange = async {
            tokio::task::yield_now().await;
            let response = sender.send_request(request).await?;
            response.into_body().collect().await
        };
        let mut exchange = pin!(exchange);
        let content = tokio::select! {
            biased;
            _ = connection.as_mut() => exchange.await,
            content = exchange.as_mut() => content,
        };
        assert_eq!(content.unwrap().to_bytes(), "answer");
    }
}
