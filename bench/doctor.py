"""Runs inside the namespaces that bench/doctor.sh makes."""
import os, statistics, subprocess, sys, tempfile, time

BINARY, ROUNDS = sys.argv[1], int(sys.argv[2])


def run(*command, text=None):
    subprocess.run(command, check=True, input=text, text=True, stdout=subprocess.DEVNULL)


def timed(*command, good=(0,)):
    """Milliseconds from fork to exit."""
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    elapsed = (time.perf_counter() - started) * 1000
    assert done.returncode in good, (command, done)
    return elapsed


def host():
    for line in ["link set lo up", "link add eth0 type veth peer name far0", "link set eth0 up",
                 "link set far0 up", "addr add 203.0.113.7/24 dev eth0",
                 "addr add 2001:db8::7/64 dev eth0 nodad", "route add default via 203.0.113.1"]:
        run("ip", *line.split())


def ruleset(large):
    # Every other /25, so that nothing merges.
    address = lambda i: f"{1 + i // 65536}.{(i // 256) % 256}.{i % 256}.0/25"
    elements = "elements = { %s }" % ", ".join(map(address, range(large))) if large else ""
    run("nft", "flush", "ruleset")
    run("nft", "-f", "-", text=f"""table inet filter {{
set geo {{ type ipv4_addr; flags interval; {elements}
}}
chain input {{ type filter hook input priority 0; policy drop;
ct state established,related accept
iif lo accept
tcp dport {{ 22, 80 }} accept
ip saddr @geo accept
}}
}}
""")


def daemon(directory):
    config = os.path.join(directory, "acmegate.toml")
    with open(config, "w") as file:
        file.write(f'[daemon]\nuser = "0"\nstate_dir = "{directory}"\n[log]\nlevel = "error"\n')
    process = subprocess.Popen([BINARY, "--config", config, "--runtime-dir", directory, "run"])
    deadline = time.monotonic() + 10
    while subprocess.run([BINARY, "--runtime-dir", directory, "status"], capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise SystemExit("the daemon does not start")
        time.sleep(0.02)
    return process


def measure(large):
    ruleset(large)
    with tempfile.TemporaryDirectory() as directory:
        process = daemon(directory)
        ask = [BINARY, "--config", f"{directory}/acmegate.toml", "--runtime-dir", directory]
        listing = os.path.join(directory, "listing")
        times = {}

        def add(name, *command, **more):
            times.setdefault(name, []).append(timed(*command, **more))

        try:
            for number in range(ROUNDS):
                add("nft -t list ruleset", "nft", "-t", "list", "ruleset")
                add("nft list ruleset", "nft", "list", "ruleset")
                with open(listing, "w") as file:
                    subprocess.run(["nft", "list", "ruleset"], check=True, stdout=file)
                add("nft -f of it, elsewhere", "unshare", "-n", "nft", "-f", listing)
                add("doctor --only rules", *ask, "doctor", "--only", "rules", good=(0, 1))
                add("doctor, rules and twin", *ask, "doctor", "--only", "rules", "--only", "twin", good=(0, 1))
                add("explain", *ask, "explain", "8.8.8.8", "80", "--window", "open")
                # Somebody changes the ruleset: what was proved is void.
                run("nft", "add", "table", "inet", f"other{number}")
                add("open --prove, first", *ask, "open", "--quiet", "--lease", "bench", "--prove")
                run(*ask, "close", "--lease", "bench")
                add("open --prove, again", *ask, "open", "--quiet", "--lease", "bench", "--prove")
                run(*ask, "close", "--lease", "bench")
        finally:
            process.terminate()
            process.wait()
    print(f"{large} prefixes, medians of {ROUNDS}:")
    for name, values in times.items():
        print(f"  {name:26} {statistics.median(values):9.1f} ms   (min {min(values):.1f}, max {max(values):.1f})")
    median = {name: statistics.median(values) for name, values in times.items()}
    peer = median["nft list ruleset"] + median["nft -f of it, elsewhere"]
    print(f"  reading / nft -t list ruleset          {median['doctor --only rules'] / median['nft -t list ruleset']:.2f}")
    print(f"  reading and twin / nft list + nft -f   {median['doctor, rules and twin'] / peer:.2f}")


host()
for large in (0, 100_000):
    measure(large)
