//! What landlock alone leaves a sealed thread: each right of it tried, of files to read, in a directory to read, in one
//! to write, and beside them. The filters of system calls stand before most of it in the daemon, and here they do not.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use acmegate::daemon::seal::{Calls, Landlocked, Seal};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;
use socket2::{Domain, Socket, Type};

use crate::lab::{Process, TempDir, inside};

const PLACES: [&str; 4] = ["files", "readable", "writable", "beside"];

fn places() -> TempDir {
    let temp = TempDir::new();
    for place in PLACES {
        let place = temp.path().join(place);
        fs::create_dir_all(place.join("inner")).expect("a directory of our own");
        fs::create_dir(place.join("empty")).expect("a directory of our own");
        for name in ["file", "full", "gone", "program"] {
            fs::write(place.join(name), "#!/nowhere\n").expect("a file of our own");
        }
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.join("program"), mode).expect("our own");
    }
    temp
}

/// One attempt for each right that a path can have, in an order in which none depends on another.
fn attempts(place: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let at = |name: &str| place.join(name);
    let make = |kind: FileType, name: &str| -> io::Result<()> {
        mknodat(CWD, at(name), kind, Mode::RUSR, makedev(1, 3))?;
        Ok(())
    };
    // For reading, and yet nothing is left of it (open(2)).
    let truncate = || {
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(libc::O_TRUNC);
        options.open(at("full")).map(drop)
    };
    let write = || {
        fs::OpenOptions::new()
            .write(true)
            .open(at("file"))
            .map(drop)
    };
    vec![
        ("ReadFile", fs::read(at("file")).map(drop)),
        ("ReadDir", fs::read_dir(place).map(drop)),
        ("WriteFile", write()),
        ("Truncate", truncate()),
        // Where the kernel may look at it, its interpreter is not there.
        ("Execute", Command::new(at("program")).status().map(drop)),
        ("RemoveFile", fs::remove_file(at("gone"))),
        ("RemoveDir", fs::remove_dir(at("empty"))),
        ("MakeReg", make(FileType::RegularFile, "regular")),
        ("MakeDir", fs::create_dir(at("made"))),
        ("MakeSym", symlink("file", at("link"))),
        ("MakeFifo", make(FileType::Fifo, "fifo")),
        ("MakeSock", make(FileType::Socket, "socket")),
        ("MakeChar", make(FileType::CharacterDevice, "char")),
        ("MakeBlock", make(FileType::BlockDevice, "block")),
        ("Refer", fs::hard_link(at("file"), at("inner/file"))),
    ]
}

/// Which of them landlock did not stand in the way of; another reason may, such as a capability that is missing.
fn got_through(place: &Path) -> Vec<&'static str> {
    let is_refused = |result: &io::Result<()>| {
        let error = result.as_ref().err().and_then(io::Error::raw_os_error);
        matches!(error, Some(libc::EACCES | libc::EXDEV))
    };
    let tried = attempts(place).into_iter();
    tried
        .filter(|(_, result)| !is_refused(result))
        .map(|(right, _)| right)
        .collect()
}

/// In a thread of its own, which `seal` binds and nobody else.
fn sealed<Found: Send>(seal: &Seal, then: impl Fn() -> Found + Send + Sync) -> Found {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert_eq!(seal.landlock().expect("a seal"), Landlocked::Fully);
            then()
        });
        thread.join().expect("sealed")
    })
}

fn nothing() -> Seal {
    Seal {
        capabilities: CapabilitySet::empty(),
        readable: Vec::new(),
        writable: Vec::new(),
        connect_ports: Vec::new(),
        calls: Calls::Front,
    }
}

#[test]
fn a_directory_is_read_or_written_and_no_other_right_is_left() {
    inside(|| {
        let unsealed = places();
        for place in PLACES {
            let place = unsealed.path().join(place);
            assert_eq!(got_through(&place).len(), 15, "the control");
        }
        let temp = places();
        let readable = ["readable", "files/file", "files/full", "files/program"];
        let seal = Seal {
            readable: readable.map(|path| temp.path().join(path)).into(),
            writable: vec![temp.path().join("writable")],
            ..nothing()
        };
        let found = sealed(&seal, || {
            PLACES.map(|place| got_through(&temp.path().join(place)))
        });
        let written = [
            "ReadFile",
            "ReadDir",
            "WriteFile",
            "Truncate",
            "RemoveFile",
            "MakeReg",
        ];
        assert_eq!(found, [&written[..1], &written[..2], &written, &[]]);
    });
}

/// Without the right to it a device knows no request, and a terminal would be somebody's keyboard.
#[test]
fn a_device_that_may_be_read_and_written_is_not_set_up() {
    inside(|| {
        let null = fs::File::open("/dev/null").expect("every system has it");
        let size = |file: &fs::File| rustix::termios::tcgetwinsize(file).map(drop);
        assert_eq!(size(&null), Err(Errno::NOTTY), "the control");
        let seal = Seal {
            readable: vec!["/dev/null".into(), "/dev".into()],
            writable: vec!["/dev".into()],
            ..nothing()
        };
        let found = sealed(&seal, || {
            size(&fs::File::open("/dev/null").expect("it may"))
        });
        assert_eq!(found, Err(Errno::ACCESS));
    });
}

#[test]
fn of_ports_those_that_are_named_are_connected_to_and_none_is_bound() {
    inside(|| {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let (named, other) = (listen(), listen());
        let [named, other] = [&named, &other].map(|to| to.local_addr().expect("bound"));
        let seal = Seal {
            connect_ports: vec![named.port()],
            ..nothing()
        };
        let tries = || {
            let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 2], named.port()));
            [
                socket().connect(&named.into()),
                socket().connect(&other.into()),
                socket().bind(&elsewhere.into()),
            ]
            .map(|result| result.err().and_then(|error| error.raw_os_error()))
        };
        assert_eq!(tries(), [None; 3], "the control");
        let refused = Some(libc::EACCES);
        assert_eq!(sealed(&seal, tries), [None, refused, refused]);
    });
}

#[test]
fn nobody_outside_is_signalled_or_spoken_to_by_an_abstract_name() {
    inside(|| {
        let mut command = Command::new("sleep");
        command.arg("600");
        let stranger = Process::spawn(command);
        let pid = Pid::from_raw(stranger.pid() as i32).expect("a process");
        let name = SocketAddr::from_abstract_name("outside").expect("a name");
        let _listener = UnixListener::bind_addr(&name).expect("a new network");
        let tries = || {
            let spoken = UnixStream::connect_addr(&name).err();
            [
                kill_process(pid, Signal::CONT)
                    .err()
                    .map(Errno::raw_os_error),
                spoken.and_then(|error| error.raw_os_error()),
            ]
        };
        assert_eq!(tries(), [None; 2], "the control");
        assert_eq!(sealed(&nothing(), tries), [Some(libc::EPERM); 2]);
    });
}
