"""Several supervisors of one server: open seats, joining, loss, replacement, and strangers at the lifeline."""
import json
import os
import re
import signal
import socket
import struct
import sys
import time

import harness
from harness import BIN, until

RUN, SERVER, DJINN = (os.path.join(BIN, name) for name in ("djinn-run", "djinn-server", "djinn"))


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


class Lifeline(harness.LaunchTest):
    foreign = True

    def setUp(self):
        super().setUp()
        self.file = f"{self.home}/address"

    def head(self, *words):
        """Rank 0 and two workers; the seats of ranks 3 and 4 are open."""
        head = self.start(SERVER, "-n", "5", "--ranks-per-node", "2", "--threads", "1",
                          "--address-file", self.file, *words)
        self.address = head.wait_ready(3)[0]
        until(lambda: os.path.exists(self.file), "the address file")
        return head

    def join(self, *words, env=None):
        member = self.start(SERVER, "--join", self.file, "--threads", "1", *words, env=env)
        until(lambda: "ready at" in member.errors() or "again at" in member.errors() or
              member.process.poll() is not None, "the member's ranks")
        return member

    def pair(self):
        head = self.head()
        member = self.join()
        until(lambda: "5 ranks ready" in head.errors(), "five ranks")
        return head, member

    def ranks(self):
        code, out, err = self.finish(DJINN, "info", "--json", "--address", self.address)
        self.assertEqual(code, 0, err)
        return {rank["rank"]: rank for rank in json.loads(out)["ranks"]}

    def serving(self):
        return {number: rank["incarnation"] for number, rank in self.ranks().items()
                if rank["state"] == "serving"}

    def is_lost(self, head, count=1):
        until(lambda: head.errors().count("is lost; another takes its place") == count,
              "the loss told", 3)


class Wrong(Lifeline):
    def refused(self, word, *words, env=None):
        began = time.monotonic()
        code, out, err = self.finish(SERVER, "--connect-ms", "300ms", *words, env=env)
        self.assertEqual((code, out), (2, ""), err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn(word, err)
        self.assertLess(time.monotonic() - began, 5)

    def test_words(self):
        self.refused("--ranks-per-node", "--ranks-per-node", "many")
        self.refused("--ranks-per-node", "--ranks-per-node", "0")
        self.refused("host:port", "--join", "1:2:x")
        self.refused("too long", "--join", "a" * 99 + ":1")

    def test_nobody_there(self):
        self.refused("/nowhere", "--join", "/nowhere")
        with socket.create_server(("127.0.0.1", 0)) as other:
            closed = other.getsockname()[1]
        env = dict(self.env, DJINN_TOKEN="ab" * 32)
        self.refused("refused", "--join", f"127.0.0.1:{closed}", env=env)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            self.refused("in time", "--join", f"127.0.0.1:{port}", env=env)

    def test_a_server_without_seats(self):
        alone = self.start(SERVER, "--address-file", self.file)
        alone.wait_ready(1)
        until(lambda: os.path.exists(self.file), "the address file")
        self.refused("no supervisor", "--join", self.file)
        alone.end()
        self.assertFalse(os.path.exists(self.file))

    def test_another_token(self):
        self.head()
        self.refused("token", "--join", self.file, env=dict(self.env, DJINN_TOKEN="ab" * 32))

    def test_nothing_to_join(self):
        head, member = self.pair()
        self.refused("nothing to join", "--join", self.file)
        self.assertEqual(len(self.serving()), 5)


class Joining(Lifeline):
    def test_open_seats_in_parts(self):
        head = self.head()
        for rank in (3, 4):
            self.assertNotIn("5 ranks ready", head.errors())
            member = self.join("--ranks-per-node", "1")
            self.assertIn(f"rank {rank} ready", member.errors())
        until(lambda: "5 ranks ready" in head.errors(), "five ranks")
        until(lambda: self.serving() == {rank: 0 for rank in range(5)}, "five ranks registered")

    def test_a_killed_member_is_replaced(self):
        head, member = self.pair()
        for incarnation in (1, 2):
            pids = children(member.pid)
            os.kill(member.pid, signal.SIGKILL)
            began = time.monotonic()
            member = self.join()
            self.assertIn("again at", member.errors())
            until(lambda: self.serving() == {0: 0, 1: 0, 2: 0, 3: incarnation, 4: incarnation},
                  "the ranks of the killed one", 5)
            print(f"replaced in {time.monotonic() - began:.3f} s", file=sys.stderr)
            self.assert_gone(pids)
        self.is_lost(head, 2)

    def test_seats_of_a_member_that_ends(self):
        head, member = self.pair()
        self.assertEqual(member.end(), 0)
        self.is_lost(head)
        self.join()
        until(lambda: len(self.serving()) == 5, "five ranks again", 5)

    def test_the_head_ends(self):
        head, member = self.pair()
        pids = children(member.pid) + children(head.pid)
        self.assertEqual(head.end(), 0)
        self.assertEqual(member.wait(), 0)
        self.assert_gone(pids, 1)
        self.assertNotIn("lost", head.errors())

    def test_a_killed_head_takes_all_along(self):
        head, member = self.pair()
        pids = children(member.pid) + children(head.pid)
        os.kill(head.pid, signal.SIGKILL)
        began = time.monotonic()
        self.assertEqual(member.wait(), 1)
        self.assert_gone(pids, 1)
        self.assertLess(time.monotonic() - began, 3)
        self.assertIn("rank 0's supervisor is gone", member.errors())

    def test_a_killed_rank_0_disturbs_nobody(self):
        head, member = self.pair()
        os.kill(self.ranks()[0]["pid"], signal.SIGKILL)
        until(lambda: "rank 0 serves again" in head.errors(), "rank 0 again", 5)
        until(lambda: self.serving() == {0: 1, 1: 0, 2: 0, 3: 0, 4: 0}, "all registered again", 10)
        self.assertIsNone(member.process.poll())

    def test_a_paused_member_comes_again(self):
        head, member = self.pair()
        os.kill(member.pid, signal.SIGSTOP)
        self.is_lost(head)
        os.kill(member.pid, signal.SIGCONT)
        until(lambda: "is back after" in member.errors(), "the lifeline again", 5)
        self.refuse_join()
        self.assertEqual(self.serving(), {rank: 0 for rank in range(5)})

    def refuse_join(self):
        code, _, err = self.finish(SERVER, "--join", self.file)
        self.assertEqual(code, 2)
        self.assertIn("nothing to join", err)

    def test_a_paused_member_that_was_replaced_ends(self):
        head, member = self.pair()
        pids = children(member.pid)
        for pid in [member.pid, *pids]:
            os.kill(pid, signal.SIGSTOP)
        self.is_lost(head)
        other = self.join()
        until(lambda: self.serving() == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}, "the replacement", 5)
        for pid in [*pids, member.pid]:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(member.wait(), 1)
        self.assertIn("replaced", member.errors())
        self.assert_gone(pids, 2)
        self.assertEqual(self.serving(), {0: 0, 1: 0, 2: 0, 3: 1, 4: 1})
        self.assertIsNone(other.process.poll())

    def test_the_command_waits_for_all(self):
        env = dict(self.env, DJINN_TOKEN="cd" * 32)
        head = self.start(RUN, "-n", "3", "--ranks-per-node", "1", "--address-file", self.file, "--",
                          "sh", "-c", f"{DJINN} info --json; exit 6", env=env)
        head.wait_ready(2)
        until(lambda: os.path.exists(self.file), "the address file")
        self.assertNotIn("3 ranks ready", head.errors())
        member = self.start(SERVER, "--join", self.file, env=env)
        self.assertEqual(head.wait(), 6)
        self.assertEqual(member.wait(), 0)
        told = json.loads(head.process.stdout.read())
        self.assertEqual(told["ranks_expected"], 3)


