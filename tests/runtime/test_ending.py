"""The end of a rank: told to, everybody hears of it, what was accepted is answered, nothing new is taken;
replaced, it is fenced; cut off, it is reported lost."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import live
import wire
import harness  # beside live's own way to it
from harness import until
from live import BIN, PeerError

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "slurm"))
import nodes  # noqa: E402

LONG = 60  # products of 1024 x 1024: half a second on one thread, and more on a crowded machine


class Ending(live.LiveTest):
    def told(self, peer, *words, status="ERR_CANCELLED"):
        with self.assertRaises(PeerError) as told:
            peer.ask(*words)
        self.assertEqual(told.exception.status, status, told.exception.text)
        self.assertIn("the server is ending", told.exception.text)

    def term(self):
        """SIGTERM; returns what waits for the end and gives the seconds it took."""
        began = time.monotonic()
        self.server.process.send_signal(signal.SIGTERM)

        def ended(status=0):
            self.assertEqual(self.server.wait(), status, self.server.errors())
            return time.monotonic() - began
        return ended

    def working(self, products=LONG, **variables):
        """A client with two requests under way, both at the rank; it will want the second's answer."""
        peer = self.connected(**variables)
        peer.ask("add", 1)
        worker = self.server.endpoints()[peer.rank]
        before = self.arrived(worker)
        peer.ask("busy", products)
        peer.ask("ask")

        def both_arrived():
            peer.ask("poll")
            return self.arrived(worker) >= before + 2
        until(both_arrived, "the requests at the rank", 10)
        return peer

    def arrived(self, address):
        """Messages that the rank at the address has seen."""
        described = self.describe(address)["ranks"][0]
        return described["messages_in"]

    def test_clients_with_nothing_to_do_hear_it_and_the_end_is_quick(self):
        self.serve(2, "--threads", "1")
        peers = [self.connected(), self.connected(DJINN_EXECUTION_MODE="remote"),
                 self.connected(DJINN_TRANSPORTS="relay")]
        for peer in peers:
            peer.ask("hold", 4096)
            peer.tell("await", 5000)
        ended = self.term()
        for peer in peers:
            elapsed_ms, status, *text = peer.answer()
            self.assertEqual(status, "ERR_CANCELLED")
            self.assertIn("the server is ending", " ".join(text))
        self.assertLess(ended(), 1)
        for peer in peers:
            self.told(peer, "add", 1)
            self.told(peer, "alive")
            peer.ask("close")

    def test_nine_idle_ranks(self):
        """Measured on two cores: 0.02 to 0.1 s. Nothing is waited for."""
        self.serve(9, "--threads", "1")
        self.assertLess(self.term()(), 0.5)

    def accepted_is_answered(self, count=1, **variables):
        self.serve(count, "--threads", "1", DJINN_DRAIN_MS="20s")
        peer = self.working(**variables)
        ended = self.term()
        _, status, *_ = peer.ask("await", 5000)
        self.assertEqual(status, "ERR_CANCELLED")
        self.told(peer, "add", 1)
        peer.ask("reap")  # its bytes are checked
        self.told(peer, "add", 1)
        ended()

    def test_what_was_accepted_is_answered(self):
        self.accepted_is_answered()

    def test_what_was_accepted_is_answered_over_tcp(self):
        self.accepted_is_answered(DJINN_EXECUTION_MODE="remote")

    def test_what_was_accepted_is_answered_through_the_relay(self):
        self.accepted_is_answered(2, DJINN_TRANSPORTS="relay")

    def test_the_time_is_over(self):
        self.serve(1, "--threads", "1", DJINN_DRAIN_MS="100ms")
        peer = self.working(50 * LONG)
        ended = self.term()
        self.told(peer, "reap")
        self.assertLess(ended(), 2)
        self.assertIn("ends in the middle of a request", self.server.errors())

    def test_no_time_at_all(self):
        self.serve(2, "--threads", "1", DJINN_DRAIN_MS="0")
        peer = self.working(50 * LONG)
        ended = self.term()
        self.told(peer, "reap")
        self.assertLess(ended(), 1)

    def test_a_second_signal_ends_it_at_once(self):
        self.serve(1, "--threads", "1", DJINN_DRAIN_MS="20s")
        peer = self.working(50 * LONG)
        pid = self.ranks()[0]["pid"]
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)  # a launcher signals the step, and so does the supervisor: one word
        _, status, *_ = peer.ask("await", 5000)
        self.assertEqual(status, "ERR_CANCELLED")
        time.sleep(0.4)
        self.assertTrue(os.path.exists(f"/proc/{pid}"))
        os.kill(pid, signal.SIGTERM)
        self.told(peer, "reap")
        self.assertEqual(self.server.wait(), 0, self.server.errors())

    def test_new_clients_are_refused(self):
        self.serve(2, "--threads", "1", DJINN_DRAIN_MS="20s")
        peer = self.working()
        worker = self.server.endpoints()[1]
        ended = self.term()
        peer.ask("await", 5000)
        late = live.Peer(worker, self.token, self.home)
        self.addCleanup(late.close)
        self.told(late, "connect")
        peer.ask("reap")
        ended()

    def test_rank_0_ends_the_server(self):
        """Its workers hear it from rank 0 alone, and a client that waits for a worker is refused at once."""
        self.serve(3, "--threads", "1", DJINN_DRAIN_MS="20s")
        peer = self.working()
        peer.tell("await", 5000)
        os.kill(self.ranks()[0]["pid"], signal.SIGTERM)
        self.assertEqual(peer.answer()[1], "ERR_CANCELLED")
        late = self.peer()
        self.told(late, "connect")
        self.assertEqual(self.ranks()[0]["state"], "ending")
        self.assertEqual(self.ranks()[peer.rank]["state"], "ending")
        peer.ask("reap")
        self.assertEqual(self.server.wait(), 0, self.server.errors())
        self.assertEqual(self.server.errors().count("ended by request"), 3, self.server.errors())

    def test_clients_that_wait_for_a_worker(self):
        self.serve(2, "--threads", "1", DJINN_RESTARTS="0")
        os.kill(self.ranks()[1]["pid"], signal.SIGKILL)
        until(lambda: self.ranks()[1]["state"] == "lost", "the worker's loss")
        waits = self.peer(DJINN_CONNECT_MS="20s")
        waits.tell("connect")
        time.sleep(0.1)
        ended = self.term()
        with self.assertRaises(PeerError) as told:
            waits.answer(2)
        self.assertEqual(told.exception.status, "ERR_CANCELLED", told.exception.text)
        self.assertLess(ended(), 2)

    def test_one_worker_ends_and_the_others_serve(self):
        self.serve(3, "--threads", "1", DJINN_DRAIN_MS="20s")
        peer = self.working()
        other = 3 - peer.rank
        peer.tell("await", 5000)
        os.kill(self.ranks()[peer.rank]["pid"], signal.SIGTERM)
        self.assertEqual(peer.answer()[1], "ERR_CANCELLED")
        until(lambda: self.ranks()[peer.rank]["state"] == "ending", "rank 0 knows")
        for _ in range(4):
            self.assertEqual(self.connected().rank, other)
        peer.ask("reap")
        until(lambda: self.ranks()[peer.rank]["state"] == "lost", "the worker's end")
        self.assertIsNone(self.server.process.poll())

    def test_many_clients_with_requests_under_way(self):
        self.serve(3, "--threads", "1")
        peers = [self.connected(**variables) for _ in range(4)
                 for variables in ({}, {"DJINN_EXECUTION_MODE": "remote"})]
        for peer in peers:
            peer.tell("work", 20000)
        time.sleep(0.2)
        ended = self.term()
        for peer in peers:
            with self.assertRaises(PeerError) as told:
                peer.answer()
            self.assertEqual(told.exception.status, "ERR_CANCELLED", told.exception.text)
        self.assertLess(ended(), 2)


