"""Runs inside the namespaces that bench/lists.sh makes."""
import json, os, signal, socket, statistics, subprocess, sys, tempfile, time

BINARY, RANGES = sys.argv[1], int(sys.argv[2])
# Of an hour's 3,600 openings; and what a hook may have to wait for is seen as often as it happens.
PAUSE = 0.06


def write(path, last):
    # Every other /25, so that nothing merges; `last` makes another list of as many addresses.
    with open(path + ".new", "w") as file:
        for i in range(RANGES):
            file.write(f"{1 + i // 65536}.{(i // 256) % 256}.{i % 256}.{last}/25\n")
    os.rename(path + ".new", path)


def ask(directory, request):
    line = json.dumps({"version": 1, "ask": request}).encode() + b"\n"
    started = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(directory, "control.sock"))
        connection.sendall(line)
        answer = json.loads(connection.makefile("rb").readline())
    assert answer["code"] == 0, answer
    return (time.perf_counter() - started) * 1000


def open_once(directory):
    return ask(directory, {"open": {"lease": "bench", "milliseconds": 60_000, "ports": [], "dry_run": False,
                                    "family": None, "identifiers": None, "holder": None}})


def status(directory):
    told = subprocess.run([BINARY, "--runtime-dir", directory, "status", "--json"], capture_output=True, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else None


def is_filling(directory):
    return any("being put into the kernel" in problem for problem in status(directory)["problems"])


def memory(name, pids):
    for word, pid in pids.items():
        fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if line.startswith("Vm"))
        rss, peak = (int(fields[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        print(f"{name:30} {word:10} {rss:7.0f} MiB, at most {peak:7.0f} MiB", flush=True)


with tempfile.TemporaryDirectory() as directory:
    path, config = (os.path.join(directory, name) for name in ("list", "acmegate.toml"))
    write(path, 0)
    with open(config, "w") as file:
        file.write(f'[daemon]\nuser = "0"\nstate_dir = "{directory}"\n[http]\nlisten = ["[::]:80"]\n'
                   f'[allow]\nfiles = ["{path}"]\n'
                   '[budget]\nper_hour = 3600\nper_caller = 3600\n[log]\nlevel = "warn"\n')
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    started = time.perf_counter()
    process = subprocess.Popen([BINARY, "--config", config, "--runtime-dir", directory, "run"])
    try:
        while not status(directory):
            assert process.poll() is None, "the daemon does not start"
            time.sleep(0.05)
        while is_filling(directory):
            time.sleep(0.1)
        print(f"{RANGES} ranges: a first start, whole after {time.perf_counter() - started:.1f} s", flush=True)
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
        pids = {"front": process.pid, "enforcer": int(children.stdout.split()[0])}
        memory("after the start", pids)
        calm = [open_once(directory) for _ in range(100)]
        print(f"an opening, nothing else: median {statistics.median(calm):.2f} ms, worst {max(calm):.2f} ms", flush=True)
        write(path, 128)
        started = time.perf_counter()
        process.send_signal(signal.SIGHUP)
        waits = []
        # `nft` would read the whole list before it says anything: the daemon is asked.
        has_begun = False
        while not has_begun or is_filling(directory):
            has_begun = has_begun or is_filling(directory)
            for _ in range(8):
                waits.append(open_once(directory))
                time.sleep(PAUSE)
        took = time.perf_counter() - started
        waits.sort()
        print(f"a swap: {took:.1f} s from the reload to the new rules; {len(waits)} openings meanwhile waited "
              f"{statistics.median(waits):.2f} ms (median), {waits[int(len(waits) * 0.99)]:.2f} ms (p99), {waits[-1]:.2f} ms (worst)",
              flush=True)
        memory("after the swap", pids)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
