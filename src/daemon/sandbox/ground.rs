//! What a process that was taken over would try, each as a function that says how it went.
//!
//! The same list is tried unsealed, where everything must work (`tests/netns/seals.rs`), and sealed, where nothing
//! may. Nothing here touches anything but a directory, listeners and a process of its own.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, Signal};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Unchecked};
use crate::daemon::parts::AnyAccount;

/// The outcome of one attempt.
pub type Tried = (&'static str, io::Result<()>);

/// A small host: directories, listeners, a process that is none of ours.
pub struct Ground {
    /// A directory of its own, which goes when this does.
    pub directory: PathBuf,
    /// The configuration of a front that answers from a webroot and an upstream here.
    pub config: Config,
    /// The upstream's port, which the front may connect to.
    pub upstream: TcpListener,
    /// A port that it may not connect to.
    pub other: TcpListener,
    /// The webroot's handle, opened in time.
    pub webroot: OwnedFd,
    /// A listener of the front's own.
    pub listener: TcpListener,
    stranger: Child,
    _temp: Temporary,
}

/// A directory for this account alone. Dropping it removes it.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("acmegate-sandbox-{pid}-{number}"));
        // What is there already is somebody else's, and an error.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Ground {
    /// Makes one in the temporary directory.
    ///
    /// # Errors
    /// Whatever could not be made.
    pub fn new() -> io::Result<Self> {
        let temp = Temporary::new()?;
        let directory = temp.0.clone();
        for part in ["etc", "state", "webroot", "mount"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("webroot/file"), BENEATH)?;
        fs::write(directory.join("state/file"), "kept")?;
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (upstream, other, listener) = (listen()?, listen()?, listen()?);
        let file = directory.join("etc/acmegate.toml");
        let text = format!(
            "[daemon]\nstate_dir = \"{directory}/state\"\n[http]\nlisten = []\n[firewall]\nports = [80]\n\
             [[site]]\nidentifiers = [\"a.example.com\"]\nanswer = {{ webroot = \"{directory}/webroot\" }}\n\
             [[site]]\nidentifiers = [\"b.example.com\"]\nanswer = {{ upstream = \"http://{}\" }}\n",
            upstream.local_addr()?,
            directory = directory.display(),
        );
        fs::write(&file, text)?;
        let config =
            Config::load_with(Some(&file), &AnyAccount, &Unchecked).map_err(io::Error::other)?;
        let webroot = rustix::fs::open(
            directory.join("webroot"),
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        // It ends by itself, should nobody end it.
        let stranger = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            config,
            upstream,
            other,
            webroot,
            listener,
            directory,
            stranger,
            _temp: temp,
        })
    }

    /// A process that is none of ours.
    pub fn stranger(&self) -> Pid {
        Pid::from_child(&self.stranger)
    }

    /// Everything that neither front nor enforcer, reader and historian have any business with.
    pub fn try_everything(&self) -> Vec<Tried> {
        let mut tried: Vec<Tried> = vec![
            ("start a program", self.start_a_program()),
            ("open /etc/shadow", fs::File::open("/etc/shadow").map(drop)),
            ("open /etc/passwd", fs::File::open("/etc/passwd").map(drop)),
            ("list /proc", fs::read_dir("/proc").map(drop)),
            (
                "climb out of the webroot",
                self.openat("../state/file", OFlags::RDONLY),
            ),
            (
                "write into the webroot",
                self.openat("file", OFlags::WRONLY),
            ),
        ];
        tried.extend(self.try_to_change_files());
        tried.extend(self.try_other_sockets());
        tried.extend(self.try_against_the_system());
        tried.push(("take a capability back", take_capabilities_back()));
        tried.push((
            "make a file in memory",
            rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC)
                .map(drop)
                .map_err(io::Error::from),
        ));
        tried.push((
            "signal another process",
            rustix::process::kill_process(self.stranger(), Signal::CONT).map_err(io::Error::from),
        ));
        tried
    }

    fn start_a_program(&self) -> io::Result<()> {
        Command::new("true").status().map(drop)
    }

    fn openat(&self, path: &str, flags: OFlags) -> io::Result<()> {
        rustix::fs::openat(&self.webroot, path, flags, Mode::empty())?;
        Ok(())
    }

    fn try_to_change_files(&self) -> Vec<Tried> {
        let state = self.directory.join("state");
        let created = self.directory.with_extension("beside");
        // Somebody else's file or link of that name is not written through, nor removed.
        let in_temp = fs::File::create_new(&created).map(drop);
        if in_temp.is_ok() {
            let _ = fs::remove_file(&created);
        }
        vec![
            (
                "create a file in the state directory",
                fs::write(state.join("new"), ""),
            ),
            ("create a file in the temporary directory", in_temp),
            ("write over a file", fs::write(state.join("file"), "other")),
            (
                "change the configuration",
                fs::OpenOptions::new()
                    .append(true)
                    .open(self.directory.join("etc/acmegate.toml"))
                    .map(drop),
            ),
            ("make a directory", fs::create_dir_all(state.join("a/b"))),
            (
                "rename a file",
                fs::rename(state.join("file"), state.join("moved")),
            ),
            (
                "remove a file",
                // It was moved, where that works.
                fs::remove_file(state.join("moved"))
                    .or_else(|_| fs::remove_file(state.join("file"))),
            ),
            (
                "change a mode",
                fs::set_permissions(&state, fs::Permissions::from_mode(0o755)),
            ),
        ]
    }

    fn try_other_sockets(&self) -> Vec<Tried> {
        const AF_NETLINK: i32 = 16;
        const AF_PACKET: i32 = 17;
        let make = |domain: i32, kind: Type, protocol: i32| -> io::Result<()> {
            Socket::new(Domain::from(domain), kind, Some(Protocol::from(protocol))).map(drop)
        };
        vec![
            ("make a raw socket", make(2, Type::RAW, 1)),
            ("make a raw IPv6 socket", make(10, Type::RAW, 58)),
            ("make a netlink socket", make(AF_NETLINK, Type::RAW, 12)),
            ("make a packet socket", make(AF_PACKET, Type::RAW, 0)),
            ("make a UDP socket", make(2, Type::DGRAM, 0)),
            ("make a UDP socket for IPv6", make(10, Type::DGRAM, 0)),
            ("make a Unix socket", make(1, Type::STREAM, 0)),
            ("make a pair for datagrams", UnixDatagram::pair().map(drop)),
            ("connect to another port", self.connect(0, &self.other)),
            ("connect by multipath TCP", self.connect(262, &self.other)),
            ("connect by a fast open", self.fast_open(&self.other)),
            ("connect by a message", self.message(&self.other)),
            (
                "bind another port",
                TcpListener::bind("127.0.0.1:0").map(drop),
            ),
            ("listen without binding", self.listen_unbound()),
            ("take others' connections", self.listen_transparently()),
        ]
    }

    /// Connects as the front does to its upstreams, but by any protocol of streams.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self, protocol: i32, to: &TcpListener) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(protocol)))?;
        socket.connect(&to.local_addr()?.into())
    }

    /// tcp(7): `sendto` with MSG_FASTOPEN is a connect by another name.
    fn fast_open(&self, to: &TcpListener) -> io::Result<()> {
        const MSG_FASTOPEN: i32 = 0x2000_0000;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket
            .send_to_with_flags(b"x", &to.local_addr()?.into(), MSG_FASTOPEN)
            .map(drop)
    }

    fn message(&self, to: &TcpListener) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let SocketAddr::V4(to) = to.local_addr()? else {
            return Ok(());
        };
        rustix::net::sendmsg_addr(
            &socket,
            &to,
            &[io::IoSlice::new(b"x")],
            &mut rustix::net::SendAncillaryBuffer::default(),
            rustix::net::SendFlags::from_bits_retain(0x2000_0000),
        )?;
        Ok(())
    }

    /// As a diverted listener is made, before the seal.
    fn listen_transparently(&self) -> io::Result<()> {
        Socket::from(self.listener.try_clone()?).set_ip_transparent_v4(true)
    }

    fn listen_unbound(&self) -> io::Result<()> {
        Socket::new(Domain::IPV4, Type::STREAM, None)?.listen(1)
    }

    /// What not even a command has any business with, which may read files and speak to networks.
    pub fn try_against_the_system(&self) -> Vec<Tried> {
        let stranger = self.stranger();
        let traced = nix::unistd::Pid::from_raw(stranger.as_raw_nonzero().get());
        vec![
            (
                "trace another process",
                nix::sys::ptrace::seize(traced, nix::sys::ptrace::Options::empty())
                    .map_err(io::Error::from),
            ),
            (
                "mount",
                mount(
                    Some("none"),
                    &self.directory.join("mount"),
                    Some("tmpfs"),
                    MsFlags::empty(),
                    None::<&str>,
                )
                .and_then(|()| umount(&self.directory.join("mount")))
                .map_err(io::Error::from),
            ),
            (
                "leave the namespaces",
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
                    .map_err(io::Error::from),
            ),
        ]
    }

    /// Reads beneath the webroot by openat2(2) and its handle, as tokens are looked up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_beneath(&self) -> io::Result<()> {
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file =
            rustix::fs::openat2(&self.webroot, "file", OFlags::RDONLY, Mode::empty(), flags)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut fs::File::from(file), &mut text)?;
        match text == BENEATH {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Reads the configuration, as a reload does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_config(&self) -> io::Result<()> {
        fs::read(self.directory.join("etc/acmegate.toml")).map(drop)
    }
}

const BENEATH: &str = "beneath";

/// Unsealed, raising nothing works; sealed, the call itself is gone.
fn take_capabilities_back() -> io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    let raised = rustix::thread::CapabilitySets {
        effective: own.permitted,
        ..own
    };
    rustix::thread::set_capabilities(None, raised)?;
    Ok(())
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.stranger.kill();
        let _ = self.stranger.wait();
    }
}