class Rank:
    """One djinn-rank, started as a supervisor starts it."""

    def __init__(self, test, rank, incarnation=0, ranks=3, coordinator="", host="127.0.0.1", prefix=(),
                 listener=None, **variables):
        self.listener = listener or test.listener(host, prefix)
        self.address = "%s:%d" % self.listener.getsockname()
        reads, writes = os.pipe()
        self.ready = os.fdopen(reads)
        self.errors_path = os.path.join(test.home, f"rank{rank}.{time.monotonic_ns()}")
        env = harness.scrubbed(test.home, DJINN_TOKEN=test.token, DJINN_SUSPECT_MS="1s", **variables)
        with open(self.errors_path, "w") as errors:
            self.process = subprocess.Popen(
                [*prefix, os.path.join(BIN, "djinn-rank"), f"--rank={rank}", f"--ranks={ranks}",
                 f"--incarnation={incarnation}", f"--listen-fd={self.listener.fileno()}",
                 f"--ready-fd={writes}", f"--coordinator={coordinator or self.address}", "--threads=1"],
                env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                pass_fds=(self.listener.fileno(), writes))
        os.close(writes)
        test.addCleanup(self.end)

    def is_ready(self):
        """Whether it says so before it ends."""
        return self.ready.readline() == "ready\n"

    def errors(self):
        with open(self.errors_path) as file:
            return file.read()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.ready.close()
        self.listener.close()


