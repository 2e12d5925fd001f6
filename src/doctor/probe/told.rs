//! What a vantage point tells line by line (`script.sh`), made into what it saw. Pure, apart from instants that
//! are given.
//!
//! It is a host of the administrator's own, but what it repeats comes from networks: every text is bounded, every
//! number is checked, and what is no line of ours is left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::seen::{Family, Fetch, NameServer, Outcome};

/// The most lines that are read of one vantage point.
const MAX_LINES: usize = 4096;
/// The most octets that are kept of one answer: a head, and a key authorization (at most 172).
const MAX_ANSWER_BYTES: usize = 2048;
/// The most lines that are kept of what a program complains of.
const MAX_COMPLAINTS: usize = 8;
/// The most name servers and addresses that are kept.
const MAX_KEPT: usize = 128;
/// The longest text that is kept of a line, in characters.
const MAX_TEXT: usize = 200;

/// By what words curl, wget and that of BusyBox say that a connection came about and ended without an answer.
const BEHIND_A_CONNECTION: [&str; 6] = [
    "Operation timed out",
    "Empty reply",
    "Recv failure",
    "Read error",
    "No data received",
    "error getting response",
];

/// What one vantage point has told so far.
#[derive(Debug, Default)]
pub struct Told {
    mark: String,
    lines: usize,
    /// With which program it fetches, and with which it asks name servers; `none` for none.
    pub tools: Option<(String, String)>,
    /// Its own addresses, as it knows them: towards us first.
    pub own: Vec<IpAddr>,
    /// What it resolves each name to, by the name's number.
    pub resolved: BTreeMap<usize, Vec<IpAddr>>,
    /// What name servers answered it, with the number of the name.
    pub servers: Vec<(usize, NameServer)>,
    /// Whether it told everything.
    pub is_done: bool,
    tries: BTreeMap<(usize, Family), Try>,
}

#[derive(Debug)]
struct Try {
    begun: Instant,
    ended: Option<(Instant, i32)>,
    octets: Vec<u8>,
    complaints: Vec<String>,
}

impl Told {
    /// Nothing yet, by lines that begin with `mark`.
    pub fn new(mark: &str) -> Self {
        Self {
            mark: mark.to_owned(),
            ..Self::default()
        }
    }

    /// What each of its lines begins with.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Takes a line that came at an instant.
    pub fn line(&mut self, line: &str, at: Instant) {
        self.lines += 1;
        let rest = line.strip_prefix(self.mark.as_str());
        let Some(rest) = rest.filter(|_| self.lines <= MAX_LINES) else {
            return;
        };
        let mut words = rest.split_ascii_whitespace();
        let Some(word) = words.next() else { return };
        // A line that is not as it should be says nothing.
        let _ = match word {
            "tools" => words.next().zip(words.next()).map(|(fetches, asks)| {
                self.tools = Some((short(fetches), short(asks)));
            }),
            "connection" => words.nth(2).and_then(address).map(|own| self.keep_own(own)),
            "own" => words.next().and_then(address).map(|own| self.keep_own(own)),
            "address" => self.resolved(&mut words),
            "begin" => key(&mut words).map(|key| {
                self.tries.entry(key).or_insert(Try {
                    begun: at,
                    ended: None,
                    octets: Vec::new(),
                    complaints: Vec::new(),
                });
            }),
            "end" => self.ended(&mut words, at),
            "got" => self.got(&mut words),
            "said" => self.said(&mut words),
            "dns" => self.asked(&mut words),
            "done" => {
                self.is_done = true;
                Some(())
            }
            _ => None,
        };
    }

    fn keep_own(&mut self, own: IpAddr) {
        if !self.own.contains(&own) && self.own.len() < MAX_KEPT {
            self.own.push(own);
        }
    }

