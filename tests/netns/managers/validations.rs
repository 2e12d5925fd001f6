//! A validator outside that asks for the same token again and again, over both families.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::host::{HOST_4, HOST_6, Host, socket_address};
use crate::lab::{Daemon, wait_for};

/// The identifier that is validated.
pub const NAME: &str = "www.example.com";
const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
/// The account's part of the key authorization.
const THUMBPRINT: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
/// What Let's Encrypt gives one validation.
const LIMIT: Duration = Duration::from_secs(10);
/// Between one and the next of a family.
const PAUSE: Duration = Duration::from_millis(20);

/// A site whose answer is [`push`]ed.
pub fn site() -> String {
    format!("[[site]]\nidentifiers = [\"{NAME}\"]\nanswer = \"pushed\"\n")
}

/// What a validator expects to read.
pub fn key_authorization() -> String {
    format!("{TOKEN}.{THUMBPRINT}")
}

/// Gives the daemon the answer.
#[track_caller]
pub fn push(daemon: &Daemon) {
    daemon
        .cli(&["answer", "add", NAME, &key_authorization()])
        .success();
}

/// Answers every request alike, as long as the test lives.
pub fn serve(listener: TcpListener, body: String) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // Probes say nothing and go; a validator asks in one piece.
            std::thread::spawn(move || {
                if stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
}

/// One validation.
#[derive(Clone)]
pub struct Validation {
    pub at: Instant,
    pub to: SocketAddr,
    pub took: Duration,
    /// What came instead of the answer.
    pub failure: Option<String>,
}

/// Validations that go on until this is dropped.
pub struct Validations {
    done: Arc<Mutex<Vec<Validation>>>,
    _stop: Vec<Sender<()>>,
}

impl Validations {
    /// Begins to ask, each family in a row of its own.
    pub fn start(host: &Host) -> Self {
        let done = Arc::new(Mutex::new(Vec::new()));
        let begin = |address| {
            let to = socket_address(address, 80);
            let (stop, stopped) = channel::<()>();
            let done = Arc::clone(&done);
            let ask_on = move || {
                while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    let at = Instant::now();
                    let failure = validate(to).err();
                    let took = at.elapsed();
                    done.lock().expect("nobody panics").push(Validation {
                        at,
                        to,
                        took,
                        failure,
                    });
                }
            };
            // A thread of the peers' own: it lives where they live.
            host.outside(|| drop(std::thread::spawn(ask_on)));
            stop
        };
        Self {
            _stop: [HOST_4, HOST_6].map(begin).into(),
            done,
        }
    }

    /// What ended so far.
    pub fn done(&self) -> Vec<Validation> {
        self.done.lock().expect("nobody panics").clone()
    }

    /// Waits until one of each family that began after `moment` was answered.
    #[track_caller]
    pub fn wait_for_answers(&self, moment: Instant) {
        wait_for(LIMIT * 2, "validations are answered", || {
            let done = self.done();
            let answered = |is_ipv4: bool| {
                done.iter().any(|validation| {
                    validation.to.is_ipv4() == is_ipv4
                        && validation.at >= moment
                        && validation.failure.is_none()
                })
            };
            (answered(true) && answered(false)).then_some(())
        });
    }
}

/// One validation, as a CA does it: connect, ask, read to the end.
fn validate(to: SocketAddr) -> Result<(), String> {
    let start = Instant::now();
    let body = ask(to, start).map_err(|error| format!("{error} after {:?}", start.elapsed()))?;
    match body.ends_with(&format!("\r\n\r\n{}", key_authorization())) {
        true => Ok(()),
        false => Err(body),
    }
}

fn ask(to: SocketAddr, start: Instant) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    let left = LIMIT.saturating_sub(start.elapsed());
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let request = format!(
        "GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\nHost: {NAME}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
