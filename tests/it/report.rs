//! `acmegate report` as a program: against a daemon, and against one that tells known records; its JSON
//! by the documented schema, its page in a browser.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use acmegate::control::protocol::{CONTROL_SOCKET, Envelope, Opaque, Response};
use acmegate::gate::Reason;
use acmegate::observe::quorum::assess;
use acmegate::observe::record::Record;
use acmegate::observe::report::two_lines;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::lab::historian::{self, Historian};
use crate::lab::perspective::{DIAL, Question};
use crate::lab::{BINARY, Daemon, Output, TempDir, inside, ip, run};
use crate::schema;

const NAME: &str = "www.example.com";
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const HOST: &str = "198.51.100.80";
const PEER: &str = "203.0.113.7";

const SCHEMA: &str = include_str!("../../docs/report.schema.json");
const DOCUMENT: &str = include_str!("../../docs/report.md");
const SIX: &str = include_str!("../data/records/six.json");
const TOLERATED: &str = include_str!("../data/records/tolerated.json");
const FLOOD: &str = include_str!("../data/records/flood.json");
const FINE: &str = include_str!("../data/records/fine.json");
const SOON: Duration = Duration::from_secs(30);
/// A browser needs a while to start on a busy machine.
const BROWSER: Duration = Duration::from_secs(120);
const NASTY: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u{1b}[2J\u{202e}'\"\n`";

fn record(text: &str) -> Record {
    serde_json::from_str(text).expect("a record")
}

/// A record with that text wherever there may be one.
fn hostile() -> Record {
    let mut record = record(SIX);
    record.lease = NASTY.to_owned();
    record.holder = Some(NASTY.to_owned());
    record.identifiers = Some(vec![NASTY.to_owned(); 3]);
    record.beside = vec!["x".repeat(5_000)];
    record.evidence.incomplete = Some(NASTY.to_owned());
    for source in &mut record.sources {
        let place = source.place.get_or_insert_default();
        place.organization = Some(NASTY.repeat(20));
        if let Some(dropped) = &mut source.dropped {
            dropped.rule = Some(NASTY.to_owned());
        }
        for visit in &mut source.visits {
            visit.detail = Some(NASTY.to_owned());
            visit.identifier = Some(NASTY.to_owned());
        }
    }
    record.assessment = assess(&record);
    record
}

/// Runs `acmegate report` against somebody who answers with these records; gives what it was asked, too.
fn told(records: &[Record], arguments: &[&str]) -> (Output, Value) {
    let directory = TempDir::new();
    let listener = UnixListener::bind(directory.path().join(CONTROL_SOCKET)).expect("a socket");
    let mut response = Response::done("");
    response.report = (records.iter())
        .map(|record| Opaque::of(record).expect("JSON"))
        .collect();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut line = String::new();
        BufReader::new(&stream)
            .read_line(&mut line)
            .expect("a line");
        let answer = serde_json::to_vec(&response).expect("JSON");
        stream.write_all(&answer).expect("it reads");
        let envelope: Envelope = serde_json::from_str(&line).expect("a request");
        serde_json::to_value(envelope.ask).expect("JSON")
    });
    let mut command = Command::new(BINARY);
    command.arg("--runtime-dir").arg(directory.path());
    command.arg("report").args(arguments);
    let output = run(command, SOON);
    (output, daemon.join().expect("it was asked"))
}

#[test]
fn each_way_to_name_a_window_is_asked_as_such() {
    let records = [record(SIX)];
    for (arguments, asked) in [
        (
            &[][..],
            json!({"number": null, "lease": null, "since": null}),
        ),
        (
            &["--last"],
            json!({"number": null, "lease": null, "since": null}),
        ),
        (&["17"], json!({"number": 17, "lease": null, "since": null})),
        (
            &["certbot-812"],
            json!({"number": null, "lease": "certbot-812", "since": null}),
        ),
        // As far again before that, to compare it with.
        (
            &["--since", "30d"],
            json!({"number": null, "lease": null, "since": 5_184_000_000_u64}),
        ),
    ] {
        let (output, ask) = told(&records, arguments);
        output.success();
        assert_eq!(ask["report"], asked, "{arguments:?}");
    }
}

