"""Several workers under real launchers: all serve at once, one dies, plans travel."""
import os
import shutil
import signal
import sys
import time

import live
from harness import until
from live import BIN, PeerError

MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe")


class Mpirun(live.LiveTest):
    """Eight workers and a coordinator, started as a cluster starts them."""
    foreign = True

    def setUp(self):
        super().setUp()
        self.serve(9, launcher=[*MPIRUN, "-np", "9", os.path.join(BIN, "djinn-server")])

    def test_two_clients_at_once_on_each_of_eight_workers(self):
        peers = [self.peer() for _ in range(16)]
        for peer in peers:
            peer.tell("connect")
        ranks = sorted(int(peer.answer()[0]) for peer in peers)
        self.assertEqual(ranks, sorted(list(range(1, 9)) * 2))
        for peer in peers:
            peer.tell("work", 500)
        for peer in peers:
            self.assertGreater(int(peer.answer()[0]), 0)
        for peer in peers:
            peer.ask("close")
        for rank in range(1, 9):
            self.is_empty(rank)

    def test_a_worker_dies(self):
        self.worker_dies()

    def test_a_worker_dies_over_tcp(self):
        self.worker_dies(DJINN_EXECUTION_MODE="remote")

    def worker_dies(self, **variables):
        peers = [self.connected(**variables) for _ in range(8)]
        self.assertEqual(sorted(peer.rank for peer in peers), list(range(1, 9)))
        peers[0].ask("add", 1)
        victim, others = peers[0], peers[1:]
        pid = self.ranks()[victim.rank]["pid"]
        for peer in others:
            peer.tell("work", 1500)
        victim.tell("work", 20000)
        time.sleep(0.2)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises(PeerError) as told:
            victim.answer()
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(told.exception.status, "ERR_PEER_DIED")
        self.assertIn(f"rank {victim.rank} ", told.exception.text)
        self.assertIn("connect again", told.exception.text)
        for peer in others:
            self.assertGreater(int(peer.answer()[0]), 0)
            peer.ask("alive")
        until(lambda: self.ranks()[victim.rank]["state"] == "serving" and
              self.ranks()[victim.rank]["incarnation"] == 1, "the rank's return", 5)
        again = self.connected(**variables)
        self.assertEqual((again.rank, again.incarnation), (victim.rank, 1))
        again.ask("add", 3)


class Transfers(live.LiveTest):
    """Deaths in the middle of large transfers, over shared memory and tcp: only the dead are lost."""

    def setUp(self):
        super().setUp()
        self.serve(2, "--threads", "1")

    def worker_dies(self, rounds, **variables):
        for incarnation in range(rounds):
            peer = self.connected(**variables)
            self.assertEqual(peer.incarnation, incarnation)
            pid = self.ranks()[1]["pid"]
            peer.tell("pump", 20000)
            time.sleep(0.1 + 0.013 * incarnation)
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            with self.assertRaises(PeerError) as told:
                peer.answer()
            self.assertEqual(told.exception.status, "ERR_PEER_DIED")
            self.assertLess(time.monotonic() - began, 2)
            until(lambda: self.ranks()[1]["incarnation"] == incarnation + 1 and
                  self.ranks()[1]["state"] == "serving", "the rank's return", 5)

    def test_a_worker_dies_amid_transfers(self):
        self.worker_dies(6)

    def test_a_worker_dies_amid_transfers_over_tcp(self):
        self.worker_dies(6, DJINN_EXECUTION_MODE="remote")

    def clients_die(self, **variables):
        witness = self.connected(**variables)
        pid = self.ranks()[1]["pid"]
        for i in range(10):
            peers = [self.connected(**variables) for _ in range(2)]
            for peer in peers:
                peer.tell("pump", 20000)
            time.sleep(0.05 + 0.007 * i)
            for peer in peers:
                peer.kill()
            witness = self.still_served(witness, 1, **variables)
        self.same_process(1, pid)
        self.becomes(1, sessions=1, detached=0, ingress_bytes=0)
        witness.ask("close")
        self.is_empty(1)

    def test_clients_die_amid_transfers(self):
        self.clients_die()

    def test_clients_die_amid_transfers_over_tcp(self):
        self.clients_die(DJINN_EXECUTION_MODE="remote")


class Plans(live.LiveTest):
    """Two workers of one class: what one planned the other adopts."""

    def setUp(self):
        super().setUp()
        self.serve(3, "--threads", "1")

    def pair(self):
        first, second = self.connected(), self.connected()
        self.assertEqual({first.rank, second.rank}, {1, 2})
        return first, second

    def test_a_plan_made_by_one_is_adopted_by_the_other(self):
        first, second = self.pair()
        self.assertEqual(first.ask("add", 2, 24), ["1", "0", "1"])
        self.becomes(second.rank, plan_received=1)
        self.assertEqual(second.ask("add", 2, 24), ["0", "0", "2"])
        self.becomes(second.rank, plan_adopted=1, plan_misses=0, plan_rejected=0)

    def test_a_rank_that_returns_pulls_plans(self):
        first, second = self.pair()
        for size in (24, 25, 26):
            first.ask("add", 1, size)
        os.kill(self.ranks()[second.rank]["pid"], signal.SIGKILL)
        until(lambda: self.ranks()[second.rank]["incarnation"] == 1 and
              self.ranks()[second.rank]["state"] == "serving", "the rank's return", 5)
        self.becomes(second.rank, plan_received=3)
        again = self.connected()
        self.assertEqual((again.rank, again.incarnation), (second.rank, 1))
        self.assertEqual(again.ask("add", 1, 25), ["0", "0", "1"])
        self.becomes(second.rank, plan_adopted=1, plan_misses=0)


if __name__ == "__main__":
    if "Mpirun" in sys.argv and not shutil.which("mpirun"):
        sys.exit(77)
    live.main()
