"""Runs inside the namespaces that bench/open.sh makes."""
import os, statistics, subprocess, sys, tempfile, time

BINARY, ROUNDS = sys.argv[1], int(sys.argv[2])


def run(*command, text=None):
    subprocess.run(command, check=True, input=text, text=True, stdout=subprocess.DEVNULL)


def timed(*command):
    """Milliseconds from fork to exit."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def prefixes(count):
    # Every other /24, so that nothing merges.
    return ", ".join(f"{1 + i // 32768}.{(i // 128) % 256}.{(i % 128) * 2}.0/24" for i in range(count))


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
            ours, nft = [], []
            for i in range(ROUNDS):
                # Interleaved, so that both see the same neighbours on the machine.
                ours.append(timed(BINARY, "--runtime-dir", directory, "open", "--lease", "bench", "--for", "60s"))
                if i < (ROUNDS if not large else min(ROUNDS, 15)):
                    nft.append(timed("nft", "add", "element", "inet", "host", "s", f"{{ {1000 + i} timeout 60s }}"))
        finally:
            process.terminate()
            process.wait()
    return ours, nft


def line(name, values):
    values = sorted(values)
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    print(f"{name:34} n={len(values):<5} median {statistics.median(values):9.2f} ms   p99 {p99:9.2f} ms")


run("ip", "link", "set", "lo", "up")
print(f"kernel {os.uname().release}, {os.cpu_count()} cores")
for large in (0, 100_000):
    ours, nft = measure(large)
    where = f"{large:,} foreign prefixes"
    line(f"acmegate open, {where}", ours)
    line(f"nft add element, {where}", nft)
    print(f"{'ratio of medians':34} {statistics.median(ours) / statistics.median(nft):.4f}")