#[test]
fn what_a_span_is_compared_with_is_not_shown_as_part_of_it() {
    let hours = |ago: u64| Record {
        lease: format!("of-{ago}-hours-ago"),
        opened_at: historian::now() - ago * 3_600_000,
        ..record(SIX)
    };
    let records = [hours(36), hours(1)];
    let output = told(&records, &["--since", "1d", "--json"]).0.success();
    let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(document["windows"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["windows"][0]["lease"], "of-1-hours-ago");
    let directory = TempDir::new();
    let page = directory.at("page.html");
    told(&records, &["--since", "1d", "--html", &page])
        .0
        .success();
    let page = fs::read_to_string(page).expect("it is there");
    assert!(page.contains("of-1-hours-ago") && !page.contains("of-36-hours-ago"));
    let text = told(&records, &["--since", "1d"]).0.success().stdout;
    assert!(text.starts_with("1 window since "), "{text}");
}

#[test]
fn colours_are_for_terminals_and_whoever_asks_for_them() {
    let shown = |arguments: &[&str]| told(&[record(SIX)], arguments).0.success().stdout;
    assert!(!shown(&[]).contains('\u{1b}'));
    assert!(!shown(&["--color", "never"]).contains('\u{1b}'));
    assert!(shown(&["--color", "always"]).contains("\u{1b}[31;1m"));
    let hostile = told(&[hostile()], &[]).0.success().stdout;
    assert!(
        hostile.chars().all(|c| c == '\n' || !c.is_control()),
        "{hostile}"
    );
    assert!(!hostile.contains('\u{202e}'));
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_its_status() {
    let directory = TempDir::new();
    let alone = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command
            .arg("--runtime-dir")
            .arg(directory.path())
            .arg("report")
            .args(arguments);
        run(command, SOON)
    };
    let output = alone(&[]);
    assert_eq!(output.code, 69, "{output}");
    assert!(
        output
            .stderr
            .starts_with("acmegate: acmegate is not running"),
        "{output}"
    );
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    for arguments in [
        &["17", "--last"][..],
        &["17", "--since", "1d"],
        &["--since", "1"],
        &["--json", "--html", "x"],
        &["--color", "blue"],
    ] {
        assert_eq!(alone(arguments).code, 64, "{arguments:?}");
    }
    let daemon = Daemon::start(&config());
    let output = daemon.cli(&["report", "4711"]);
    assert_eq!(output.code, 69, "{output}");
    assert!(
        output.stderr.contains("there is no record of window 4711"),
        "{output}"
    );
}

// --- JSON -------------------------------------------------------------------------------------------

fn config() -> String {
    "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n\
     [[site]]\nidentifiers = [\"www.example.com\"]\n"
        .to_owned()
}

fn check(document: &str) -> Vec<String> {
    schema::check(SCHEMA, document)
}

#[test]
fn what_a_real_daemon_tells_is_as_the_schema_says() {
    // Addresses of which none is on the allow-list, and a port 80 of its own.
    inside(|| {
        ip("link set lo up");
        for address in [HOST, PEER] {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        let config = config().replace("127.0.0.1:0", &format!("{HOST}:80"));
        let daemon = Daemon::start(&config);
        daemon
            .cli(&["open", "--lease", "renewal", "--identifier", NAME])
            .success();
        let key_authorization = format!("{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI");
        daemon
            .cli(&["answer", "add", NAME, &key_authorization])
            .success();
        let question = Question {
            from: PEER.to_owned(),
            to: HOST.to_owned(),
            name: NAME.to_owned(),
            path: format!("/.well-known/acme-challenge/{TOKEN}"),
            dial: DIAL,
        };
        assert_eq!(question.ask(), Some(200));
        daemon.cli(&["close", "--lease", "renewal"]).success();
        for which in [&["--last"][..], &["renewal"], &["--since", "1d"]] {
            let output = daemon
                .cli(&[&["report", "--json"], which].concat())
                .success();
            assert_eq!(check(&output.stdout), [""; 0], "{output}");
            let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
            let window = &document["windows"][0];
            assert_eq!(window["lease"], "renewal", "{output}");
            assert_eq!(window["sources"][0]["address"], PEER, "{output}");
            assert_eq!(
                window["sources"][0]["visits"][0]["reason"], "answered",
                "{output}"
            );
        }
        let text = daemon.cli(&["report"]).success().stdout;
        assert!(text.contains(": 1 network came and was answered"), "{text}");
        let text = daemon.cli(&["report", "--since", "1d"]).success().stdout;
        assert!(text.starts_with("1 window since "), "{text}");
    });
}

#[test]
fn what_has_no_room_in_an_answer_is_said_to_be_left_off() {
    inside(|| {
        ip("link set lo up");
        let mut daemon = Daemon::start(&config());
        assert_eq!(daemon.terminate(), 0);
        let directory = TempDir::new();
        let text = format!(
            "[daemon]\nuser = \"0\"\nstate_dir = \"{}\"\n[http]\nlisten = []\n[firewall]\nmode = \"gate-only\"\n",
            daemon.state_dir()
        );
        let file = directory.write("etc/acmegate.toml", &text);
        let mut historian = Historian::start(&file);
        let begun = historian::now() - 60_000;
        for number in 0..10 {
            historian.store(&historian::ended(Record {
                beside: vec!["x".repeat(1000); 950],
                ..historian::window("big", begun + number)
            }));
        }
        drop(historian);
        daemon.start_again();
        let output = daemon.cli(&["report", "--since", "1d", "--json"]).success();
        let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(document["windows"].as_array().map(Vec::len), Some(8));
        assert_eq!(document["windows"][7]["opened_at"], begun + 9);
        assert!(
            output.stderr.contains("2 older windows are left off"),
            "{}",
            output.stderr
        );
        let output = daemon.cli(&["report", "big"]).success();
        assert_eq!(output.stderr, "");
    });
}

#[test]
fn known_records_are_as_the_schema_says_and_a_fault_is_found() {
    let records = [record(SIX), record(FLOOD), hostile()];
    let output = told(&records, &["--json"]).0.success().stdout;
    assert!(
        output
            .bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
    );
    assert_eq!(check(&output), [""; 0]);
    let document: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(document["windows"][2]["lease"], NASTY);
    type Spoil = fn(&mut Value);
    let faults: [(&str, Spoil); 7] = [
        ("additionalProperties", |document| {
            document["windows"][0]["sources"][0]["colour"] = json!(1)
        }),
        ("additionalProperties", |document| {
            document["more"] = json!(1)
        }),
        ("required", |document| {
            document["windows"][0]["evidence"]
                .as_object_mut()
                .expect("an object")
                .remove("seen");
        }),
        ("type", |document| {
            document["windows"][0]["caller"] = json!("root")
        }),
        ("enum", |document| {
            document["windows"][0]["assessment"]["outcome"] = json!("fine")
        }),
        ("maximum", |document| {
            document["windows"][0]["ports"][0] = json!(65_536)
        }),
        ("pattern", |document| {
            document["windows"][0]["sources"][0]["visits"][0]["token"] = json!("LoqXcYV8")
        }),
    ];
    for (word, spoil) in faults {
        let mut spoiled = document.clone();
        spoil(&mut spoiled);
        let found = check(&spoiled.to_string());
        assert!(
            found.iter().any(|fault| fault.ends_with(word)),
            "{word}: {found:?}"
        );
    }
}

#[test]
fn the_page_on_the_report_has_every_field_and_reason_and_no_other_field() {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let (_, fields) = DOCUMENT.split_once("\n## JSON\n").expect("a section");
    let (fields, reasons) = fields.split_once("\n## Reasons\n").expect("a section");
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        let heading = format!("\n### {name}\n");
        let (_, section) = fields
            .split_once(&heading)
            .unwrap_or_else(|| panic!("{name}"));
        let section = section.split("\n### ").next().expect("text");
        let mut shown: Vec<&str> = (section.lines())
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let mut known: Vec<&str> = definition["properties"]
            .as_object()
            .expect("properties")
            .keys()
            .map(String::as_str)
            .collect();
        shown.sort_unstable();
        known.sort_unstable();
        assert_eq!(shown, known, "{name}");
    }
    for reason in Reason::ALL {
        let line = format!("| `{reason}` | {} | ", reason.verdict());
        assert!(reasons.contains(&line), "{line}");
    }
}

#[test]
fn the_documents_show_what_the_program_shows() {
    let readme = include_str!("../../README.md");
    for (document, text, number) in [(DOCUMENT, SIX, "17"), (readme, TOLERATED, "18")] {
        let record = record(text);
        let [first, second] = two_lines(&record);
        let shown = told(&[record], &[number]).0.success().stdout;
        let session = format!(
            "# acmegate close\n{first}\n{second}\n# acmegate report {number}\n{}\n```",
            shown.trim_end()
        );
        assert!(
            document.contains(&session),
            "a document should show:\n{session}"
        );
    }
}

// --- pages ------------------------------------------------------------------------------------------

#[test]
fn a_page_is_put_in_place_whole_and_for_its_owner_alone() {
    let directory = TempDir::new();
    let path = directory.at("report.html");
    fs::write(&path, "old").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("its mode");
    told(&[record(SIX)], &["--html", &path]).0.success();
    let page = fs::read_to_string(&path).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o7777, 0o600);
    // Where it cannot be, nothing is left.
    let (refused, _) = told(
        &[record(SIX)],
        &["--html", &directory.at("missing/report.html")],
    );
    assert_eq!(refused.code, 71, "{refused}");
    let (refused, _) = told(
        &[record(SIX)],
        &["--html", directory.path().to_str().expect("a path")],
    );
    assert_eq!(refused.code, 71, "{refused}");
    let left = fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(left, 1);
}

