"""Runs inside the namespaces that bench/observe.sh makes: this one is the host, a second one the peer."""
import json, os, statistics, subprocess, sys, tempfile, time

BINARY, ROUNDS, SECONDS = sys.argv[1], int(sys.argv[2]), 2
HOST, PEER = "198.18.0.1", "198.18.0.2"  # RFC 2544: set aside for benchmarks
directory = tempfile.mkdtemp(prefix="acmegate-bench-")
here = os.path.dirname(os.path.abspath(__file__))
loadgen = os.path.join(directory, "loadgen")
subprocess.run(["cc", "-O2", "-o", loadgen, os.path.join(here, "peers", "loadgen.c")], check=True)
TRACKING = """table inet filter {
    chain input { type filter hook input priority filter; policy accept; ct state established,related accept; }
}
"""


def config(evidence, listed):
    path = os.path.join(directory, "acmegate.toml")
    with open(path, "w") as file:
        file.write(f'''[daemon]
user = "0"
state_dir = "{directory}"
[http]
listen = []
[window]
max = "24h"
[firewall]
mode = "guard"
ports = [443]
[allow]
prefixes = {json.dumps([f"{PEER}/32"] if listed else [])}
[log]
level = "error"
[report]
evidence = {json.dumps(evidence)}
[[site]]
identifiers = ["www.example.com"]
''')
    return path


def run(*command):
    subprocess.run(command, check=True)


def cpu(pid):
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e9


peer = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
inside = ["nsenter", "-n", "-t", str(peer.pid)]
while os.readlink(f"/proc/{peer.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    time.sleep(0.01)
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "host", "type", "veth", "peer", "name", "peer", "netns", str(peer.pid))
run("ip", "address", "add", f"{HOST}/24", "dev", "host")
run("ip", "link", "set", "host", "up")
run(*inside, "ip", "address", "add", f"{PEER}/24", "dev", "peer")
run(*inside, "ip", "link", "set", "peer", "up")
sink = subprocess.Popen(["taskset", "-c", "0", loadgen, "sink", HOST, "443", "D"])


def connections():
    command = ["tls", HOST, "443", "www.example.com", "h2", "64", str(SECONDS)]
    before = cpu(sink.pid)
    output = subprocess.run(["taskset", "-c", "1", *inside, loadgen, *command], check=True, capture_output=True, text=True)
    result = json.loads(output.stdout)
    assert result["done"] > 0, result
    return result["rps"], (cpu(sink.pid) - before) / result["done"] * 1e6


class Gate:
    def __init__(self, evidence, listed):
        self.command = [BINARY, "--config", config(evidence, listed), "--runtime-dir", directory]

    def __enter__(self):
        self.process = subprocess.Popen([*self.command, "run"])
        for _ in range(400):
            if subprocess.run([*self.command, "open", "--lease", "bench"], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        raise SystemExit("no window")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


try:
    time.sleep(0.5)
    for title, firewall in (("a firewall that tracks connections", TRACKING), ("nothing else that tracks connections", "")):
        for who, listed in (("a stranger in a window", False), ("a listed visitor", True)):
            results = {False: [], True: []}
            for turn in range(ROUNDS):
                for evidence in (False, True) if turn % 2 else (True, False):
                    subprocess.run(["nft", "-f", "-"], check=True, input=firewall, text=True)
                    with Gate(evidence, listed):
                        results[evidence].append(connections())
                    run("nft", "flush", "ruleset")
            print(f"== {who}, beside {title}: medians of {ROUNDS}")
            medians = {}
            for evidence in (False, True):
                rates, costs = zip(*results[evidence])
                medians[evidence] = statistics.median(rates), statistics.median(costs)
                name = "observed" if evidence else "not observed"
                print(f"{name:14} {medians[evidence][0]:10,.0f} connections/s {medians[evidence][1]:8.1f} µs/connection")
            (r0, c0), (r1, c1) = medians[False], medians[True]
            print(f"{'ratio':14} {r1 / r0:9.2f}x               {c1 / c0:7.2f}x\n", flush=True)
finally:
    for process in (sink, peer):
        process.kill()
        process.wait()
