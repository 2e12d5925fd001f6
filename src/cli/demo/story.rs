//! The story: seven steps, each a promise that is kept before the next one is told.
//!
//! What a step asserts is seen from outside, by packets; what acmegate says about itself is only
//! shown. A step that is not as promised ends the story with what was expected and what was seen.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::inner::InnerServer;
use super::peer::{self, Answer, Knock};
use super::processes::Processes;
use super::screen::Screen;
use super::step::{Mismatch, Step};
use super::world::{HTTP, Knocked, SERVICE_V4, SERVICE_V6, World, family};

/// The site whose certificate the story is about.
pub const IDENTIFIER: &str = "www.example.com";
/// A site that an inner server answers for.
pub const INNER_IDENTIFIER: &str = "inner.example.com";

/// The token and the account thumbprint of RFC 8555 §8.3 and RFC 7638 §3.1.
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
/// A token that no client ever asked for.
const WRONG_TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// How long a knock waits before it counts as dropped. A live edge answers within a millisecond,
/// and a SYN is not sent again before a second has passed (RFC 6298 §2.1).
const SILENCE: Duration = Duration::from_millis(300);
/// How long an answer may take that should come at once; so long only for the busiest machine.
const ANSWER: Duration = Duration::from_secs(3);
/// The window that nobody is left to close.
const LAST_WINDOW: Duration = Duration::from_secs(4);
/// By how much the kernel may be late: its timers and ours, on a busy machine.
const LATE: Duration = Duration::from_millis(500);
/// How often the world knocks while it waits for the kernel.
const BETWEEN_KNOCKS: Duration = Duration::from_millis(100);

/// One telling of the story.
pub struct Story<'a, W> {
    pub world: &'a World,
    pub inner: &'a mut InnerServer,
    pub processes: &'a mut Processes,
    pub screen: &'a mut Screen<W>,
}

