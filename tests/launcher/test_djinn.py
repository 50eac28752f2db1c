"""The djinn command, and the real ranks under djinn-run and mpirun."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import harness
from harness import BIN, until

DJINN, RUN, SERVER = (os.path.join(BIN, name) for name in ("djinn", "djinn-run", "djinn-server"))


class Words(harness.LaunchTest):
    foreign = True

    def test_wrong_use(self):
        for words in ([], ["nonsense"], ["info", "nonsense"], ["info", "--no-such"],
                      ["info", "--json", "--address"], ["info", "--json", "x"], ["config", "x"],
                      ["config", "markdown", "x"], ["completion"], ["completion", "csh"],
                      ["completion", "bash", "x"], ["info", "--"],
                      ["doctor", "nonsense"], ["doctor", "--no-such"], ["doctor", "--json", "x"]):
            with self.subTest(words=words):
                code, out, err = self.finish(DJINN, *words)
                self.assertEqual((code, out), (2, ""))
                self.assertNotEqual(err, "")

    def test_help_version_config(self):
        self.assertRegex(self.finish(DJINN, "--version")[1], r"^djinn \d+\.\d+\.\d+\n$")
        self.assertIn("info [--json]", self.finish(DJINN, "--help")[1])
        self.assertRegex(self.finish(DJINN, "info", "--help")[1], "^usage: djinn\n  info \\[--json")
        self.assertIn("usage: djinn plan", self.finish(DJINN, "plan", "--help")[1])
        self.assertIn("--listen", self.finish(DJINN, "config")[1])
        self.assertIn("| `--listen` |", self.finish(DJINN, "config", "markdown")[1])

    def test_no_server(self):
        code, out, err = self.finish(DJINN, "info")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("--address", err)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = "127.0.0.1:%d" % closed.getsockname()[1]
        env = dict(self.env, DJINN_TOKEN="0a" * 32)
        code, out, err = self.finish(DJINN, "info", "--address", address, env=env)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(address, err)

    def test_a_server_that_is_none(self):
        """One that says nothing, one that talks nonsense: an error within the deadline."""
        env = dict(self.env, DJINN_TOKEN="0a" * 32, DJINN_CONNECT_MS="300")
        for words in (b"", b"\xff" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            with socket.create_server(("127.0.0.1", 0)) as server:
                asked = subprocess.Popen(
                    [DJINN, "info", "--address", "127.0.0.1:%d" % server.getsockname()[1]],
                    env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                peer, _ = server.accept()
                peer.sendall(words)
                out, err = asked.communicate(timeout=harness.LIMIT_S)
                peer.close()
            self.assertEqual((asked.returncode, out), (1, ""))
            self.assertIn("djinn: ", err)


class RealRanks(harness.LaunchTest):
    foreign = True

    def start_ranks(self, *argv, count):
        began = time.monotonic()
        server = self.start(*argv)
        server.wait_ready(count)
        print(f"{count} real ranks under {os.path.basename(argv[0])} ready in "
              f"{time.monotonic() - began:.3f} s", file=sys.stderr)
        return server

    def info(self, *words):
        code, out, err = self.finish(DJINN, "info", "--json", *words)
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def all_ranks(self, count, *words):
        def look():
            # The address is announced a moment after the last rank's word.
            code, out, err = self.finish(DJINN, "info", "--json", *words)
            if code == 1 and "no server is known" in err:
                return None
            self.assertEqual(code, 0, err)
            found = json.loads(out)
            serving = [rank for rank in found["ranks"] if rank["state"] == "serving"]
            return found if len(serving) == count else None
        return until(look, f"{count} ranks serving")

    def test_info_beside_djinn_run(self):
        code, out, err = self.finish(RUN, "-n", "3", "--", DJINN, "info")
        self.assertEqual(code, 0, err)
        self.assertRegex(out, r"^djinn \S+ at \S+, ")
        self.assertRegex(out, r"(?m)^ +0  coordinator ")
        self.assertNotIn("lost", err)

    def test_a_second_terminal(self):
        server = self.start_ranks(RUN, "-n", "2", count=2)
        found = self.all_ranks(2)  # by ~/.djinn/address and ~/.djinn/token
        self.assertEqual([rank["role"] for rank in found["ranks"]], ["coordinator", "worker"])
        env = dict(self.env, DJINN_TOKEN="0a" * 32)
        code, _, err = self.finish(DJINN, "info", env=env)
        self.assertEqual(code, 1)
        self.assertRegex(err, "token|authenti")
        self.assertEqual(server.end(), 0)
        self.assertEqual(self.finish(DJINN, "info")[0], 1)

    def test_a_worker_returns(self):
        server = self.start_ranks(RUN, "-n", "3", count=3)
        before = self.all_ranks(3)["ranks"][2]
        os.kill(before["pid"], signal.SIGKILL)
        until(lambda: "rank 2 serves again" in server.errors(), "rank 2 again", 5)
        after = until(lambda: [rank for rank in self.info()["ranks"] if rank["rank"] == 2 and
                               rank["incarnation"] == 1 and rank["state"] == "serving"],
                      "rank 2 registered", 5)
        self.assertEqual(after[0]["endpoint"], before["endpoint"])
        self.assertEqual(server.end(), 0)

    def test_the_coordinator_returns_and_finds_its_workers(self):
        server = self.start_ranks(RUN, "-n", "3", count=3)
        first = self.all_ranks(3)["ranks"][0]
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: "rank 0 serves again" in server.errors(), "rank 0 again", 5)
        again = self.all_ranks(3)["ranks"][0]
        self.assertEqual((again["endpoint"], again["incarnation"]), (first["endpoint"], 1))
        self.assertEqual(server.end(), 0)

    def test_one_rank_is_both(self):
        self.start_ranks(SERVER, count=1)
        self.assertEqual([rank["role"] for rank in self.all_ranks(1)["ranks"]], ["both"])


class RealMpirun(RealRanks):
    def test_nine_ranks(self):
        server = self.start_ranks("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "9",
                                  SERVER, count=9)
        found = self.all_ranks(9)
        self.assertEqual(found["ranks_expected"], 9)
        pids = [rank["pid"] for rank in found["ranks"]]
        os.kill(pids[5], signal.SIGKILL)
        until(lambda: "serves again" in server.errors(), "the rank again", 5)
        self.assertEqual(sum(rank["incarnation"] for rank in self.all_ranks(9)["ranks"]), 1)
        server.end()
        self.assert_gone(pids)


if __name__ == "__main__":
    if "RealMpirun.test_nine_ranks" in sys.argv and not shutil.which("mpirun"):
        sys.exit(77)
    harness.main()