class Strangers(Lifeline):
    def lifeline(self, pid):
        """The port of the head's lifeline, which rank 0 was told."""
        with open(f"/proc/{children(pid)[0]}/cmdline") as file:
            words = [word for word in file.read().split("\0") if word.startswith("--lifeline=")]
        return int(words[0].rsplit(":", 1)[1])

    def test_noise_and_held_connections(self):
        head, member = self.pair()
        port = self.lifeline(head.pid)
        before = len(os.listdir(f"/proc/{head.pid}/fd"))
        held = []
        for round in range(150):
            peer = socket.create_connection(("127.0.0.1", port), timeout=5)
            noise = [os.urandom(200), b"DJNC" + os.urandom(60), b"GET / HTTP/1.0\r\n\r\n",
                     struct.pack("<IHHII", 0x434e4a44, 3, 17, 24, 0) + os.urandom(24), b""][round % 5]
            try:
                peer.sendall(noise)
            except OSError:
                pass
            held.append(peer)
        self.assertEqual(len(self.serving()), 5)
        until(lambda: len(os.listdir(f"/proc/{head.pid}/fd")) <= before, "strangers shown out", 10)
        for peer in held:
            peer.close()
        self.assertIsNone(member.process.poll())
        self.assertNotIn("is lost", head.errors())
        os.kill(member.pid, signal.SIGKILL)
        self.join()
        until(lambda: len(self.serving()) == 5, "five ranks", 5)


class Attach(Lifeline):
    def attach(self, *words, env=None):
        return self.finish(RUN, *words, env=env)

    def test_wrong_use(self):
        for words, told in [(("--attach", "127.0.0.1:1"), "command"),
                            (("--attach", "nonsense:x", "--", "true"), "host:port"),
                            (("--attach", "/nowhere", "--connect-ms", "100ms", "--", "true"),
                             "/nowhere"),
                            (("--attach", "127.0.0.1:1", "--", "true"), "token")]:
            with self.subTest(words=words):
                code, out, err = self.attach(*words)
                self.assertEqual((code, out), (2, ""), err)
                self.assertIn(told, err)
                self.assertEqual(err.count("\n"), 1, err)

    def test_commands(self):
        server = self.start(SERVER, "--address-file", self.file)
        address = server.wait_ready(1)[0]
        until(lambda: os.path.exists(self.file), "the address file")
        for where in (address, self.file):
            code, out, err = self.attach("--attach", where, "--", "sh", "-c",
                                         f"echo $DJINN_ADDRESS; {DJINN} info > /dev/null && exit 4")
            self.assertEqual((code, out, err), (4, address + "\n", ""))
        self.assertEqual(self.attach("--attach", address, "--", "no-such-command")[0], 127)
        code, out, _ = self.attach("--attach", address, "--dry-run", "--", "false")
        self.assertEqual(code, 0)
        self.assertIn(address, out)
        server.end()
        code, _, err = self.attach("--attach", address, "--", "true")
        self.assertEqual(code, 2)
        self.assertIn("refused", err)

    def test_dry_run(self):
        code, out, err = self.attach("-n", "3", "--dry-run", "--", "false")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(len(re.findall(r"(?m)^rank \d of 3 ", out)), 3)
        self.assertFalse(os.path.exists(f"{self.home}/.djinn"))


if __name__ == "__main__":
    harness.main()
