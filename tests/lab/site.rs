//! Web servers that speak TLS, each as its makers ship it: what a gate stands in front of.
//!
//! All of them answer `GET /page` with [`SECRET`]. A peer that reads this has been let in.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use super::{Process, TempDir, find, run, wait_for};

/// What no stranger may read.
pub const SECRET: &str = "SITE-SECRET";
/// Where Debian's package apache2-bin has its modules.
const APACHE_MODULES: &str = "/usr/lib/apache2/modules";
const START: Duration = Duration::from_secs(60);

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// With early data allowed.
    Nginx,
    HaProxy,
    Apache,
    /// `openssl s_server`.
    OpenSsl,
    /// The same without a word about ALPN; it lets its peers begin a second handshake in the first.
    Renegotiator,
    /// Python's `ssl`, with a choice of ALPN that lets everybody go on.
    Python,
    /// The same, speaking first: [`SECRET`] comes with the end of the handshake.
    Greeter,
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct TlsSite {
    _process: Process,
    _directory: TempDir,
}

impl TlsSite {
    /// Starts one on this port of every address of the caller's host, of both families.
    pub fn start(server: Server, port: u16) -> Self {
        let directory = TempDir::new();
        certificate(&directory);
        directory.write("www/page", SECRET);
        let at = |name: &str| directory.at(name);
        let fill = |text: &str| {
            text.replace("DIRECTORY", &at("."))
                .replace("PORT", &port.to_string())
                .replace("MODULES", APACHE_MODULES)
                .replace("SECRET", SECRET)
        };
        let write = |name: &str, text: &str| directory.write(name, &fill(text));
        let mut command;
        match server {
            Server::Nginx => {
                command = Command::new(find("nginx"));
                command.args(["-c", &write("nginx.conf", NGINX), "-e", "stderr"]);
            }
            Server::HaProxy => {
                command = Command::new(find("haproxy"));
                command.args(["-q", "-f", &write("haproxy.cfg", HAPROXY)]);
            }
            Server::Apache => {
                // It refuses to serve as root, which a test is in its own namespace; so it has one
                // where it is somebody else.
                let low = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
                std::fs::write(low, "0").expect("our own namespace's setting");
                command = Command::new("env");
                command
                    .args(["-i", "unshare", "--user", "--map-user=33", "--map-group=33"])
                    .arg(find("apache2"))
                    // One process: workers would outlive a killed master.
                    .args(["-X", "-f", &write("apache.conf", APACHE)]);
            }
            Server::OpenSsl | Server::Renegotiator => {
                let options = match server {
                    Server::OpenSsl => &["-alpn", "http/1.1"][..],
                    _ => &["-client_renegotiation"],
                };
                command = Command::new(find("openssl"));
                command
                    .args(["s_server", "-accept", &port.to_string(), "-WWW", "-quiet"])
                    .args(["-cert", &at("cert.pem"), "-key", &at("key.pem")])
                    .args(options)
                    .current_dir(at("www"));
            }
            Server::Python | Server::Greeter => {
                let greets = if server == Server::Greeter { "1" } else { "" };
                command = Command::new(find("python3"));
                command.args(["-c", &fill(PYTHON), greets]);
            }
        }
        let mut process = Process::spawn(command);
        wait_for(START, "the site serves", || {
            let ended = process.ended().is_some();
            assert!(
                !ended,
                "{server:?}: {}{}",
                process.stdout(),
                process.stderr()
            );
            TcpStream::connect(("127.0.0.1", port))
                .is_ok()
                .then_some(())
        });
        Self {
            _process: process,
            _directory: directory,
        }
    }
}

/// A certificate of its own, made on the spot; `both.pem` is it with its key.
fn certificate(directory: &TempDir) {
    let (key, own) = (directory.at("key.pem"), directory.at("cert.pem"));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", "/CN=www.example.com"])
        .args(["-addext", "subjectAltName=DNS:www.example.com"])
        .args(["-keyout", &key, "-out", &own]);
    run(command, START).success();
    let read = |path: &str| std::fs::read_to_string(path).expect("it was written");
    directory.write("both.pem", &format!("{}{}", read(&own), read(&key)));
    for path in [key, directory.at("both.pem")] {
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(path, readable).expect("our own file");
    }
}

/// One process: nobody's workers outlive it.
const NGINX: &str = "daemon off;
master_process off;
user root;
error_log stderr;
pid DIRECTORY/pid;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    ssl_certificate DIRECTORY/cert.pem;
    ssl_certificate_key DIRECTORY/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_early_data on;
    server {
        listen [::]:PORT ssl ipv6only=off;
        location / { return 200 'SECRET'; }
    }
}
";

const HAPROXY: &str = "global
    maxconn 256
defaults
    mode http
    timeout client 10s
    timeout connect 5s
    timeout server 10s
frontend site
    bind :::PORT v4v6 ssl crt DIRECTORY/both.pem alpn h2,http/1.1
    http-request return status 200 content-type text/plain string SECRET
";

const APACHE: &str = "LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule ssl_module MODULES/mod_ssl.so
ServerRoot DIRECTORY
DefaultRuntimeDir DIRECTORY
PidFile DIRECTORY/pid
ErrorLog DIRECTORY/error.log
ServerName www.example.com
Listen [::]:PORT
DocumentRoot DIRECTORY/www
Protocols http/1.1
SSLEngine on
SSLCertificateFile DIRECTORY/cert.pem
SSLCertificateKeyFile DIRECTORY/key.pem
";

const PYTHON: &str = r"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('DIRECTORY/cert.pem', 'DIRECTORY/key.pem')
context.set_alpn_protocols(['http/1.1'])
page = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' % (len('SECRET'), b'SECRET')

def serve(raw):
    try:
        raw.settimeout(10)
        with context.wrap_socket(raw, server_side=True) as peer:
            if sys.argv[1]:
                peer.sendall(b'SECRET')
            asked = b''
            while b'\r\n\r\n' not in asked:
                more = peer.recv(4096)
                if not more:
                    return
                asked += more
            peer.sendall(page)
    except OSError:
        pass

listener = socket.create_server(('::', PORT), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";
