//! A front on a loopback port with everything around it: rules, windows, a witness that keeps what
//! it was told, peers that send raw bytes, and inner servers that answer raw bytes.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use acmegate::answer::{Answers, Pushed, PushedAnswer, Source};
use acmegate::front::{Front, Rules, Servers, Settings, Speaks, serve};
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::event::{Ended, Witness};
use acmegate::gate::identifier::{Identifier, Pattern};
use acmegate::gate::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use acmegate::gate::site::{Redirect, Site};
use acmegate::gate::tls::Server;
use acmegate::gate::token::{KeyAuthorization, Thumbprint};
use acmegate::gate::window::Windows;
use acmegate::gate::{Exposure, Gate, Reason, RedirectFor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
pub const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
pub const PATH: &str = "/.well-known/acme-challenge/";

/// Nothing that is expected takes this long, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn key_authorization() -> KeyAuthorization {
    KeyAuthorization::parse(format!("{TOKEN}.{THUMBPRINT}").as_bytes()).unwrap()
}

pub fn thumbprint() -> Thumbprint {
    Thumbprint::parse(THUMBPRINT.as_bytes()).unwrap()
}

pub fn identifier(text: &str) -> Identifier {
    Identifier::parse(text).unwrap()
}

/// The request of a validator, as captured from Pebble.
pub fn validation(host: &str, token: &str) -> String {
    format!(
        "GET {PATH}{token} HTTP/1.1\r\n\
         Host: {host}\r\n\
         User-Agent: LetsEncrypt-Pebble-VA (linux; amd64)\r\n\
         Accept: */*\r\n\
         Accept-Encoding: gzip\r\n\
         Connection: close\r\n\
         \r\n"
    )
}

pub fn site(identifiers: &[&str]) -> Site {
    Site {
        identifiers: identifiers
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect(),
        is_default: identifiers.is_empty(),
        redirect: Redirect::Asked,
        accounts: Vec::new(),
    }
}

pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A lease on the given port that covers every identifier.
pub fn lease(name: &str, port: u16, length: Duration) -> Lease {
    Lease {
        id: 0,
        name: LeaseName::parse(name).unwrap(),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![port],
            families: Families::BOTH,
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline: now() + length,
    }
}

/// How a connection ended, as the witness was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub reason: Reason,
    pub peer: IpAddr,
    pub identifier: Option<String>,
    pub thumbprint: Option<String>,
    pub lease: Option<String>,
    pub detail: Option<String>,
    pub challenge: Option<String>,
    pub token: Option<String>,
    pub status: Option<u16>,
    pub octets: u64,
    pub is_listed: bool,
    pub accepted: Instant,
}

struct Teller(mpsc::UnboundedSender<Event>);

impl Witness for Teller {
    fn ended(&self, event: &Ended<'_>) {
        let _ = self.0.send(Event {
            reason: event.reason,
            peer: event.peer,
            identifier: event.identifier.map(ToString::to_string),
            thumbprint: event.thumbprint.map(|account| account.as_str().to_owned()),
            lease: event.lease.map(ToString::to_string),
            detail: event.detail.map(str::to_owned),
            challenge: event.challenge.map(|challenge| challenge.to_string()),
            token: event.token.map(|token| token.as_str().to_owned()),
            status: event.status,
            octets: event.octets,
            is_listed: event.is_listed,
            accepted: event.accepted,
        });
    }
}

/// What a front is started with.
pub struct Plan {
    pub sites: Vec<(Site, Source)>,
    pub allow: AllowList,
    pub exposure: Exposure,
    pub redirect_for: RedirectFor,
    pub settings: Settings,
    pub windows: Windows,
    pub listen: IpAddr,
    pub speaks: Speaks,
    /// The sites' responders for TLS-ALPN-01, in their order.
    pub tls_sources: Vec<Option<Server>>,
    pub servers: Servers,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            sites: vec![(site(&["example.com"]), Source::Pushed)],
            allow: AllowList::default(),
            exposure: Exposure::Open,
            redirect_for: RedirectFor::Everybody,
            settings: Settings::default(),
            windows: Windows::default(),
            listen: Ipv4Addr::LOCALHOST.into(),
            speaks: Speaks::Http,
            tls_sources: Vec::new(),
            servers: Servers::default(),
        }
    }
}

impl Plan {
    pub fn of(sites: impl IntoIterator<Item = (Site, Source)>) -> Self {
        Self {
            sites: sites.into_iter().collect(),
            ..Self::default()
        }
    }

    /// With a window on every port that lasts an hour.
    pub fn covered(mut self) -> Self {
        self.windows
            .adopt(lease("test", 80, Duration::from_secs(3600)));
        self
    }
}

/// A running front.
pub struct World {
    pub address: SocketAddr,
    pub front: Arc<Front>,
    pub pushed: Arc<Pushed>,
    pub rules: watch::Sender<Arc<Rules>>,
    pub windows: watch::Sender<Arc<Windows>>,
    pub shutdown: watch::Sender<bool>,
    pub server: JoinHandle<io::Result<()>>,
    pub events: mpsc::UnboundedReceiver<Event>,
}

impl World {
    /// Starts a front; the key authorization of [`TOKEN`] is pushed for example.com.
    pub fn start(plan: Plan) -> Self {
        Self::start_with(plan, Duration::from_secs(5))
    }