/// Root may replace anything: /dev/null and /dev/stdout, and the host would be without them.
#[test]
fn a_page_takes_the_place_of_no_link_pipe_or_device() {
    let directory = TempDir::new();
    let (link, other) = (directory.at("link"), directory.write("other", "kept"));
    symlink(&other, &link).expect("a link of our own");
    let pipe = directory.at("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe of our own");
    for place in [&link, &pipe, &directory.path().display().to_string()] {
        let kind = || {
            fs::symlink_metadata(place)
                .expect("it is there")
                .file_type()
        };
        let before = kind();
        let (refused, _) = told(&[record(SIX)], &["--html", place]);
        assert_eq!(refused.code, 71, "{refused}");
        assert!(refused.stderr.contains("no regular file"), "{refused}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        assert_eq!(kind(), before);
    }
    assert_eq!(fs::read_to_string(&other).expect("a file"), "kept");
    let left = fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(left, 3);
}

/// Looks at pages as a browser shows them, in a phone's width and a desk's: what they are called, how much
/// too wide they are, which colour they have; and what the browser complains of.
fn look(directory: &TempDir, pages: &[&str], is_dark: bool) -> (Vec<Value>, String) {
    let frames: String = (pages.iter())
        .flat_map(|page| [360, 1280].map(|width| (page, width)))
        .map(|(page, width)| {
            format!("<iframe src=\"{page}\" width=\"{width}\" height=\"800\"></iframe>")
        })
        .collect();
    let looker = format!(
        "<!doctype html><meta charset=utf-8><style>iframe{{border:0}}</style>{frames}<pre id=seen></pre><script>\
         onload = () => {{ const seen = [...document.querySelectorAll('iframe')].map((frame) => {{\
         const page = frame.contentDocument, root = page.documentElement;\
         page.querySelectorAll('details').forEach((one) => one.open = true);\
         const wide = [...page.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > frame.width && getComputedStyle(one).position != 'absolute' && !one.closest('thead'));\
         return {{width: +frame.width, title: page.title, over: root.scrollWidth - root.clientWidth,\
         wide: wide.map((one) => one.tagName), ground: getComputedStyle(page.body).backgroundColor,\
         headings: page.querySelectorAll('h1').length, scripts: page.scripts.length, images: page.images.length,\
         unlabelled: [...page.querySelectorAll('svg[role=img]')].filter((one) => !page.getElementById(one.getAttribute('aria-labelledby'))).length,\
         heads: page.querySelectorAll('th[scope=col]').length}} }});\
         document.getElementById('seen').textContent = 'SEEN' + JSON.stringify(seen) + 'NEES' }}</script>"
    );
    directory.write("look.html", &looker);
    let mut command = Command::new("chromium");
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--allow-file-access-from-files",
        "--window-size=1400,900",
        "--enable-logging=stderr",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", directory.at("browser")));
    command.arg(format!(
        "--blink-settings=preferredColorScheme={}",
        if is_dark { 0 } else { 1 }
    ));
    command.arg(format!("file://{}", directory.at("look.html")));
    let output = run(command, BROWSER).success();
    let seen = output
        .stdout
        .split_once("SEEN[")
        .and_then(|(_, rest)| rest.split_once("]NEES"));
    let (seen, _) = seen
        .filter(|(seen, _)| !seen.contains("JSON.stringify"))
        .unwrap_or_else(|| panic!("{output}"));
    let seen = seen
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    let complaints: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    (
        serde_json::from_str(&format!("[{seen}]")).expect("JSON"),
        complaints.join("\n"),
    )
}

/// The pages of a quiet night and a bad one, of a flood, of somebody hostile, and of a month.
fn pages(directory: &TempDir) -> Vec<&'static str> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the page says when it was made, by the same clock"
    )]
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let now = u64::try_from(now.as_millis()).expect("a time");
    let month: Vec<Record> = [FINE, SIX, FLOOD].map(record).into();
    let month = (month.into_iter().chain([hostile()]).enumerate())
        .map(|(days, mut record)| {
            record.opened_at = now - 40 * 86_400_000 + days as u64 * 12 * 86_400_000;
            record
        })
        .collect();
    let all: [(&str, Vec<Record>, &[&str]); 5] = [
        ("fine.html", vec![record(FINE)], &[]),
        ("six.html", vec![record(SIX)], &[]),
        ("flood.html", vec![record(FLOOD)], &[]),
        ("hostile.html", vec![hostile()], &[]),
        ("month.html", month, &["--since", "30d"]),
    ];
    let written = all.map(|(name, records, more)| {
        let path = directory.at(name);
        let arguments = [more, &["--html", &path]].concat();
        told(&records, &arguments).0.success();
        name
    });
    written.to_vec()
}

