"""Runs inside the namespaces that bench/divert.sh makes: this one is the host, a second one the visitor."""
import json, os, statistics, subprocess, sys, tempfile, time

BINARY, ROUNDS, SECONDS = sys.argv[1], int(sys.argv[2]), 2
HOST, VISITOR = "198.18.0.1", "198.18.0.2"  # RFC 2544: set aside for benchmarks
directory = tempfile.mkdtemp(prefix="acmegate-bench-")
config = os.path.join(directory, "acmegate.toml")
with open(config, "w") as file:
    file.write(f'''[daemon]
user = "0"
state_dir = "{directory}"
[http]
listen = []
[tls]
listen = "divert"
[window]
max = "24h"
[firewall]
mode = "guard"
ports = [443]
[allow]
prefixes = ["{VISITOR}/32"]
[log]
level = "error"
[[site]]
identifiers = ["www.example.com"]
''')
loadgen = os.path.join(directory, "loadgen")
here = os.path.dirname(os.path.abspath(__file__))
subprocess.run(["cc", "-O2", "-o", loadgen, os.path.join(here, "peers", "loadgen.c")], check=True)


def run(*command):
    subprocess.run(command, check=True)


def cpu(pid):
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0]) for task in tasks) / 1e9


visitor = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
inside = ["nsenter", "-n", "-t", str(visitor.pid)]
while os.readlink(f"/proc/{visitor.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    time.sleep(0.01)
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "host", "type", "veth", "peer", "name", "visitor", "netns", str(visitor.pid))
run("ip", "address", "add", f"{HOST}/24", "dev", "host")
run("ip", "link", "set", "host", "up")
run(*inside, "ip", "address", "add", f"{VISITOR}/24", "dev", "visitor")
run(*inside, "ip", "link", "set", "visitor", "up")
# A host that keeps anybody out has a firewall that knows its connections.
FIREWALL = """table inet filter {
    chain input { type filter hook input priority filter; policy accept; ct state established,related accept; }
}
"""
subprocess.run(["nft", "-f", "-"], check=True, input=FIREWALL, text=True)
sink = subprocess.Popen(["taskset", "-c", "0", loadgen, "sink", HOST, "443", "D"])


def measure(workload):
    if workload == "connections":
        command = ["tls", HOST, "443", "www.example.com", "h2", "64", str(SECONDS)]
    else:
        command = ["bulk", HOST, "443", "bulk.example.com", "h2", "4", str(SECONDS)]
    before = cpu(sink.pid)
    output = subprocess.run(["taskset", "-c", "1", *inside, loadgen, *command], check=True, capture_output=True, text=True)
    result = json.loads(output.stdout)
    amount = result["done"] if workload == "connections" else result["gbs"] * result["secs"]
    assert amount > 0, result
    rate = result["rps"] if workload == "connections" else result["gbs"]
    unit = 1e6 if workload == "connections" else 1e3
    return rate, (cpu(sink.pid) - before) / amount * unit


class Gate:
    def __enter__(self):
        command = [BINARY, "--config", config, "--runtime-dir", directory]
        self.process = subprocess.Popen([*command, "run"])
        for _ in range(200):
            if subprocess.run([*command, "open", "--lease", "bench"], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        raise SystemExit("no window")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Nothing:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


try:
    time.sleep(0.5)
    results = {}
    for turn in range(ROUNDS):
        cases = [("without acmegate", Nothing), ("divert, window open", Gate)]
        for name, case in cases if turn % 2 else reversed(cases):
            with case():
                for workload in ("connections", "bulk"):
                    results.setdefault((workload, name), []).append(measure(workload))
    for workload, rate, each in (("connections", "per second", "µs/connection"), ("bulk", "GB/s", "ms/GB")):
        print(f"== {workload}: median of {ROUNDS} (server's CPU, the kernel's work for it included)")
        medians = {}
        for name in ("without acmegate", "divert, window open"):
            rates, costs = zip(*results[workload, name])
            medians[name] = statistics.median(rates), statistics.median(costs)
            print(f"{name:22} {medians[name][0]:10,.2f} {rate}   {medians[name][1]:8.1f} {each}")
        (r0, c0), (r1, c1) = medians.values()
        print(f"{'ratio':22} {r1 / r0:10.2f}x            {c1 / c0:8.2f}x\n", flush=True)
finally:
    for process in (sink, visitor):
        process.kill()
        process.wait()