impl<W: Write> Story<'_, W> {
    /// Tells one step.
    ///
    /// # Errors
    /// [`Mismatch`]: it was not as promised.
    pub async fn tell(&mut self, step: Step) -> Result<String, Mismatch> {
        match step {
            Step::Start => self.start().await,
            Step::Shut => self.shut().await,
            Step::Open => self.open().await,
            Step::Validate => self.validate().await,
            Step::Visit => self.visit().await,
            Step::Close => self.close().await,
            Step::Kill => self.kill().await,
        }
    }

    async fn start(&mut self) -> Result<String, Mismatch> {
        self.screen.command("acmegate run --config acmegate.toml");
        let began = Instant::now();
        self.processes
            .start_gate()
            .await
            .map_err(|seen| Mismatch::new("acmegate run answers on its control socket", seen))?;
        let milliseconds = began.elapsed().as_millis();
        Ok(format!("ready after {milliseconds} ms"))
    }

    async fn shut(&mut self) -> Result<String, Mismatch> {
        self.expect_everywhere(&Knock::Silence).await?;
        Ok("every knock on port 80 meets silence, from six networks, IPv4 and IPv6".to_owned())
    }

    async fn open(&mut self) -> Result<String, Mismatch> {
        self.hook(&["open", "--lease", "demo", "--for", "30s"])
            .await?;
        let key_authorization = format!("{TOKEN}.{THUMBPRINT}");
        self.hook(&["answer", "add", IDENTIFIER, &key_authorization])
            .await?;
        Ok("a window for 30 s, an answer for one token".to_owned())
    }

    /// Three over IPv4 and three over IPv6, all at once, as a CA does.
    async fn validate(&mut self) -> Result<String, Mismatch> {
        let request = &peer::validation_request(IDENTIFIER, TOKEN);
        let attempts = self.world.networks.iter().enumerate().map(|(n, network)| {
            let address: IpAddr = if n % 2 == 0 {
                SERVICE_V4.into()
            } else {
                SERVICE_V6.into()
            };
            let to = SocketAddr::new(address, HTTP);
            async move {
                let answer = peer::ask(&network.netns, to, request, ANSWER).await;
                (network.region, to, answer)
            }
        });
        let expected = format!("{TOKEN}.{THUMBPRINT}");
        let is_right = |answer: &Answer| answer.status == 200 && answer.body == expected.as_bytes();
        let answers = peer::all(attempts).await;
        let wrong: Vec<String> = answers
            .iter()
            .filter(|(_, _, answer)| !answer.as_ref().is_ok_and(is_right))
            .map(|(region, to, answer)| format!("{region} to {to}: {}", told(answer)))
            .collect();
        if !wrong.is_empty() {
            let promise = "200 and exactly the key authorization, at all six";
            return Err(Mismatch::new(promise, wrong.join("\n")));
        }
        let who: Vec<String> = answers
            .iter()
            .map(|(region, to, _)| format!("{} {}", region.name(), family(*to)))
            .collect();
        for row in who.chunks(3) {
            self.screen.aside(&format!("200: {}", row.join(", ")));
        }
        Ok("200 and exactly the key authorization".to_owned())
    }

    async fn visit(&mut self) -> Result<String, Mismatch> {
        let home = format!("https://{IDENTIFIER}/");
        let inner_home = format!("https://{INNER_IDENTIFIER}/");
        let leads = |answer: &Answer, to: &str| {
            let location = answer.location.as_deref();
            matches!(answer.status, 301 | 308) && location.is_some_and(|l| l.starts_with(to))
        };
        let refused =
            |answer: &Answer, status| answer.status == status && answer.location.is_none();
        self.expect_answer(
            &format!("GET / for {IDENTIFIER}"),
            &format!("a redirect to {home}"),
            &peer::visit_request(IDENTIFIER, "/"),
            |answer| leads(answer, &home),
        )
        .await?;
        self.expect_answer(
            &format!("GET /admin for {SERVICE_V4}"),
            "421 and no Location",
            &peer::visit_request(&SERVICE_V4.to_string(), "/admin"),
            |answer| refused(answer, 421),
        )
        .await?;
        self.expect_answer(
            &format!("GET /admin for {INNER_IDENTIFIER}"),
            &format!("a redirect to {inner_home}"),
            &peer::visit_request(INNER_IDENTIFIER, "/admin"),
            |answer| leads(answer, &inner_home),
        )
        .await?;
        self.expect_answer(
            &format!("a token that nobody pushed, for {IDENTIFIER}"),
            "404 and no Location",
            &peer::validation_request(IDENTIFIER, WRONG_TOKEN),
            |answer| refused(answer, 404),
        )
        .await?;
        let promise = "nobody reached the inner server";
        match self.inner.strangers(&self.world.edge).await {
            Ok(0) => Ok("a redirect or a refusal; the inner server saw nobody".to_owned()),
            Ok(count) => Err(Mismatch::new(promise, format!("{count} connections to it"))),
            Err(error) => Err(Mismatch::new(promise, error)),
        }
    }

    async fn close(&mut self) -> Result<String, Mismatch> {
        self.hook(&["close", "--lease", "demo"]).await?;
        self.expect_everywhere(&Knock::Silence).await?;
        Ok("silence again, at once".to_owned())
    }

    /// Nobody is left to close this window but the kernel.
    async fn kill(&mut self) -> Result<String, Mismatch> {
        let before = Instant::now();
        let length = format!("{}s", LAST_WINDOW.as_secs());
        self.hook(&["open", "--lease", "demo", "--for", &length])
            .await?;
        let opened = Instant::now();
        self.expect_everywhere(&Knock::Connected).await?;

        let (gate, others) = self.processes.kill_gate().await.map_err(|seen| {
            Mismatch::new(
                "the gate's other processes end with it, by themselves",
                seen,
            )
        })?;
        self.screen.command(&format!(
            "kill -9 {}      # {} more of its processes ended by themselves",
            gate.as_raw_nonzero(),
            others.len()
        ));
        // The positive control: the firewall still lets the packet in, and the kernel answers it.
        self.expect_everywhere(&Knock::Refused).await?;
        let alive = before.elapsed();
        if alive >= LAST_WINDOW {
            return Err(Mismatch::new(
                format!("all this within the {length} of the window"),
                format!("it took {alive:.1?}: this machine is too busy"),
            ));
        }
        self.screen.aside(&format!(
            "{:.1} s after opening: refused, so knocks still pass the firewall",
            opened.elapsed().as_secs_f32()
        ));
        let silent = self.wait_for_silence(opened).await?;
        if silent + LATE < LAST_WINDOW {
            let promise = format!("the window lives for {length}, whoever dies");
            return Err(Mismatch::new(
                promise,
                format!("silence after {silent:.1?}"),
            ));
        }
        Ok(format!(
            "silence {:.1} s after opening, by the kernel",
            silent.as_secs_f32()
        ))
    }

    /// Knocks until nobody is answered any more; returns how long after `opened` that was.
    async fn wait_for_silence(&self, opened: Instant) -> Result<Duration, Mismatch> {
        loop {
            let since = opened.elapsed();
            let knocked = self.world.knock_from_everywhere(SILENCE).await;
            let Some(passed) = knocked.iter().find(|k| k.knock != Knock::Silence) else {
                return Ok(since);
            };
            if since > LAST_WINDOW + LATE {
                let promise = format!("silence {LAST_WINDOW:?} after opening");
                return Err(Mismatch::new(
                    promise,
                    format!("after {since:.1?}: {passed}"),
                ));
            }
            sleep(BETWEEN_KNOCKS).await;
        }
    }

    async fn expect_everywhere(&self, expected: &Knock) -> Result<(), Mismatch> {
        let patience = if *expected == Knock::Silence {
            SILENCE
        } else {
            ANSWER
        };
        let knocked = self.world.knock_from_everywhere(patience).await;
        let others: Vec<&Knocked> = knocked.iter().filter(|k| k.knock != *expected).collect();
        let Some(first) = others.first() else {
            return Ok(());
        };
        let mut seen = first.to_string();
        if others.len() > 1 {
            seen += &format!("\nand so on, {} of {}", others.len(), knocked.len());
        }
        let promise = format!("every knock on port {HTTP} meets this: {expected}");
        Err(Mismatch::new(promise, seen))
    }

    /// Sends one request over each family.
    async fn expect_answer(
        &mut self,
        what: &str,
        promise: &str,
        request: &str,
        is_right: impl Fn(&Answer) -> bool,
    ) -> Result<(), Mismatch> {
        let visitor = &self.world.networks[0];
        for address in [IpAddr::V4(SERVICE_V4), IpAddr::V6(SERVICE_V6)] {
            let to = SocketAddr::new(address, HTTP);
            let answer = peer::ask(&visitor.netns, to, request, ANSWER).await;
            if !answer.as_ref().is_ok_and(&is_right) {
                let seen = format!("{} to {to}: {}", visitor.region, told(&answer));
                return Err(Mismatch::new(format!("{what}: {promise}"), seen));
            }
        }
        self.screen.aside(&format!("{what}: {promise}"));
        Ok(())
    }

    /// Runs a command of the binary as a hook would: only its exit code counts.
    async fn hook(&mut self, arguments: &[&str]) -> Result<(), Mismatch> {
        let shown = format!("acmegate {}", arguments.join(" ")).replace(
            &format!("{TOKEN}.{THUMBPRINT}"),
            &format!("{}….{}…", &TOKEN[..8], &THUMBPRINT[..8]),
        );
        let promise = format!("`{shown}` exits 0");
        self.screen.command(&shown);
        let ended = self
            .processes
            .acmegate(arguments)
            .await
            .map_err(|seen| Mismatch::new(&promise, seen))?;
        let said = ended.said.trim_end();
        if !ended.status.success() {
            return Err(Mismatch::new(&promise, format!("{}: {said}", ended.status)));
        }
        self.screen.aside(said);
        Ok(())
    }
}

fn told(answer: &Result<Answer, String>) -> String {
    match answer {
        Ok(answer) => answer.to_string(),
        Err(error) => error.clone(),
    }
}