#[test]
fn pages_fit_a_phone_and_a_desk_and_the_browser_has_nothing_to_say() {
    let directory = TempDir::new();
    let pages = pages(&directory);
    let (seen, complaints) = look(&directory, &pages, false);
    assert_eq!(complaints, "");
    assert_eq!(seen.len(), 2 * pages.len());
    for page in &seen {
        assert_eq!(page["over"], 0, "{page}");
        assert_eq!(page["wide"], json!([]), "{page}");
        assert_eq!(
            (&page["headings"], &page["scripts"], &page["images"]),
            (&json!(1), &json!(0), &json!(0)),
            "{page}"
        );
        assert_eq!(page["unlabelled"], 0, "{page}");
        assert!(page["heads"].as_u64() >= Some(5), "{page}");
        assert!(
            page["title"]
                .as_str()
                .is_some_and(|title| title.len() > 10 && title != "owned"),
            "{page}"
        );
        assert_eq!(page["ground"], "rgb(251, 251, 249)", "{page}");
    }
    let (seen, complaints) = look(&directory, &pages, true);
    assert_eq!(complaints, "");
    assert!(
        seen.iter().all(|page| page["ground"] == "rgb(20, 23, 26)"),
        "{seen:?}"
    );
}

/// That the test above can fail: a script in a page does not run, and the browser says why.
#[test]
fn a_page_that_did_not_escape_would_still_run_no_script() {
    let directory = TempDir::new();
    let path = directory.at("six.html");
    told(&[record(SIX)], &["--html", &path]).0.success();
    let page = fs::read_to_string(&path).expect("a page");
    let spoiled = page.replace(
        "<main>",
        "<main><script>document.title='owned'</script><p style=\"width:2000px\">x",
    );
    directory.write("spoiled.html", &spoiled);
    let (seen, complaints) = look(&directory, &["spoiled.html"], false);
    assert_eq!(
        complaints.matches("Content Security Policy").count(),
        4,
        "{complaints}"
    );
    assert_eq!(seen[0]["scripts"], 1);
    assert_ne!(seen[0]["title"], "owned");
    assert_eq!(seen[0]["over"], 0, "styles are refused, too: {seen:?}");
    // Without the policy it would have run.
    let (before, rest) = spoiled.split_once("<meta http-equiv").expect("a policy");
    let (_, after) = rest.split_once(">\n").expect("its end");
    directory.write("bare.html", &format!("{before}{after}"));
    let (seen, _) = look(&directory, &["bare.html"], false);
    assert_eq!(seen[0]["title"], "owned");
    assert!(seen[0]["over"].as_u64() > Some(0), "{seen:?}");
}
