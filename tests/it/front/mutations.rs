//! Ten thousand damaged validations against an inner server that keeps what it is asked.

use std::net::SocketAddr;

use acmegate::answer::{Source, Upstream};
use acmegate::gate::token::Token;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::{
    PATH, Plan, THUMBPRINT, TOKEN, World, canonical, inner_server, read_reply, read_request, site,
    validation,
};

const INPUTS: u64 = 10_000;
const WORKERS: u64 = 4;

/// SplitMix64 (Steele, Lea, Flood, 2014): small, seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Pieces that have broken other servers.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"%2e",
    b"/../",
    b"//",
    b"\\",
    b"?a=b",
    b"#",
    b";",
    b"Host: inner.test\r\n",
    b"Host: other.test\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"X-Forwarded-For: 127.0.0.1\r\n",
    b"\r\nGET /admin HTTP/1.1\r\nHost: inner.test\r\n\r\n",
    b"\r\n\r\nGET /admin HTTP/1.1\r\nHost: inner.test\r\n\r\n",
    b"http://inner.test",
    b"\x16\x03\x01",
    b"\xc3\xa4",
    b"a",
];

fn mutate(random: &mut Random) -> Vec<u8> {
    let mut bytes = validation("inner.test", TOKEN).into_bytes();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => {
                let end = (at + 1 + random.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => {
                let end = (at + 1 + random.below(60)).min(bytes.len());
                let copied = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copied);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = random.below(bytes.len());
                bytes.swap(at, other);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// The token that a strict reader may find in these bytes, by another way than ours: the text
/// between the one prefix and the version.
fn token_in(bytes: &[u8]) -> Option<Token> {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let line = str::from_utf8(line).ok()?;
    let target = line
        .strip_prefix("GET ")
        .or_else(|| line.strip_prefix("HEAD "))?;
    let target = target
        .strip_suffix(" HTTP/1.1")
        .or_else(|| target.strip_suffix(" HTTP/1.0"))?;
    Token::parse(target.strip_prefix(PATH)?.as_bytes()).ok()
}

/// What became of a worker's share.
#[derive(Default)]
struct Tally {
    answered: usize,
    asked: usize,
}

async fn send(address: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    // Whatever looks unfinished ends here instead of by a timeout.
    let _ = stream.shutdown().await;
    read_reply(&mut stream).await.status()
}

/// An inner server that vouches for whatever token it is asked.
async fn obliging() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    inner_server(|mut stream, seen| async move {
        let request = read_request(&mut stream).await;
        let text = String::from_utf8_lossy(&request).into_owned();
        let _ = seen.send(request);
        let token = text
            .split(PATH)
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let content = format!("{}.{THUMBPRINT}", token.unwrap_or_default());
        let _ = stream
            .write_all(crate::harness::ok(&content).as_bytes())
            .await;
    })
    .await
}

async fn work(seed: u64) -> Tally {
    let (inner, mut seen) = obliging().await;
    let upstream = Source::Upstream(Upstream::new(inner));
    let world = World::start(Plan::of([(site(&["inner.test"]), upstream)]).covered());
    let mut tally = Tally::default();

    // The control: undamaged, it passes, and it is seen to pass.
    let control = validation("inner.test", TOKEN);
    assert_eq!(send(world.address, control.as_bytes()).await, Some(200));
    let asked = String::from_utf8(seen.recv().await.unwrap()).unwrap();
    assert_eq!(asked, canonical("inner.test", TOKEN));

    let mut random = Random(seed);
    for _ in 0..INPUTS / WORKERS {
        let bytes = mutate(&mut random);
        let status = send(world.address, &bytes).await;
        let shown = bytes.escape_ascii();
        let mut asked = 0;
        // The answer has gone through the front, so what was asked for it is here already.
        while let Ok(question) = seen.try_recv() {
            let token = token_in(&bytes).unwrap_or_else(|| panic!("asked for {shown}"));
            let question = String::from_utf8(question).unwrap();
            assert_eq!(question, canonical("inner.test", token.as_str()), "{shown}");
            asked += 1;
        }
        assert!(asked <= 1, "{shown}");
        assert_eq!(status == Some(200), asked == 1, "{status:?} for {shown}");
        tally.asked += asked;
        tally.answered += usize::from(status == Some(200));
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_the_inner_server_sees_nothing_or_the_canonical_question() {
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(0xac3e_6a7e + worker));
    }
    let tallies = workers.join_all().await;
    let answered: usize = tallies.iter().map(|tally| tally.answered).sum();
    let asked: usize = tallies.iter().map(|tally| tally.asked).sum();
    let inputs = INPUTS as usize;
    println!("{inputs} inputs, {asked} questions, {answered} answers");
    // Enough got through to mean something, and enough was damaged.
    assert!(answered * 100 >= inputs, "only {answered}");
    assert!(
        answered * 2 <= inputs,
        "{answered}: the inputs are hardly damaged"
    );
}
