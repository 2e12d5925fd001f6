"""Runs inside the namespaces that bench/open.sh makes."""
import json, os, socket, statistics, subprocess, sys, tempfile, time

BINARY, ROUNDS = sys.argv[1], int(sys.argv[2])


def run(*command, text=None):
    subprocess.run(command, check=True, input=text, text=True, stdout=subprocess.DEVNULL)


def timed(*command):
    """Milliseconds from fork to exit."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def prefixes(count):
    # Every other /25, so that nothing merges; a million of them are 122 /8s.
    address = lambda i: f"{1 + i // 65536}.{(i // 256) % 256}.{i % 256}.0/25"
    return ", ".join(address(i) for i in range(count))


def asked(directory, request):
    """Milliseconds from connect to the daemon's answer: what a hook waits for besides starting itself."""
    line = json.dumps({"version": 1, "ask": request}).encode() + b"\n"
    started = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(directory, "control.sock"))
        connection.sendall(line)
        answer = connection.makefile("rb").readline()
    elapsed = (time.perf_counter() - started) * 1000
    assert json.loads(answer)["code"] == 0, answer
    return elapsed


def daemon(directory):
    config = os.path.join(directory, "acmegate.toml")
    with open(config, "w") as file:
        file.write(f'[daemon]\nuser = "0"\nstate_dir = "{directory}"\n[http]\nlisten = ["[::]:80"]\n'
                   '[budget]\nper_hour = 3600\nper_caller = 3600\n[log]\nlevel = "error"\n')
    process = subprocess.Popen([BINARY, "--config", config, "--runtime-dir", directory, "run"])
    deadline = time.monotonic() + 10
    while subprocess.run([BINARY, "--runtime-dir", directory, "status"], capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise SystemExit("the daemon does not start")
        time.sleep(0.02)
    return process


def measure(large):
    run("nft", "flush", "ruleset")
    rules = "table inet host { set s { type inet_service; flags timeout; }\n"
    if large:
        rules += f"set geo {{ type ipv4_addr; flags interval; elements = {{ {prefixes(large)} }}\n}}\n"
    run("nft", "-f", "-", text=rules + "}\n")
    with tempfile.TemporaryDirectory() as directory:
        process = daemon(directory)
        try:
            ours, nft, inside = [], [], []
            few = ROUNDS if not large else min(ROUNDS, 15 if large <= 100_000 else 5)
            opening = {"open": {"lease": "bench", "milliseconds": 60_000, "ports": [], "dry_run": False,
                                "family": None, "identifiers": None, "holder": None}}
            for i in range(ROUNDS):
                # Interleaved, so that both see the same neighbours on the machine.
                ours.append(timed(BINARY, "--runtime-dir", directory, "open", "--lease", "bench", "--for", "60s"))
                inside.append(asked(directory, opening))
                if i < few:
                    nft.append(timed("nft", "add", "element", "inet", "host", "s", f"{{ {1000 + i} timeout 60s }}"))
        finally:
            process.terminate()
            process.wait()
    return ours, inside, nft


def line(name, values):
    values = sorted(values)
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    print(f"{name:46} n={len(values):<5} median {statistics.median(values):9.3f} ms   p99 {p99:9.3f} ms", flush=True)


run("ip", "link", "set", "lo", "up")
print(f"kernel {os.uname().release}, {os.cpu_count()} cores")
for large in (0, 100_000, 1_000_000):
    ours, inside, nft = measure(large)
    where = f"{large:,} foreign prefixes"
    line(f"acmegate open, {where}", ours)
    line(f"the daemon's answer, {where}", inside)
    line(f"nft add element, {where}", nft)
    print(f"{'ratio of medians, open to nft':46} {statistics.median(ours) / statistics.median(nft):.5f}", flush=True)
