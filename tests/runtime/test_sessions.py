"""A session is a lease: what becomes of its memory when a client or its rank goes, stops or is cut off."""
import os
import random
import signal
import time

import live
from harness import until
from live import PeerError

MIB = 1 << 20


class Sessions(live.LiveTest):
    def serve_one(self, **variables):
        self.serve(1, **variables)

    def holding(self, count=1):
        peer = self.connected()
        for _ in range(count):
            peer.ask("hold", 3 * MIB)
        return peer

    def test_close_returns_after_the_memory_is_back(self):
        self.serve_one()
        for _ in range(5):
            peer = self.holding(2)
            self.becomes(0, sessions=1, refs=2, data_bytes=6 * MIB)
            peer.ask("close")
            self.is_empty(0, limit_s=0)

    def test_a_killed_client_frees_at_once(self):
        self.serve_one()
        peer, other = self.holding(), self.holding()
        began = time.monotonic()
        peer.kill()
        self.becomes(0, sessions=1, detached=0, refs=1, data_bytes=3 * MIB)
        self.assertLess(time.monotonic() - began, 2)
        other.ask("add", 3)

    def test_a_client_killed_while_its_request_runs(self):
        self.serve_one(DJINN_THREADS="1")
        peer, other = self.connected(), self.connected()
        other.ask("add", 1)
        peer.ask("busy", 30)
        peer.kill()
        other.ask("add", 3)
        self.becomes(0, sessions=1, detached=0, ingress_bytes=0)
        other.ask("close")
        self.is_empty(0)

    def test_a_cut_client_keeps_its_lease_and_no_longer(self):
        self.serve_one(DJINN_LEASE_GRACE_MS="1500")
        peer = self.holding()
        peer.ask("cut")
        began = time.monotonic()
        self.becomes(0, sessions=0, detached=1, refs=1, data_bytes=3 * MIB)
        _, status, *_ = peer.ask("await", 2000)
        self.assertEqual(status, "ERR_PEER_DIED")
        with self.assertRaises(PeerError) as told:
            peer.ask("add", 1)
        self.assertEqual(told.exception.status, "ERR_PEER_DIED")
        self.is_empty(0)
        self.assertGreater(time.monotonic() - began, 1.4)
        self.assertLess(time.monotonic() - began, 4)

    def test_a_cut_client_that_then_dies_frees_before_its_lease_ends(self):
        self.serve_one()  # 60 s of grace
        peer = self.holding()
        peer.ask("cut")
        self.becomes(0, detached=1)
        peer.kill()
        self.is_empty(0, limit_s=3)

    def test_a_stopped_client_is_cut_off_and_keeps_its_lease(self):
        self.serve_one(DJINN_SUSPECT_MS="1s")
        peer, other = self.holding(), self.connected()
        os.kill(peer.pid, signal.SIGSTOP)
        try:
            self.becomes(0, limit_s=4, sessions=1, detached=1, refs=1)
            other.ask("add", 3)
        finally:
            os.kill(peer.pid, signal.SIGCONT)

    def test_a_stopped_rank_is_told_within_two_seconds(self):
        self.serve(3)
        first, second = self.connected(DJINN_SUSPECT_MS="1s"), self.connected()
        pid = self.ranks()[first.rank]["pid"]
        first.ask("add", 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            first.tell("add", 1)
            began = time.monotonic()
            with self.assertRaises(PeerError) as told:
                first.answer()
            self.assertLess(time.monotonic() - began, 2)
            self.assertEqual(told.exception.status, "ERR_PEER_DIED")
            self.assertIn("silent", told.exception.text)
            second.ask("add", 5)
            began = time.monotonic()
            first.ask("close")
            self.assertLess(time.monotonic() - began, 2)
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_a_dead_coordinator_leaves_sessions_alone(self):
        self.serve(3)
        peer = self.connected()
        peer.ask("add", 1)
        os.kill(self.ranks()[0]["pid"], signal.SIGKILL)
        for _ in range(20):
            peer.ask("add", 2)
        until(lambda: "rank 0 serves again" in self.server.errors(), "rank 0 again", 10)
        until(lambda: len(self.ranks("serving")) == 3, "both workers at the new coordinator", 10)
        self.assertEqual(self.ranks()[0]["incarnation"], 1)
        peer.ask("add", 2)
        self.connected().ask("add", 2)

    def killed_while_they_connect(self, **variables):
        self.serve_one()
        witness = self.connected(**variables)
        pid = self.ranks()[0]["pid"]
        rng = random.Random(7)
        for _ in range(10):
            peers = [self.peer(**variables) for _ in range(4)]
            for peer in peers:
                peer.tell("connect")
                peer.tell("work", 1000)
            for peer in peers:
                time.sleep(rng.random() * 0.02)
                peer.kill()
            witness = self.still_served(witness, 0, **variables)
        self.same_process(0, pid)
        self.becomes(0, sessions=1, detached=0)

    def test_clients_killed_while_they_connect(self):
        self.killed_while_they_connect()

    def test_clients_killed_while_they_connect_over_tcp(self):
        self.killed_while_they_connect(DJINN_EXECUTION_MODE="remote")

    def test_many_come_and_go(self):
        self.serve_one()
        for _ in range(4):
            peers = [self.peer() for _ in range(6)]
            for peer in peers:
                peer.tell("connect")
            for peer in peers:
                peer.answer()
                peer.tell("add", 2)
            for peer in peers:
                peer.answer()
            for peer in peers[::2]:
                peer.kill()
            for peer in peers[1::2]:
                peer.close()
        self.is_empty(0)


if __name__ == "__main__":
    live.main()
