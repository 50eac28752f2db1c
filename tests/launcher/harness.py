"""What the launcher's tests share: a scrubbed environment, servers that are surely ended, echo ranks."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "slurm"))  # nodes, cluster

BIN = os.environ.get("LAUNCH_BIN", "")
ECHO = os.path.join(BIN, "echo_rank")
LIMIT_S = 30


def scrubbed(home, **extra):
    """Only what a login gives; nothing of a launcher, of Djinn or of the caller's shell."""
    env = {"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C", "TMPDIR": home}
    if "UCX_MEM_MMAP_HOOK_MODE" in os.environ:
        env["UCX_MEM_MMAP_HOOK_MODE"] = "none"  # tests/tools/tsan.c
    env.update(extra)
    return env


def until(condition, what, limit_s=LIMIT_S):
    """The condition's first true value; a failure naming what was waited for after the limit."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s} s: {what}")
        time.sleep(0.002)


def alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def greeting(address, limit_s=LIMIT_S):
    """What the echo rank at the address says of itself, after its echo was tried."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=limit_s) as peer:
        file = peer.makefile("rwb")
        line = file.readline().decode()
        file.write(b"echo\n")
        file.flush()
        assert file.readline() == b"echo\n"
    return dict(word.split("=", 1) for word in line.split())


class Server:
    """A process started by argv, its progress lines read as they come."""

    def __init__(self, argv, env, **options):
        self.err = open(os.path.join(env["HOME"], f"err.{time.monotonic_ns()}"), "w+")
        self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.err, text=True,
                                        start_new_session=True, **options)
        self.pid = self.process.pid

    def errors(self):
        with open(self.err.name) as file:
            return file.read()

    def endpoints(self):
        """Rank → address, from the progress lines so far."""
        return {int(rank): address for rank, address in
                re.findall(r"rank (\d+) ready at (\S+),", self.errors())}

    def again(self):
        """Rank → address, of those that serve again."""
        return {int(rank): address for rank, address in
                re.findall(r"rank (\d+) serves again at (\S+),", self.errors())}

    def wait_ready(self, count):
        until(lambda: len(self.endpoints()) >= count or self.process.poll() is not None,
              f"{count} ranks ready")
        found = self.endpoints()
        assert len(found) == count, self.errors()
        return found

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        status = self.process.wait(timeout=LIMIT_S)
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=10)
        self.process.stdout.close()
        self.err.close()


class LaunchTest(unittest.TestCase):
    foreign = False  # whether libraries that leak by habit (PMIx, UCX) are part of the test

    def setUp(self):
        self.home = tempfile.mkdtemp(prefix="djinn-launch-")
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.env = scrubbed(self.home)
        if self.foreign:
            self.env["ASAN_OPTIONS"] = "detect_leaks=0"

    def start(self, *argv, env=None, **options):
        server = Server(list(argv), env or self.env, **options)
        self.addCleanup(server.close)
        return server

    def run_ranks(self, *words, env=None, **options):
        """djinn-run with echo ranks."""
        return self.start(os.path.join(BIN, "djinn-run"), "--rank-program", ECHO, *words, env=env,
                          **options)

    def finish(self, *argv, env=None):
        """A program that ends by itself: status, output, errors."""
        done = subprocess.run(argv, env=env or self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S)
        return done.returncode, done.stdout, done.stderr

    def run_command(self, *words, env=None):
        return self.finish(os.path.join(BIN, "djinn-run"), "--rank-program", ECHO, *words, env=env)

    def assert_gone(self, pids, limit_s=5):
        until(lambda: not any(alive(int(pid)) for pid in pids), f"processes {pids} gone", limit_s)


def main():
    if not os.access(ECHO, os.X_OK):
        sys.exit("LAUNCH_BIN must name the folder of the built programs")
    unittest.main(verbosity=2)