    pub fn start_with(plan: Plan, drain: Duration) -> Self {
        let pushed = Arc::new(Pushed::default());
        let hour = Duration::from_secs(3600);
        let name = identifier("example.com");
        let answer = PushedAnswer::Http01(key_authorization());
        pushed.add(name, answer, hour, now()).unwrap();
        let listener = std::net::TcpListener::bind((plan.listen, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let windows = watch::Sender::new(Arc::new(plan.windows.clone()));
        let speaks = plan.speaks;
        let rules = watch::Sender::new(Arc::new(rules(plan, &pushed)));
        let (teller, events) = mpsc::unbounded_channel();
        let front = Arc::new(Front::new(
            rules.subscribe(),
            windows.subscribe(),
            Arc::new(Teller(teller)),
        ));
        let shutdown = watch::Sender::new(false);
        let server = serve(
            listener,
            speaks,
            Arc::clone(&front),
            shutdown.subscribe(),
            drain,
        );
        let server = tokio::spawn(server);
        Self {
            address,
            front,
            pushed,
            rules,
            windows,
            shutdown,
            server,
            events,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn reload(&self, plan: Plan) {
        self.rules.send_replace(Arc::new(rules(plan, &self.pushed)));
    }

    pub fn change_windows(&self, change: impl FnOnce(&mut Windows)) {
        let mut windows = Windows::clone(&self.windows.borrow());
        change(&mut windows);
        self.windows.send_replace(Arc::new(windows));
    }

    /// The next connection's end.
    pub async fn ended(&mut self) -> Event {
        let event = patiently("no connection ended", self.events.recv()).await;
        event.unwrap()
    }

    pub async fn ended_by(&mut self, reason: Reason) -> Event {
        let event = self.ended().await;
        assert_eq!(event.reason, reason, "{event:?}");
        event
    }

    /// Waits until exactly `count` connections are held. By the wall clock: a paused one would
    /// never get on beside this.
    pub async fn holds(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.front.held_connections() != count {
            assert!(Instant::now() < deadline, "never held {count}");
            tokio::task::yield_now().await;
        }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub async fn connect_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from(source), 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Sends these bytes on a connection of their own and reads to its end.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect().await;
        stream.set_nodelay(true).unwrap();
        // A peer that is refused early may find the way shut while it still sends.
        let _ = stream.write_all(bytes.as_ref()).await;
        read_reply(&mut stream).await
    }
}

fn rules(plan: Plan, pushed: &Arc<Pushed>) -> Rules {
    let (sites, sources) = plan.sites.into_iter().unzip();
    Rules {
        gate: Gate {
            sites,
            allow: plan.allow.into(),
            exposure: plan.exposure,
            redirect_for: plan.redirect_for,
        },
        responder: Arc::new(Answers::new(Arc::clone(pushed), sources, plan.tls_sources)),
        servers: plan.servers,
        settings: plan.settings,
    }
}

/// What a peer got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub bytes: Vec<u8>,
    /// Whether the connection ended by a reset and not by an end of file.
    pub was_reset: bool,
}

impl Reply {
    pub fn status(&self) -> Option<u16> {
        let text = self.head();
        text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    pub fn head(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split_once("\r\n\r\n")
            .map_or(String::new(), |(head, _)| format!("{head}\r\n"))
    }

    pub fn content(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split_once("\r\n\r\n")
            .map_or(String::new(), |(_, content)| content.to_owned())
    }

    pub fn field(&self, name: &str) -> Option<String> {
        let head = self.head();
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    }
}

/// Waits for [`PATIENCE`] at most, by the wall clock. A paused one leaps to the next deadline whenever nobody can go
/// on, and with a deadline here it would leap over what the kernel has not delivered yet.
async fn patiently<T>(otherwise: &str, waited_for: impl Future<Output = T>) -> T {
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let (give_up, gave_up) = oneshot::channel();
    std::thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = give_up.send(());
        }
    });
    let value = tokio::select! {
        biased;
        value = waited_for => value,
        Ok(()) = gave_up => panic!("{otherwise}"),
    };
    drop(done);
    value
}

pub async fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let was_reset = match patiently("the connection never ended", read).await {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    };
    Reply { bytes, was_reset }
}

/// An inner server: `answer` is called for every connection; what it read from each comes back by
/// the receiver.
pub async fn inner_server<F, A>(answer: F) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>)
where
    F: Fn(TcpStream, mpsc::UnboundedSender<Vec<u8>>) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, seen.clone()));
        }
    });
    (address, receiver)
}

/// An inner server that reads a request, then sends these bytes and closes.
pub async fn answering(
    bytes: impl Into<Vec<u8>>,
) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let bytes = bytes.into();
    inner_server(move |mut stream, seen| {
        let bytes = bytes.clone();
        async move {
            let _ = seen.send(read_request(&mut stream).await);
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await
}

/// Reads to the empty line, or to the end.
pub async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    request
}

/// The bytes that every question to an upstream has.
pub fn canonical(host: &str, token: &str) -> String {
    format!(
        "GET {PATH}{token} HTTP/1.1\r\n\
         Host: {host}\r\n\
         User-Agent: acmegate\r\n\
         Accept: */*\r\n\
         Connection: close\r\n\
         \r\n"
    )
}

/// 200 and this content, as a plain server says it.
pub fn ok(content: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    )
}