class ByHand(live.LiveTest):
    def setUp(self):
        super().setUp()
        self.token = os.urandom(32).hex()

    def listener(self, host, prefix):
        listener = socket.create_server((host, 0), backlog=64)
        listener.setblocking(False)
        return listener

    def coordinator(self, **words):
        rank = Rank(self, 0, **words)
        self.assertTrue(rank.is_ready(), rank.errors())
        self.address = rank.address
        return rank

    def worker(self, rank, incarnation=0, **words):
        return Rank(self, rank, incarnation, coordinator=self.address, **words)

    def serving(self, rank, incarnation=0, **words):
        worker = self.worker(rank, incarnation, **words)
        self.assertTrue(worker.is_ready(), worker.errors())
        self.assertEqual(self.where(rank), (worker.process.pid, incarnation, "serving"))
        return worker

    def where(self, rank):
        described = self.ranks()[rank]
        return described["pid"], described["incarnation"], described["state"]

    def replaced(self, worker, *numbers):
        self.assertEqual(worker.process.wait(10), 3, worker.errors())
        self.assertIn("was replaced", worker.errors())
        for number in numbers:
            self.assertIn(number, worker.errors())


class Fencing(ByHand):
    """Two processes that believe to be the same rank."""

    def setUp(self):
        super().setUp()
        self.zero = self.coordinator()

    def test_a_later_incarnation_takes_the_place(self):
        old = self.serving(1)
        peer = self.connected()
        peer.ask("hold", 4096)
        new = self.serving(1, 1)
        self.replaced(old, "rank 1 incarnation 0", "incarnation 1 is at", new.address)
        with self.assertRaises(PeerError) as told:
            peer.ask("add", 1)
        self.assertEqual(told.exception.status, "ERR_PEER_DIED")
        again = self.connected()
        self.assertEqual((again.rank, again.incarnation), (1, 1))
        again.ask("add", 1)

    def test_one_that_computes_ends_all_the_same(self):
        old = self.serving(1)
        peer = self.connected()
        peer.ask("add", 1)
        peer.ask("busy", 50 * LONG)
        self.serving(1, 1)
        began = time.monotonic()
        self.replaced(old)
        self.assertLess(time.monotonic() - began, 2)
        self.assertIn("in the middle of a request", old.errors())

    def test_an_earlier_one_is_refused_and_never_says_that_it_serves(self):
        new = self.serving(1, 2)
        old = self.worker(1, 1)
        self.assertFalse(old.is_ready())
        self.replaced(old, "rank 1 incarnation 1", "incarnation 2 is process", new.address)
        self.assertEqual(self.where(1), (new.process.pid, 2, "serving"))

    def test_of_equals_the_first_is_believed(self):
        first = self.serving(1, 1)
        self.replaced(self.worker(1, 1), first.address)
        self.assertEqual(self.where(1), (first.process.pid, 1, "serving"))

    def test_the_replacement_is_gone_and_its_forerunner_still_refused(self):
        new = self.serving(1, 2)
        new.end()
        until(lambda: self.where(1)[2] == "lost", "the loss")
        self.replaced(self.worker(1, 1), "incarnation 2")
        self.replaced(self.worker(1, 2), "incarnation 2")
        self.serving(1, 3)

    def test_its_own_connection_is_made_again(self):
        """Stopped, cut off by rank 0 and gone on: the same process, registered over a new connection."""
        worker = self.serving(1, 1)
        worker.process.send_signal(signal.SIGSTOP)
        until(lambda: self.where(1)[2] == "lost", "the loss", 5)
        worker.process.send_signal(signal.SIGCONT)
        until(lambda: self.where(1) == (worker.process.pid, 1, "serving"), "its return", 5)
        self.connected().ask("add", 1)

    def test_a_stopped_one_is_replaced_and_ends_when_it_goes_on(self):
        old = self.serving(1)
        old.process.send_signal(signal.SIGSTOP)
        until(lambda: self.where(1)[2] == "lost", "the loss", 5)
        self.serving(1, 1)
        old.process.send_signal(signal.SIGCONT)
        self.replaced(old, "rank 1 incarnation 0")

    def test_a_grant_names_the_incarnation(self):
        """One for incarnation 0 is no key to its replacement, nor one for the replacement to incarnation 0."""
        old = self.serving(1)
        table = self.op_table()
        with wire.Control(self.address) as rank0:
            kind, body = rank0.greet(bytes.fromhex(self.token), role=wire.CLIENT, op_table=table)
        self.assertEqual(kind, wire.REDIRECT)
        session, grant, expires = wire.redirect(body)
        new = self.serving(1, 1)
        self.replaced(old)
        with wire.Control(new.address) as control:
            control.send(wire.frame(wire.HELLO, wire.hello(
                bytes.fromhex(self.token), control.nonce, role=wire.CLIENT, op_table=table, session=session,
                grant=grant, expires=expires)))
            status, text = control.refused()
        self.assertEqual(status, wire.ERR_STALE)
        self.assertIn("rank 1 incarnation 1", text)

    def op_table(self):
        """As a client of this build says it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = live.Peer("127.0.0.1:%d" % listener.getsockname()[1], self.token, self.home)
            self.addCleanup(peer.close)
            peer.tell("connect")
            client = listener.accept()[0]
            client.sendall(wire.frame(wire.CHALLENGE, bytes(40)))
            hello = b""
            while len(hello) < 16 + wire.HELLO_STRUCT.size:
                hello += client.recv(65536)
            client.close()
        return wire.HELLO_STRUCT.unpack_from(hello, 16)[6]

    def test_rank_0_begins_anew_and_believes_the_first(self):
        """It is started again on its socket, as by its supervisor, and knows of no incarnation."""
        worker = self.serving(1, 4)
        zero = Rank(self, 0, 1, listener=self.zero.listener)
        self.zero.process.kill()
        self.assertTrue(zero.is_ready(), zero.errors())
        until(lambda: 1 in self.ranks() and self.where(1) == (worker.process.pid, 4, "serving"), "its return", 5)
        self.replaced(self.worker(1, 3), "incarnation 4")
        self.serving(1, 5)
        self.replaced(worker)


class CutLink(ByHand):
    """Rank 0 and its worker on two nodes: a cut link is a loss within 1.5 s, and not the worker's end."""

    def listener(self, host, prefix):
        """A socket of the node's own network."""
        if not prefix:
            return super().listener(host, prefix)
        mine, theirs = socket.socketpair()
        code = ("import socket, sys, array; s = socket.create_server((sys.argv[1], 0)); s.setblocking(False); "
                "m = socket.socket(fileno=int(sys.argv[2])); socket.send_fds(m, [b'x'], [s.fileno()])")
        subprocess.run([*prefix, sys.executable, "-c", code, host, str(theirs.fileno())],
                       pass_fds=(theirs.fileno(),), check=True, timeout=20)
        _, fds, _, _ = socket.recv_fds(mine, 1, 1)
        mine.close()
        theirs.close()
        return socket.socket(fileno=fds[0])

    def setUp(self):
        super().setUp()
        self.places = nodes.Nodes(2)
        self.addCleanup(self.places.close)
        self.zero = self.coordinator(host=self.places.addresses[0], prefix=self.places.on(0))

    def describe(self, address=None, prefix=()):
        return super().describe(address, prefix or self.places.on(0))

    def link(self, state):
        nodes.ip("-n", self.places.switch, "link", "set", "port1", state)

    def test_a_cut_link(self):
        for number in range(3):
            worker = self.serving(1, number, host=self.places.addresses[1], prefix=self.places.on(1))
            self.link("down")
            began = time.monotonic()
            until(lambda: self.where(1)[2] == "lost", "the loss", 5)
            at_rank_0 = time.monotonic() - began
            until(lambda: "coordinator is lost" in worker.errors(), "the worker knows", 5)
            at_worker = time.monotonic() - began
            print(f"lost after {at_rank_0:.3f} s at rank 0, {at_worker:.3f} s at the worker", file=sys.stderr)
            self.assertLess(max(at_rank_0, at_worker), 1.5)
            self.assertIsNone(worker.process.poll())
            self.link("up")
            until(lambda: self.where(1)[1:] == (number, "serving"), "its return", 5)

    def test_a_replacement_beyond_a_cut(self):
        old = self.serving(1, host=self.places.addresses[1], prefix=self.places.on(1))
        self.link("down")
        until(lambda: self.where(1)[2] == "lost", "the loss", 5)
        new = self.serving(1, 1, host=self.places.addresses[0], prefix=self.places.on(0))
        self.link("up")
        self.replaced(old, "rank 1 incarnation 0", new.address)
        self.assertEqual(self.where(1)[1:], (1, "serving"))


if __name__ == "__main__":
    if "CutLink" in sys.argv and not nodes.possible():
        sys.exit(77)
    live.main()