    fn resolved<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        let number = words.next()?.parse().ok()?;
        let address = address(words.next()?)?;
        let known = self.resolved.entry(number).or_default();
        if known.len() < MAX_KEPT {
            known.push(address);
        }
        Some(())
    }

    fn ended<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>, at: Instant) -> Option<()> {
        let tried = self.tries.get_mut(&key(words)?)?;
        tried.ended = Some((at, words.next()?.parse().ok()?));
        Some(())
    }

    fn got<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        let tried = self.tries.get_mut(&key(words)?)?;
        for word in words {
            let octet = u8::from_str_radix(word, 16).ok()?;
            if tried.octets.len() < MAX_ANSWER_BYTES {
                tried.octets.push(octet);
            }
        }
        Some(())
    }

    fn said<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        let tried = self.tries.get_mut(&key(words)?)?;
        let said: Vec<&str> = words.collect();
        let said = said.join(" ");
        if !said.is_empty() && tried.complaints.len() < MAX_COMPLAINTS {
            tried.complaints.push(short(&said));
        }
        Some(())
    }

    fn asked<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Option<()> {
        let number = words.next()?.parse().ok()?;
        let server = NameServer {
            name: short(words.next()?),
            address: short(words.next()?),
            transport: match words.next()? {
                "udp" => "udp",
                "tcp" => "tcp",
                _ => return None,
            },
            answer: match words.next()? {
                "none" => None,
                "untried" => return None,
                said => Some(short(said)),
            },
        };
        if self.servers.len() < MAX_KEPT {
            self.servers.push((number, server));
        }
        Some(())
    }

    /// What came of fetching the token of a name, where `expected` should have come.
    pub fn fetches(&self, number: usize, expected: &str) -> Vec<Fetch> {
        let of = self.tries.iter().filter(|((of, _), _)| *of == number);
        of.map(|((_, family), tried)| self.fetch(*family, tried, expected))
            .collect()
    }

    fn fetch(&self, family: Family, tried: &Try, expected: &str) -> Fetch {
        let Some((ended, code)) = tried.ended else {
            return Fetch {
                family,
                outcome: Outcome::Silent("it did not end in time".to_owned()),
                took: None,
            };
        };
        let has_head = tried.octets.starts_with(b"HTTP/");
        let answer = match (has_head, code) {
            (true, _) => split(&tried.octets),
            // A wget that shows no heads ends well where the status is 200.
            (false, 0) => Some((200, tried.octets.as_slice())),
            (false, _) => self.status_in(tried).map(|status| (status, &[][..])),
        };
        let outcome = match answer {
            Some((status, body)) => Outcome::Answered {
                status,
                // As CAs do: white space at the end is cut (RFC 8555 §8.3).
                matches: body.trim_ascii_end() == expected.as_bytes(),
            },
            None => {
                let why = tried.complaints.last().cloned();
                let why = why.unwrap_or_else(|| format!("exit code {code}"));
                // Behind a connection that came about nothing was dropped on the way in.
                let is_behind = BEHIND_A_CONNECTION.iter().any(|words| why.contains(words));
                match has_head || is_behind {
                    true => Outcome::Broken(why),
                    false => Outcome::Silent(why),
                }
            }
        };
        Fetch {
            family,
            outcome,
            took: u64::try_from(ended.saturating_duration_since(tried.begun).as_millis()).ok(),
        }
    }

    /// The status that a wget complains of.
    fn status_in(&self, tried: &Try) -> Option<u16> {
        let lines = tried.complaints.iter();
        lines
            .filter_map(|line| line.split_once("HTTP/1.")?.1.get(2..5)?.parse().ok())
            .next_back()
    }
}

/// Status and body of an answer with its head.
fn split(octets: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    match head.parse(octets) {
        Ok(httparse::Status::Complete(length)) => Some((head.code?, &octets[length..])),
        _ => None,
    }
}

fn key<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<(usize, Family)> {
    let number = words.next()?.parse().ok()?;
    let family = match words.next()? {
        "4" => Family::Ipv4,
        "6" => Family::Ipv6,
        "any" => Family::Any,
        _ => return None,
    };
    Some((number, family))
}

fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    Some(address.to_canonical())
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WANTED: &str = "token.thumbprint";

    fn told(lines: &str) -> Told {
        let mut told = Told::new("m4rk");
        let mut at = Instant::now();
        for line in lines.lines() {
            told.line(line, at);
            at += Duration::from_millis(10);
        }
        told
    }

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!(" {byte:02x}")).collect()
    }

    fn one(lines: &str) -> Outcome {
        let told = told(&format!("m4rk begin 0 4\n{lines}"));
        let fetches = told.fetches(0, WANTED);
        assert_eq!(fetches.len(), 1);
        fetches[0].outcome.clone()
    }

    #[test]
    fn an_answer_is_the_status_and_whether_the_octets_are_those() {
        let answer = |status: &str, body: &str| {
            let answer = hex(&format!(
                "HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\n{body}"
            ));
            one(&format!("m4rk got 0 4{answer}\nm4rk end 0 4 0"))
        };
        let is = |status, matches| Outcome::Answered { status, matches };
        assert_eq!(answer("200", WANTED), is(200, true));
        assert_eq!(answer("200", "token.thumbprint\r\n"), is(200, true));
        assert_eq!(answer("200", " token.thumbprint"), is(200, false));
        assert_eq!(answer("404", WANTED), is(404, true));
    }

    #[test]
    fn a_wget_without_heads_is_understood() {
        let body = hex(WANTED);
        let is = |status, matches| Outcome::Answered { status, matches };
        assert_eq!(
            one(&format!("m4rk got 0 4{body}\nm4rk end 0 4 0")),
            is(200, true)
        );
        assert_eq!(
            one(
                "m4rk said 0 4 wget: server returned error: HTTP/1.1 403 Forbidden\nm4rk end 0 4 1"
            ),
            is(403, false)
        );
    }

    #[test]
    fn silence_is_told_with_the_programs_own_words_and_a_broken_answer_apart() {
        let said =
            "curl: (28) Failed to connect to a.test port 80 after 10001 ms: Timeout was reached";
        assert_eq!(
            one(&format!("m4rk said 0 4 {said}\nm4rk end 0 4 28")),
            Outcome::Silent(said.to_owned())
        );
        for (said, code) in [
            (
                "curl: (28) Operation timed out after 18001 milliseconds with 0 bytes received",
                28,
            ),
            ("curl: (52) Empty reply from server", 52),
            ("curl: (56) Recv failure: Connection reset by peer", 56),
            ("Read error (Connection reset by peer) in headers.", 4),
            ("No data received.", 4),
            ("wget: error getting response", 1),
        ] {
            assert_eq!(
                one(&format!("m4rk said 0 4 {said}\nm4rk end 0 4 {code}")),
                Outcome::Broken(said.to_owned())
            );
        }
        assert!(matches!(one(""), Outcome::Silent(_)));
    }

    #[test]
    fn whoever_began_to_answer_was_reached() {
        // Of a head that is longer than what is kept the end is missing.
        let head = hex(&format!(
            "HTTP/1.1 301 Moved\r\nSet-Cookie: {}",
            "x".repeat(3000)
        ));
        for code in [0, 23, 56] {
            let outcome = one(&format!("m4rk got 0 4{head}\nm4rk end 0 4 {code}"));
            assert_eq!(outcome, Outcome::Broken(format!("exit code {code}")));
        }
    }

    #[test]
    fn what_is_no_line_of_ours_says_nothing() {
        let long = "x".repeat(10_000);
        let told = told(&format!(
            "Welcome!\ndone\nm4rk\nm4rk nonsense 1\nm4rk dns 0 ns.test 1.2.3.4 smoke NOERROR\n\
             m4rk end 7 4 0\nm4rk got 0 4 zz\nm4rk own elsewhere\nm4rk dns 0 {long} 1.2.3.4 udp REFUSED\n\
             m4rk connection 10.0.0.1 1 198.51.100.7 22\nm4rk own 198.51.100.7\nm4rk address 1 ::ffff:192.0.2.1"
        ));
        assert!(!told.is_done && told.fetches(0, WANTED).is_empty());
        assert_eq!(told.servers.len(), 1);
        assert_eq!(told.servers[0].1.name.len(), MAX_TEXT);
        assert_eq!(told.own, ["198.51.100.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(told.resolved[&1], ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn much_is_bounded() {
        let mut told = Told::new("m");
        let at = Instant::now();
        told.line("m begin 0 4", at);
        for _ in 0..10_000 {
            told.line(&format!("m got 0 4{}", hex(&"y".repeat(64))), at);
            told.line("m said 0 4 something", at);
            told.line("m dns 0 a 1.2.3.4 udp NOERROR", at);
        }
        let tried = &told.tries[&(0, Family::Ipv4)];
        assert_eq!(tried.octets.len(), MAX_ANSWER_BYTES);
        assert_eq!(tried.complaints.len(), MAX_COMPLAINTS);
        assert_eq!(told.servers.len(), MAX_KEPT);
    }
}
