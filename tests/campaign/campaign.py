"""What campaigns share: a server that is watched from outside, clients that are told what to do, a log."""
import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "launcher"))
import harness  # noqa: E402

LIMIT_S = 20
MIB = 1 << 20
EMPTY = ("sessions", "detached", "refs", "data_bytes", "ingress_bytes")


class Lost(Exception):
    """What a client was told by the library."""

    def __init__(self, line, elapsed_s):
        _, self.status, self.text = line.split(" ", 2)
        self.elapsed_s = elapsed_s
        super().__init__(line)


class Broken(Exception):
    """The campaign found something."""


def options(description, **defaults):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "..", "build", "release", "bin"))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--log", help="a file for the log as well")
    for name, value in defaults.items():
        choices = value if isinstance(value, tuple) else None
        parser.add_argument(f"--{name}", type=type(choices[0] if choices else value), choices=choices,
                            default=choices[0] if choices else value)
    chosen = parser.parse_args()
    chosen.bin = os.path.abspath(chosen.bin)
    if not os.access(os.path.join(chosen.bin, "campaign_client"), os.X_OK):
        sys.exit(f"campaign_client is not in {chosen.bin}: build first, or name the folder with --bin")
    return chosen


def alone():
    """Starts this program anew with a /dev/shm of its own, where that may be done; what is left there at
    the end is then ours. Returns whether it is so."""
    if os.environ.get("CAMPAIGN_ALONE") or os.geteuid() != 0 or not shutil.which("unshare"):
        return bool(os.environ.get("CAMPAIGN_ALONE"))
    trial = ["unshare", "-m", "-i", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm && "]
    if subprocess.run([*trial[:-1], trial[-1] + "true"], capture_output=True).returncode != 0:
        return False
    os.environ["CAMPAIGN_ALONE"] = "1"
    os.execvp("unshare", [*trial[:-1], trial[-1] + 'exec "$0" "$@"', sys.executable, *sys.argv])


class Client:
    """A process of client.c."""

    def __init__(self, server, prefix=(), **variables):
        env = harness.scrubbed(server.home, DJINN_ADDRESS=server.address, DJINN_TOKEN=server.token,
                               **{**server.client_variables, **variables})
        self.process = subprocess.Popen([*prefix, os.path.join(server.bin, "campaign_client")], env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        self.rest = b""
        self.told_s = 0
        server.clients.append(self)

    def tell(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        self.told_s = time.monotonic()

    def answer(self, limit_s=LIMIT_S, since_s=None):
        """The words after ok. Lost with the time since `since_s` for an error; Broken when none comes."""
        end = time.monotonic() + limit_s
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Broken(f"a client hangs: no answer within {limit_s} s")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise Broken(f"a client ended by itself with {self.process.wait(5)}")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        line = line.decode()
        if line.startswith("error WRONG"):
            raise Broken(line)
        if line.startswith("error"):
            raise Lost(line, time.monotonic() - (since_s or self.told_s))
        return line.split()[1:]

    def ask(self, *words, limit_s=LIMIT_S):
        self.tell(*words)
        return self.answer(limit_s)

    def close(self):
        """Ends it, by force if it must."""
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
                self.process.wait(5)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass


class Server:
    """djinn-run with `count` ranks, as `djinn info` and /proc show it."""

    def __init__(self, chosen, count, *words, prefix=(), client_variables=None, **variables):
        self.bin = chosen.bin
        self.home = tempfile.mkdtemp(prefix="djinn-campaign-")
        self.client_variables = client_variables or {}
        self.clients = []
        self.prefix = prefix
        env = harness.scrubbed(self.home, **variables)
        self.run = harness.Server([*prefix, os.path.join(self.bin, "djinn-run"), "-n", str(count),
                                   *words], env)
        self.endpoints = self.run.wait_ready(count)
        self.address = self.run.process.stdout.readline().strip().partition("=")[2]
        with open(f"{self.home}/.djinn/token") as file:
            self.token = file.read().strip()
        harness.until(lambda: len([rank for rank in self.ranks().values()
                                   if rank["state"] == "serving"]) == count, "all ranks serving")

    def client(self, connect=True, prefix=None, **variables):
        client = Client(self, self.prefix if prefix is None else prefix, **variables)
        if connect:
            client.ask("connect")
        return client

    def ranks(self, address=None):
        """Rank → its description, as rank 0 (or the rank at the address) gives it."""
        env = harness.scrubbed(self.home, DJINN_ADDRESS=address or self.address,
                               DJINN_TOKEN=self.token)
        done = subprocess.run([*self.prefix, os.path.join(self.bin, "djinn"), "info", "--json"],
                              env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LIMIT_S)
        if done.returncode != 0:
            raise Broken(f"djinn info: {done.stderr.strip()}")
        return {rank["rank"]: rank for rank in json.loads(done.stdout)["ranks"]}

    def own_words(self, rank):
        """The rank's own description: rank 0 knows what it was last told, this is now."""
        return self.ranks(self.endpoints[rank]).get(rank, {})

    def becomes(self, rank, limit_s, what, condition, ask=None):
        """Seconds until the rank's description fulfils the condition."""
        began_s = time.monotonic()
        while True:
            described = (ask or self.own_words)(rank)
            if described and condition(described):
                return time.monotonic() - began_s
            if time.monotonic() - began_s > limit_s:
                seen = {name: described.get(name) for name in ("state", "incarnation", *EMPTY)}
                raise Broken(f"rank {rank} not {what} after {limit_s} s: {seen}")

    def serves_again(self, rank, limit_s, incarnation=0):
        """As rank 0 sees it."""
        return self.becomes(rank, limit_s, "serving",
                            lambda described: described["state"] == "serving" and
                            described["incarnation"] >= incarnation,
                            lambda rank: self.ranks().get(rank, {}))

    def is_empty(self, rank, limit_s=10):
        return self.becomes(rank, limit_s, "empty",
                            lambda described: not any(described[name] for name in EMPTY))

    def errors(self):
        return self.run.errors()

    def close(self):
        """Ends everything; what it leaves behind is Broken."""
        for client in self.clients:
            client.close()
        pids = [self.run.pid, *children(self.run.pid)]
        status = self.run.end()
        try:
            harness.until(lambda: not any(harness.alive(pid) for pid in pids), "", 5)
        except AssertionError:
            raise Broken("processes outlive the server") from None
        self.run.close()
        shutil.rmtree(self.home, ignore_errors=True)
        return status


def children(pid):
    found = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            for child in file.read().split():
                found += [int(child), *children(int(child))]
    except OSError:
        pass
    return found


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Log:
    def __init__(self, path):
        self.file = open(path, "w") if path else None

    def __call__(self, text):
        print(text, flush=True)
        if self.file:
            self.file.write(text + "\n")
            self.file.flush()
