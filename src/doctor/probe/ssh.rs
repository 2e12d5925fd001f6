//! Vantage points by ssh: hosts of the administrator's own, on which nothing is installed but curl or wget.
//!
//! The system's ssh is started with the destination as one argument behind `--`, never through a shell here. What
//! runs over there is one fixed script on its standard input (`script.sh`); names and tokens are its arguments, in
//! alphabets that mean nothing to any shell, and in quotes all the same. ssh asks nobody anything (`BatchMode`), and
//! host keys are checked as its own configuration says. What comes back is capped and believed only as far as
//! `told.rs` says.

use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::Question;
use super::told::Told;

/// What runs over there.
const SCRIPT: &str = include_str!("script.sh");
/// The most octets that are read of its answer.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// The most octets that are read of what ssh complains of.
const MAX_COMPLAINT_BYTES: u64 = 4096;
/// What ssh itself ends with when it fails (ssh(1)).
const SSH_FAILED: i32 = 255;

/// How ssh is told to behave: it asks nobody, forwards nothing, gives up, and leaves nothing behind that would hold
/// our pipe. A destination's own settings stand behind these.
const OPTIONS: [&str; 9] = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=2",
    "ClearAllForwardings=yes",
    "ControlMaster=no",
    "ControlPath=none",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
];

/// Whether this can be a destination of ssh: never an option, and nothing that a terminal or ssh's own
/// configuration would take for something else.
pub fn is_destination(text: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'.' | b'-' | b'_' | b'@' | b':' | b'[' | b']' | b'/' | b'%' | b'+'
            )
    };
    !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.bytes().all(is_plain)
}

/// Asks one vantage point. What it told is in `told` at every moment, so that a deadline loses nothing; the process
/// ends when this is dropped.
///
/// # Errors
/// One line: why it could not be asked.
pub async fn ask(
    destination: &str,
    questions: &[Question],
    servers: &[String],
    told: &mut Told,
) -> Result<(), String> {
    let mut command = Command::new("ssh");
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    command.args(["-a", "-x", "-T", "--", destination]);
    command.arg(over_there(told.mark(), questions, servers));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("ssh cannot be started ({error}): install openssh-client"))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err("ssh has no pipes".to_owned());
    };
    let send = async move {
        // Whoever does not read it ends, and that is told below.
        let _ = stdin.write_all(SCRIPT.as_bytes()).await;
    };
    let hear = async {
        let mut lines = BufReader::new(stdout.take(MAX_ANSWER_BYTES));
        let mut line = Vec::new();
        while !told.is_done && matches!(lines.read_until(b'\n', &mut line).await, Ok(1..)) {
            told.line(&String::from_utf8_lossy(&line), Instant::now());
            line.clear();
        }
    };
    let complaining = tokio::spawn(async move {
        let mut said = Vec::new();
        let _ = stderr
            .take(MAX_COMPLAINT_BYTES)
            .read_to_end(&mut said)
            .await;
        said
    });
    tokio::join!(send, hear);
    if told.is_done {
        // Whoever is done is not waited for.
        complaining.abort();
        return Ok(());
    }
    let complaint = complaining.await.unwrap_or_default();
    let code = child.wait().await.ok().and_then(|status| status.code());
    let complaint = String::from_utf8_lossy(&complaint);
    let last = complaint.lines().rfind(|line| !line.trim().is_empty());
    Err(match (code, last) {
        (Some(SSH_FAILED), Some(last)) => format!("ssh: {last}"),
        (_, Some(last)) => format!("it ended before it was done: {last}"),
        (_, None) => "it ended before it was done".to_owned(),
    })
}

/// The command line that the other side's shell reads, whichever that is.
fn over_there(mark: &str, questions: &[Question], servers: &[String]) -> String {
    let servers = match servers {
        [] => "-".to_owned(),
        servers => servers.join(","),
    };
    let of_questions = questions.iter().flat_map(|question| {
        let token = question.answer.token().as_str().to_owned();
        [question.name.to_authority(), token]
    });
    let words = [mark.to_owned(), servers].into_iter().chain(of_questions);
    let quoted: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    format!("sh -s -- {}", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::identifier::Identifier;

    #[test]
    fn a_destination_is_never_an_option_and_never_more_than_one_word() {
        for good in [
            "host",
            "me@host.example.com",
            "ssh://me@host:2222",
            "[2001:db8::1]",
            "fe80::1%eth0",
        ] {
            assert!(is_destination(good), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "a\nb",
            "$(x)",
            "a'b",
            "ü",
            &long,
        ] {
            assert!(!is_destination(bad), "{bad}");
        }
    }

    #[test]
    fn every_word_over_there_means_itself_to_any_shell() {
        let names = ["www.example.com", "2001:db8::1"].map(|name| Identifier::parse(name).unwrap());
        let questions: Vec<Question> = names
            .into_iter()
            .map(|name| Question::of(name, None).unwrap())
            .collect();
        let line = over_there("m4rk", &questions, &["192.0.2.53".to_owned()]);
        let tokens: Vec<&str> = questions
            .iter()
            .map(|question| question.answer.token().as_str())
            .collect();
        assert_eq!(
            line,
            format!(
                "sh -s -- 'm4rk' '192.0.2.53' 'www.example.com' '{}' '[2001:db8::1]' '{}'",
                tokens[0], tokens[1]
            )
        );
    }
}
