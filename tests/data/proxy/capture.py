#!/usr/bin/env python3
"""Writes the headers beside this file anew, as the haproxy of this host sends them.

Run as `unshare -rn tests/data/proxy/capture.py`: the addresses are of a network of its own.
"""
import pathlib, socket, subprocess, tempfile, threading

HERE = pathlib.Path(__file__).parent
# Name, options of the server line, client, frontend; no client where haproxy's own check is meant.
CASES = [
    ("v1-ipv4", "send-proxy", "203.0.113.77", "198.51.100.80"),
    ("v1-ipv6", "send-proxy", "2001:db8::77", "2001:db8::80"),
    ("v1-check", "send-proxy check inter 200", None, None),
    ("v2-ipv4", "send-proxy-v2", "203.0.113.77", "198.51.100.80"),
    ("v2-ipv6", "send-proxy-v2", "2001:db8::77", "2001:db8::80"),
    ("v2-check", "send-proxy-v2 check inter 200", None, None),
    ("v2-options", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority", "203.0.113.77", "198.51.100.80"),
    ("v2-ssl-cn", "send-proxy-v2-ssl-cn", "203.0.113.77", "198.51.100.80"),
]


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def connected(address, port):
    for _ in range(500):
        try:
            return socket.create_connection((address, port))
        except OSError:
            threading.Event().wait(0.01)
    raise SystemExit("haproxy does not listen")


ip("link", "set", "lo", "up")
for address in ("203.0.113.77/32", "198.51.100.80/32"):
    ip("address", "add", address, "dev", "lo")
for address in ("2001:db8::77/128", "2001:db8::80/128"):
    ip("address", "add", address, "dev", "lo", "nodad")
version = subprocess.run(["haproxy", "-v"], check=True, capture_output=True, text=True).stdout
version = ".".join(version.split()[2].split(".")[:2])
for name, options, client, frontend in CASES:
    server = socket.create_server(("127.0.0.1", 8000))
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        bind = "[2001:db8::80]:80" if frontend and ":" in frontend else "198.51.100.80:80"
        config.write(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    unique-id-format %ci-%cp
listen one
    bind {bind}
    server inner 127.0.0.1:8000 {options}
""")
        config.flush()
        haproxy = subprocess.Popen(["haproxy", "-db", "-q", "-f", config.name])
        try:
            if client:
                connected(frontend, 80).close()
                family = socket.AF_INET6 if ":" in client else socket.AF_INET
                peer = socket.socket(family)
                # What the first connection was carried by goes first.
                server.accept()[0].close()
                peer.bind((client, 40000))
                peer.connect((frontend, 80))
            inner = server.accept()[0]
            inner.settimeout(5)
            header = b""
            try:
                header = inner.recv(4096)
            except OSError:
                pass
            (HERE / f"haproxy-{version}-{name}.bin").write_bytes(header)
            print(name, header)
        finally:
            haproxy.kill()
            haproxy.wait()
            server.close()
            if client:
                peer.close()
