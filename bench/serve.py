"""Starts acmegate for bench/peers.sh: mode gate-only, no per-request log, all limits on, like the peers.

    serve.py BINARY PORT thumbprint THUMBPRINT [deferred]      answers from memory, redirects the rest
    serve.py BINARY PORT upstream ADDRESS:PORT [deferred]      passes challenges on, under an open lease
    serve.py BINARY PORT server ADDRESS:PORT [deferred]        the gate on port 443: leads visitors on to a server

With `deferred` the socket is handed over with TCP_DEFER_ACCEPT, as systemd's DeferAcceptSec= does.
"""
import os, socket, subprocess, sys, tempfile, time

binary, port, kind, value = sys.argv[1:5]
directory = tempfile.mkdtemp(prefix="acmegate-bench-")
answer = {
    "thumbprint": f'{{ thumbprint = "{value}" }}',
    "upstream": f'{{ upstream = "http://{value}" }}',
    "server": '"pushed"',
}[kind]
listen = f"""[http]
listen = ["127.0.0.1:{port}"]
max_connections = 100000
max_connections_per_source = 100000
"""
if kind == "server":
    listen = f"""[http]
listen = []
[tls]
listen = ["127.0.0.1:{port}"]
server = "{value}"
max_connections = 50000
max_connections_per_source = 50000
"""
config = os.path.join(directory, "acmegate.toml")
with open(config, "w") as file:
    file.write(f'''[daemon]
user = "0"
state_dir = "{directory}"
{listen}[window]
max = "24h"
[firewall]
mode = "gate-only"
ports = [{443 if kind == 'server' else 80}]
[log]
level = "error"
[[site]]
identifiers = ["www.example.com"]
answer = {answer}
''')
command = [binary, "--config", config, "--runtime-dir", directory]
if kind == "upstream" and os.fork() == 0:
    # The lease under which unannounced tokens are passed on; whoever started us becomes the daemon.
    for _ in range(200):
        if subprocess.run([*command, "open", "--lease", "bench"], capture_output=True).returncode == 0:
            break
        time.sleep(0.02)
    os._exit(0)
if sys.argv[5:] == ["deferred"]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(4096)
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(binary, [*command, "run"])
