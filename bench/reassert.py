"""Runs inside the namespaces that bench/reassert.sh makes."""
import os, select, socket, statistics, struct, subprocess, sys, tempfile, time

BINARY, ROUNDS = sys.argv[1], int(sys.argv[2])
NETLINK_NETFILTER, NFNLGRP_NFTABLES, NEWGEN = 12, 7, 0x0A0F
GEN_ID, GEN_PROC_PID, GEN_PROC_NAME = 1, 2, 3
# How long nothing must happen until our part is taken for being back.
QUIET = 0.25

DROPS = """table inet filter {
    set acmegate { type inet_service; flags timeout; }
    chain input { type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        tcp dport @acmegate accept
    }
}
"""
MODES = {
    "guard, owner = never": ('mode = "guard"\nowner = "never"\n', "", "flush ruleset\n"),
    "set": ('mode = "set"\nset = "inet filter acmegate"\n', DROPS, None),
    "attach": ('mode = "attach"\nchains = ["inet filter input"]\n', DROPS, None),
    "attach, owner = never": ('mode = "attach"\nowner = "never"\nchains = ["inet filter input"]\n', DROPS, None),
}


def nft(text):
    subprocess.run(["nft", "-f", "-"], check=True, input=text, text=True)


class Generations:
    """The kernel's word of every change to the ruleset, with who made it and when it was heard."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((0, 0))
        # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        self.socket.setsockopt(270, 1, NFNLGRP_NFTABLES)

    def until_quiet(self):
        heard = []
        while select.select([self.socket], [], [], QUIET)[0]:
            at, data = time.perf_counter(), self.socket.recv(1 << 20)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NEWGEN:
                    heard.append((at, name_in(data[20:length])))
                data = data[(length + 3) & ~3 :]
        return heard


def name_in(attributes):
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind & 0x3FFF == GEN_PROC_NAME:
            return attributes[4:length].rstrip(b"\0").decode()
        attributes = attributes[(length + 3) & ~3 :]
    return ""


def measure(settings, firewall, reload):
    nft("flush ruleset\n" + firewall)
    with tempfile.TemporaryDirectory() as directory:
        config = os.path.join(directory, "acmegate.toml")
        with open(config, "w") as file:
            file.write(f'[daemon]\nuser = "0"\nstate_dir = "{directory}"\n[log]\nlevel = "error"\n[firewall]\n{settings}')
        common = [BINARY, "--config", config, "--runtime-dir", directory]
        process = subprocess.Popen([*common, "run"], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while subprocess.run([*common, "open", "--lease", "bench"], capture_output=True).returncode:
                if time.monotonic() > deadline:
                    raise SystemExit("the daemon does not start")
                time.sleep(0.02)
            generations, gone = Generations(), []
            generations.until_quiet()
            for _ in range(ROUNDS):
                nft(reload or "flush ruleset\n" + firewall)
                heard = generations.until_quiet()
                foreign = [at for at, who in heard if who == "nft"]
                ours = [at for at, who in heard if who.startswith("acmegate")]
                assert foreign and ours, heard
                gone.append((max(ours) - foreign[0]) * 1000)
                # A fight is what more than thirty times in a minute are taken for.
                time.sleep(max(0, 2.1 - QUIET))
            return gone
        finally:
            process.terminate()
            process.wait()


subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
print(f"kernel {os.uname().release}, {os.cpu_count()} cores")
for name, mode in MODES.items():
    gone = sorted(measure(*mode))
    p99 = gone[min(len(gone) - 1, int(len(gone) * 0.99))]
    print(f"{name:26} n={len(gone):<4} median {statistics.median(gone):7.2f} ms   p99 {p99:7.2f} ms", flush=True)
