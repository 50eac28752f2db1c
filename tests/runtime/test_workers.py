"""Several workers under real launchers: all serve at once, one dies, plans travel."""
import hashlib
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


class ManyRanks(live.LiveTest):
    """Sixty-four ranks on one machine: all serve, each is right, and they end as one."""

    def test_sixty_three_workers(self):
        began = time.monotonic()
        self.serve(64, "--threads", "1")
        print(f"64 ranks serve after {time.monotonic() - began:.3f} s", file=sys.stderr)
        peers = [self.peer() for _ in range(63)]
        for peer in peers:
            peer.tell("connect")
        ranks = sorted(int(peer.answer()[0]) for peer in peers)
        self.assertEqual(ranks, list(range(1, 64)))
        for peer in peers:
            peer.tell("add", 20)
        for peer in peers:
            self.assertEqual(len(peer.answer()), 3)
        for peer in peers:
            peer.tell("close")
        for peer in peers:
            peer.answer()
        pids = [rank["pid"] for rank in self.ranks().values()]
        self.assertEqual(len(set(pids)), 64)
        self.assertEqual(self.server.end(), 0)
        self.assert_gone(pids, 1)


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


class PlanFiles(live.LiveTest):
    """Plans outlive a server: the next one's first requests adopt what the last one made."""

    def setUp(self):
        super().setUp()
        self.plans = os.path.join(self.home, "plans")

    def serve_with_file(self, count=1, **variables):
        self.serve(count, "--threads", "1", "--plan-cache", self.plans, **variables)
        return max(self.ranks())

    def files(self, suffix=".plans"):
        found = os.listdir(self.plans) if os.path.isdir(self.plans) else []
        return [os.path.join(self.plans, name) for name in found if name.endswith(suffix)]

    def ended(self):
        self.assertEqual(self.server.end(), 0)

    def test_a_second_start_misses_nothing(self):
        rank = self.serve_with_file()
        self.assertEqual(self.files(), [])
        peer = self.connected()
        self.assertEqual(peer.ask("add", 1, 24), ["1", "0", "0"])
        self.assertEqual(peer.ask("add", 1, 25), ["0", "1", "0"])
        peer.ask("close")
        self.ended()
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(os.stat(self.files()[0]).st_mode & 0o777, 0o600)
        self.serve_with_file()
        self.becomes(rank, plan_loaded=2, plan_entries=0)
        peer = self.connected()
        self.assertEqual(peer.ask("add", 2, 24), ["0", "0", "2"])
        self.assertEqual(peer.ask("add", 2, 25), ["0", "0", "2"])
        self.becomes(rank, plan_adopted=2, plan_misses=0, plan_resizes=0, plan_rejected=0)
        peer.ask("close")
        self.ended()
        self.assertNotIn("not kept", self.server.errors())

    def test_what_was_not_used_is_kept_on(self):
        rank = self.serve_with_file()
        self.connected().ask("add", 1, 24)
        self.ended()
        self.serve_with_file()
        self.connected().ask("add", 1, 31)
        self.ended()
        self.serve_with_file()
        self.becomes(rank, plan_loaded=2)

    def test_damaged_files_are_told_once_and_replaced(self):
        rank = self.serve_with_file()
        self.connected().ask("add", 1, 24)
        self.ended()
        path = self.files()[0]
        for damage in (lambda data: data[:-7], lambda data: b"", lambda data: b"DJPC" + b"\xff" * 5000,
                       lambda data: bytes([*data[:60], data[60] ^ 1, *data[61:]])):
            with open(path, "rb") as file:
                data = file.read()
            with open(path, "wb") as file:
                file.write(damage(data))
            self.serve_with_file()
            self.becomes(rank, plan_loaded=0)
            self.assertEqual(self.connected().ask("add", 1, 24), ["1", "0", "0"])
            self.ended()
            self.assertEqual(self.server.errors().count("no plans of earlier times"), 1)
            self.serve_with_file()
            self.becomes(rank, plan_loaded=1)
            self.ended()

    def test_a_plan_that_is_no_proof_is_planned_anew(self):
        """A file as good as any, but for the peak its plan claims: only the proof can tell."""
        rank = self.serve_with_file()
        self.connected().ask("add", 1, 24)
        self.ended()
        with open(self.files()[0], "rb") as file:
            data = bytearray(file.read())
        plan = data.index(b"DJPL")
        data[plan + 4 + 1 + 48 + 4] ^= 1  # its peak, after steps, storages, groups and a workspace of 0
        data[-16:] = hashlib.blake2b(data[:-16], digest_size=16).digest()
        with open(self.files()[0], "wb") as file:
            file.write(data)
        self.serve_with_file()
        self.becomes(rank, plan_loaded=1)
        self.assertEqual(self.connected().ask("add", 1, 24), ["1", "0", "0"])
        self.becomes(rank, plan_rejected=1, plan_adopted=0, plan_misses=1)

    def test_a_killed_rank_leaves_what_it_wrote_in_passing(self):
        rank = self.serve_with_file(2, DJINN_PLAN_CACHE_MS="20ms")
        self.connected().ask("add", 1, 24)
        until(self.files, "a file", 5)
        os.kill(self.ranks()[rank]["pid"], signal.SIGKILL)
        until(lambda: self.ranks()[rank]["incarnation"] == 1 and self.ranks()[rank]["state"] == "serving",
              "the rank's return", 5)
        self.becomes(rank, plan_loaded=1)

    def test_ranks_share_a_folder(self):
        self.serve_with_file(3)
        first, second = self.connected(), self.connected()
        first.ask("add", 1, 24)
        second.ask("add", 1, 31)
        self.becomes(first.rank, plan_received=1)
        self.becomes(second.rank, plan_received=1)
        self.ended()
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(self.files(".tmp"), [])
        self.serve_with_file(3)
        for rank in (1, 2):
            self.becomes(rank, plan_loaded=2)

    def test_a_folder_that_cannot_be_used(self):
        self.plans = "/proc/plans"
        rank = self.serve_with_file()
        self.assertEqual(self.connected().ask("add", 2, 24), ["1", "0", "1"])
        self.becomes(rank, plan_loaded=0)
        self.ended()
        self.assertIn("plans were not kept: cannot make the folder /proc/plans", self.server.errors())


if __name__ == "__main__":
    if "Mpirun" in sys.argv and not shutil.which("mpirun"):
        sys.exit(77)
    live.main()
