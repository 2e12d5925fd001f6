//! One program, from its start to its end.
//!
//! It gets exactly the arguments that it was given, a process group of its own, a fixed search path
//! and `LANG=C` as its whole environment, the root directory, and one JSON object on its standard
//! input. It is ended at its deadline, with everything in its group. What it leaves behind and what
//! it prints without end keep nobody waiting.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use super::message::Fault;
use crate::gate::command::Run;
use crate::locked::locked;

/// Where programs are looked for, and the PATH that they get: the system's default, whatever the
/// service manager or an operator's shell has.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a program may take to end when it is asked to.
pub const TERMINATION: Duration = Duration::from_secs(1);
/// How long the last words of a program that ended are waited for: they are in the pipe already,
/// unless something that it left behind holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much of each stream is kept, from its end.
const KEPT_BYTES: usize = 4096;
/// How many characters of a program's last line are quoted.
const QUOTED_CHARS: usize = 160;

/// Why a program did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault it is.
    pub fault: Fault,
    /// One line for the operator.
    pub text: String,
}

impl Failure {
    /// A failure in words.
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self {
            fault,
            text: text.into(),
        }
    }
}

/// Where a program is that can be executed: an absolute path as it is, a name by [`SEARCH_PATH`].
pub fn find(program: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| is_program(path));
    }
    SEARCH_PATH
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| is_program(path))
}

/// Runs a program to its end. When the deadline passes, or `hung_up` becomes true, its group is
/// asked to end, and killed after [`TERMINATION`]. Where `hung_up` is true already nothing is started.
///
/// # Errors
/// [`Failure`]: anything but an exit with 0.
pub async fn run(
    run: &Run,
    input: &str,
    deadline: Instant,
    mut hung_up: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let name = run.program.escape_debug();
    if *hung_up.borrow() {
        // To be ended half-way would be worse than not to begin, and would take its time for each.
        let text = format!("`{name}` was not started: acmegate is ending");
        return Err(Failure::new(Fault::Slow, text));
    }
    let program = find(&run.program).ok_or_else(|| {
        let text = match run.program.starts_with('/') {
            true => format!("`{name}` is no program on this host"),
            false => format!("`{name}` is in none of {SEARCH_PATH}"),
        };
        Failure::new(Fault::Missing, text)
    })?;
    let started = Instant::now();
    let mut child = start(&program, &run.arguments).map_err(|error| {
        Failure::new(
            Fault::Missing,
            format!("`{name}` cannot be started: {error}"),
        )
    })?;
    let (said, errors) = (Mutex::default(), Mutex::default());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut listening = std::pin::pin!(async {
        let telling = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read it is free not to.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        tokio::join!(telling, listen(stdout, &said), listen(stderr, &errors));
    });
    let mut is_silent = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break Some(status),
            () = &mut listening, if !is_silent => is_silent = true,
            () = tokio::time::sleep_until(deadline) => break None,
            () = is_hung_up(&mut hung_up) => break None,
        }
    };
    match status {
        Some(_) if !is_silent => {
            let _ = tokio::time::timeout(LAST_WORDS, &mut listening).await;
        }
        Some(_) => {}
        None => end(&mut child).await,
    }
    let last = last_line(&locked(&errors)).or_else(|| last_line(&locked(&said)));
    let last = last.map_or(String::new(), |line| format!(": {line}"));
    match status {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => {
            let how = how_it_ended(status);
            Err(Failure::new(Fault::Failed, format!("`{name}` {how}{last}")))
        }
        Some(Err(error)) => Err(Failure::new(
            Fault::Failed,
            format!("`{name}` was lost: {error}"),
        )),
        None => {
            let seconds = started.elapsed().saturating_sub(TERMINATION).as_secs_f32();
            let text = format!("`{name}` was ended after {seconds:.1} s{last}");
            Err(Failure::new(Fault::Slow, text))
        }
    }
}

fn start(program: &Path, arguments: &[String]) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("LANG", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Ends a program with everything in its group. It is reaped last: until then its number, which is
/// the group's, is nobody else's.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(group) = group.and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::TERM);
        tokio::time::sleep(TERMINATION).await;
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

async fn is_hung_up(hung_up: &mut watch::Receiver<bool>) {
    // Nobody is left to hang up when this fails.
    let _ = hung_up.wait_for(|hung_up| *hung_up).await;
}

/// Reads a stream to its end and keeps the end of it.
async fn listen(stream: Option<impl AsyncRead + Unpin>, kept: &Mutex<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut part = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        let mut kept = locked(kept);
        kept.extend_from_slice(&part[..count]);
        let too_many = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..too_many);
    }
}

