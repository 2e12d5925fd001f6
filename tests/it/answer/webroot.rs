//! Files: the plain one that is whole passes, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use acmegate::answer::{Source, Webroot};
use acmegate::gate::Reason;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::directory;
use crate::harness::{Event, Plan, THUMBPRINT, TOKEN, World, site, validation};

struct Files {
    root: PathBuf,
    world: World,
}

impl Files {
    fn new(name: &str) -> Self {
        let root = directory(name);
        let webroot = Source::Webroot(Webroot::open(&root).unwrap());
        let world = World::start(Plan::of([(site(&["web.test"]), webroot)]));
        Self { root, world }
    }

    fn challenges(&self) -> PathBuf {
        self.root.join(".well-known/acme-challenge")
    }

    /// Makes the directories and empties the token's place.
    fn place(&self) -> PathBuf {
        let challenges = self.challenges();
        fs::create_dir_all(&challenges).unwrap();
        let place = challenges.join(TOKEN);
        let _ = fs::remove_dir(&place).or_else(|_| fs::remove_file(&place));
        place
    }

    async fn is(&mut self, status: u16, reason: Reason) -> Event {
        let reply = self.world.exchange(validation("web.test", TOKEN)).await;
        assert_eq!(reply.status(), Some(status));
        if status == 200 {
            assert_eq!(reply.content(), whole());
        } else {
            assert!(!reply.content().contains(THUMBPRINT));
        }
        self.world.ended_by(reason).await
    }

    async fn is_unfit(&mut self, detail: &str) {
        let event = self.is(404, Reason::UnfitFile).await;
        assert_eq!(event.detail.as_deref(), Some(detail));
    }
}

fn whole() -> String {
    format!("{TOKEN}.{THUMBPRINT}")
}

fn make(kind: FileType, place: &Path) {
    mknodat(CWD, place, kind, Mode::from_raw_mode(0o644), 0).unwrap();
}

#[tokio::test]
async fn a_whole_file_passes_with_or_without_white_space_behind_it() {
    let mut files = Files::new("whole");
    for tail in ["", "\n", "\r\n", " \t\n\n"] {
        fs::write(files.place(), format!("{}{tail}", whole())).unwrap();
        files.is(200, Reason::Answered).await;
    }
}

#[tokio::test]
async fn directories_come_and_go() {
    let mut files = Files::new("come-and-go");
    for _ in 0..3 {
        files.is(404, Reason::UnknownToken).await;
        fs::create_dir_all(files.challenges()).unwrap();
        files.is(404, Reason::UnknownToken).await;
        fs::write(files.place(), whole()).unwrap();
        files.is(200, Reason::Answered).await;
        fs::remove_dir_all(files.root.join(".well-known")).unwrap();
    }
    fs::write(files.root.join(".well-known"), "a file").unwrap();
    files.is(404, Reason::UnknownToken).await;
}

#[tokio::test]
async fn what_is_not_wholly_written_is_not_there_yet() {
    let mut files = Files::new("half");
    let whole = whole();
    for end in [0, 10, 43, 44, 86] {
        fs::write(files.place(), &whole[..end]).unwrap();
        files
            .is_unfit("not a key authorization, or not wholly written yet")
            .await;
    }
    fs::write(files.place(), &whole).unwrap();
    files.is(200, Reason::Answered).await;
}

#[tokio::test]
async fn only_this_tokens_key_authorization_passes() {
    let mut files = Files::new("content");
    let other = whole().replace('L', "M");
    fs::write(files.place(), other).unwrap();
    files.is_unfit("another token's key authorization").await;
    for content in [
        format!(" {}", whole()),
        format!("\u{feff}{}", whole()),
        format!("{}\nmore", whole()),
        "<html>".to_owned(),
    ] {
        fs::write(files.place(), content).unwrap();
        files.is(404, Reason::UnfitFile).await;
    }
    fs::write(files.place(), format!("{}{}", whole(), " ".repeat(500))).unwrap();
    files.is_unfit("larger than any key authorization").await;
    fs::write(files.place(), vec![b'a'; 10 << 20]).unwrap();
    files.is_unfit("larger than any key authorization").await;
}

#[tokio::test]
async fn no_link_is_followed() {
    let mut files = Files::new("links");
    let elsewhere = directory("links-elsewhere");
    fs::create_dir_all(elsewhere.join("acme-challenge")).unwrap();
    fs::write(elsewhere.join("acme-challenge").join(TOKEN), whole()).unwrap();
    let target = elsewhere.join("acme-challenge").join(TOKEN);

    symlink(&target, files.place()).unwrap();
    files.is_unfit("a symbolic link").await;
    fs::remove_file(files.challenges().join(TOKEN)).unwrap();
    // Not even one that stays inside.
    fs::write(files.challenges().join("other"), whole()).unwrap();
    symlink("other", files.place()).unwrap();
    files.is_unfit("a symbolic link").await;

    fs::remove_dir_all(files.challenges()).unwrap();
    symlink(elsewhere.join("acme-challenge"), files.challenges()).unwrap();
    files.is_unfit("a symbolic link").await;
    fs::remove_dir_all(files.root.join(".well-known")).unwrap();
    symlink(&elsewhere, files.root.join(".well-known")).unwrap();
    files.is_unfit("a symbolic link").await;
}

#[tokio::test]
async fn what_is_no_plain_file_is_neither_read_nor_waited_for() {
    let mut files = Files::new("kinds");
    fs::create_dir(files.place()).unwrap();
    files.is_unfit("not a plain file").await;
    make(FileType::Fifo, &files.place());
    files.is_unfit("not a plain file").await;
    // A path as long as the build directory's may not fit a socket's name: bind it elsewhere.
    let short = std::env::temp_dir().join(format!("acmegate-{}", std::process::id()));
    let _ = fs::remove_file(&short);
    let _listener = UnixListener::bind(&short).unwrap();
    if fs::rename(&short, files.place()).is_ok() {
        files.is_unfit("not a plain file").await;
    }
    let _ = fs::remove_file(&short);
}

#[tokio::test]
async fn a_webroot_that_was_removed_is_a_failure_and_not_an_unknown_token() {
    let mut files = Files::new("removed");
    fs::write(files.place(), whole()).unwrap();
    files.is(200, Reason::Answered).await;
    fs::remove_dir_all(&files.root).unwrap();
    fs::create_dir_all(&files.root).unwrap();
    let event = files.is(503, Reason::WebrootFailed).await;
    assert!(event.detail.unwrap().contains("removed"));
}

#[test]
fn a_webroot_must_be_a_directory() {
    let root = directory("no-directory");
    fs::write(root.join("file"), "").unwrap();
    assert!(Webroot::open(root.join("file")).is_err());
    assert!(Webroot::open(root.join("absent")).is_err());
}
