"""What the tests with several processes share: a server, clients that obey, the server's own description."""
import json
import os
import select
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "launcher"))
import harness  # noqa: E402
from harness import until  # noqa: E402

BIN = os.environ["LIVE_BIN"]
PRELOAD = os.environ.get("LIVE_PRELOAD", "")
POISON = os.environ.get("LIVE_POISON") == "1"
SUPPRESSED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "leaks.supp")
LIMIT_S = 20
PATIENT = "5s"  # a crowded machine may not run a thread for a second; deaths are seen without a clock


class PeerError(Exception):
    """What a peer was told by the library: status and sentence."""

    def __init__(self, line):
        _, self.status, self.text = line.split(" ", 2)
        super().__init__(line)


class Peer:
    """A client process (peer.c)."""

    def __init__(self, address, token, home, **variables):
        env = harness.scrubbed(home, DJINN_ADDRESS=address, DJINN_TOKEN=token,
                               **{"DJINN_SUSPECT_MS": PATIENT, **variables})
        self.process = subprocess.Popen([os.path.join(BIN, "test_peer")], env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        self.rest = b""

    def tell(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

    def answer(self, limit_s=LIMIT_S):
        """The next line's words after ok; PeerError for an error."""
        end = time.monotonic() + limit_s
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError(f"no answer within {limit_s} s")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise AssertionError(f"the peer ended with {self.process.wait(5)}")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        line = line.decode()
        if not line.startswith("ok"):
            raise PeerError(line)
        return line.split()[1:]

    def ask(self, *words, limit_s=LIMIT_S):
        self.tell(*words)
        return self.answer(limit_s)

    def connect(self):
        """Rank and incarnation."""
        rank, incarnation, _, _ = map(int, self.ask("connect"))
        return rank, incarnation

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process.stdout.close()
        if not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass


class LiveTest(harness.LaunchTest):
    def setUp(self):
        super().setUp()
        self.server = None
        self.env["DJINN_SUSPECT_MS"] = PATIENT
        self.env["LSAN_OPTIONS"] = f"print_suppressions=0:suppressions={SUPPRESSED}"
        if POISON:
            self.env.update(DJINN_POISON="1", LD_PRELOAD=PRELOAD)

    def serve(self, count, *words, launcher=None, **variables):
        """A server of `count` ranks; waits until all workers serve."""
        self.addCleanup(self.sanitizers_are_silent)  # runs after the server's end
        argv = list(launcher or [os.path.join(BIN, "djinn-run"), "-n", str(count)])
        self.server = self.start(*argv, *words, env=dict(self.env, **variables))
        self.addCleanup(self.peaks_agree)
        self.server.wait_ready(count)
        line = self.server.process.stdout.readline()
        self.address = line.strip().partition("=")[2]
        with open(f"{self.home}/.djinn/token") as file:
            self.token = file.read().strip()
        until(lambda: len(self.ranks("serving")) == count, "all ranks serving")
        return self.server

    def peaks_agree(self):
        if POISON and self.server.process.poll() is None:
            self.assertEqual([rank["peak_mismatches"] for rank in self.ranks().values()],
                             [0] * len(self.ranks()))

    def sanitizers_are_silent(self):
        with open(self.server.err.name) as file:
            text = file.read()
        for word in ("Sanitizer", ": runtime error: "):
            self.assertNotIn(word, text)

    def peer(self, **variables):
        peer = Peer(self.address, self.token, self.home, **variables)
        self.addCleanup(peer.close)
        return peer

    def connected(self, **variables):
        peer = self.peer(**variables)
        peer.rank, peer.incarnation = peer.connect()
        return peer

    def gave_up(self):
        """Whether a rank found its shared memory spoilt by a killed client (runtime/probe.c)."""
        return "takes no more messages" in self.server.errors()

    def still_served(self, witness, rank, **variables):
        """The witness, after it added; or a new one, when the rank gave up and said so in time."""
        began = time.monotonic()
        try:
            witness.ask("add", 2)
            return witness
        except PeerError as error:
            self.assertEqual(error.status, "ERR_PEER_DIED")
            # Over tcp UCX 1.13.1 aborts about once in 400 kills during wire-up (docs/protocol.md).
            self.aborts = getattr(self, "aborts", 0) + bool(variables)
            self.assertTrue(self.aborts == 1 if variables else self.gave_up(), error.text)
            self.assertLess(time.monotonic() - began, 3)
        until(lambda: self.ranks()[rank]["state"] == "serving", "the rank's return", 5)
        return self.connected(**variables)

    def same_process(self, rank, pid):
        described = self.ranks()[rank]
        if not self.gave_up() and not getattr(self, "aborts", 0):
            self.assertEqual((described["pid"], described["incarnation"]), (pid, 0))

    def describe(self, address=None, prefix=()):
        """What rank 0, or the rank at the address, says of itself."""
        env = harness.scrubbed(self.home, DJINN_ADDRESS=address or self.address, DJINN_TOKEN=self.token)
        done = subprocess.run([*prefix, os.path.join(BIN, "djinn"), "info", "--json"], env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=LIMIT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def ranks(self, state=None):
        """Rank → its description, those in the state alone."""
        return {rank["rank"]: rank for rank in self.describe()["ranks"]
                if state in (None, rank["state"])}

    def becomes(self, rank, limit_s=LIMIT_S, **numbers):
        """Waits until the rank's numbers are these."""
        seen = {}

        def there():
            described = self.ranks()[rank]
            seen.update({name: described[name] for name in numbers})
            return seen == numbers
        try:
            until(there, "", limit_s)
        except AssertionError:
            self.fail(f"rank {rank}: {seen} after {limit_s} s, not {numbers}")

    def is_empty(self, rank, limit_s=LIMIT_S):
        self.becomes(rank, limit_s, sessions=0, detached=0, refs=0, data_bytes=0,
                     data_backed_bytes=0, ingress_bytes=0)


def main():
    if not os.access(os.path.join(BIN, "test_peer"), os.X_OK):
        sys.exit("LIVE_BIN must name the folder of the built programs")
    unittest.main(verbosity=2)