/// The last line that is not empty, fit for a terminal.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?.trim();
    let mut shown = String::new();
    for c in line.chars().take(QUOTED_CHARS) {
        match c {
            '\'' | '"' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    Some(shown)
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, deadline: Duration) -> Result<(), Failure> {
        let (_front, hung_up) = watch::channel(false);
        run(&shell(script), "{}", Instant::now() + deadline, hung_up).await
    }

    fn shell(script: &str) -> Run {
        Run {
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            port: None,
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn the_environment_is_ours_and_the_input_ends() {
        let script =
            "test \"$(env | sort)\" = \"$(printf 'LANG=C\\nPATH=%s\\nPWD=/' \"$PATH\")\" &&
            test \"$(cat)\" = '{}' && test \"$(cut -d ' ' -f 5 /proc/$$/stat)\" = $$";
        assert_eq!(sh(script, LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn a_failure_quotes_the_last_line() {
        let failed = |text: &str| Err(Failure::new(Fault::Failed, text));
        assert_eq!(
            sh(
                "echo out; echo one >&2; printf 'two\\033[31m\\n\\n' >&2; exit 3",
                LONG
            )
            .await,
            failed("`sh` exited 3: two\\u{1b}[31m")
        );
        assert_eq!(
            sh("echo out; exit 3", LONG).await,
            failed("`sh` exited 3: out")
        );
        assert_eq!(
            sh("kill -9 $$", LONG).await,
            failed("`sh` was ended by signal 9")
        );
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let (_front, hung_up) = watch::channel(false);
        for (program, text) in [
            ("no-such-program", "is in none of /usr/local/sbin:"),
            ("/dev/null", "is no program on this host"),
        ] {
            let line = Run {
                program: program.to_owned(),
                arguments: Vec::new(),
                port: None,
            };
            let failure = run(&line, "", Instant::now() + LONG, hung_up.clone())
                .await
                .unwrap_err();
            assert_eq!(failure.fault, Fault::Missing);
            assert!(failure.text.contains(text), "{}", failure.text);
        }
    }

    #[tokio::test]
    async fn nothing_hangs_it() {
        let begun = Instant::now();
        // Deaf to SIGTERM, with a child, and a flood of output.
        let short = Duration::from_millis(300);
        for script in ["trap '' TERM; sleep 100 & wait; sleep 100", "yes >&2"] {
            let failure = sh(script, short).await.unwrap_err();
            assert_eq!(failure.fault, Fault::Slow, "{}", failure.text);
        }
        // What stays behind holds the pipes open, and keeps nobody waiting.
        assert_eq!(sh("sleep 4 & exit 0", LONG).await, Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn when_the_front_hangs_up_the_program_ends() {
        let (front, hung_up) = watch::channel(false);
        let (begun, told) = (Instant::now(), mark("ends"));
        let line = shell(&format!("echo >'{}'; sleep 100", told.display()));
        let hanging_up = async {
            while !told.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert!(begun.elapsed() < LONG, "it never started");
            }
            front.send_replace(true);
        };
        let (ended, ()) = tokio::join!(run(&line, "", begun + LONG, hung_up), hanging_up);
        std::fs::remove_file(&told).unwrap();
        assert_eq!(ended.unwrap_err().fault, Fault::Slow);
        assert!(begun.elapsed() < LONG);
    }

    #[tokio::test]
    async fn for_a_front_that_has_hung_up_nothing_is_started() {
        let (_front, hung_up) = watch::channel(true);
        let told = mark("starts");
        let line = shell(&format!("echo >'{}'", told.display()));
        let begun = Instant::now();
        let ended = run(&line, "", begun + LONG, hung_up).await;
        assert_eq!(ended.unwrap_err().fault, Fault::Slow);
        assert!(!told.exists() && begun.elapsed() < TERMINATION);
    }

    /// A file by which a program tells that it ran.
    fn mark(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("acmegate-program-{name}-{}", std::process::id()))
    }
}
