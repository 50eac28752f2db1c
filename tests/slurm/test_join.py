"""A supervisor is lost, and another one takes its ranks: djinn-server --join as a step beside the server's."""
import os
import signal
import sys
import time

import jobs
from jobs import SERVER
from harness import alive, until


class Join(jobs.JobTest):
    def serve(self):
        """A step with a rank a node, and rank 0, in an allocation that others can join."""
        job = self.batch(f"srun --overlap --kill-on-bad-exit=0 --no-kill {SERVER} --address-file {self.home}/address",
                         "-N3", "--ntasks-per-node=1", "--cpus-per-task=2", "--no-kill")
        address = self.told(job, r"rank 0 ready at (\S+),").group(1)
        return job, address, self.serving(address, 4)

    def join(self, job, node):
        return self.login("srun", f"--jobid={job}", "--overlap", "-N1", "-n1", f"-w{self.cluster.name(node)}",
                          "--mpi=none", SERVER, "--join", f"{self.home}/address")

    def on(self, node, ranks):
        return [rank for rank in ranks if rank["endpoint"].startswith(self.cluster.nodes.addresses[node] + ":")]

    def assert_replaced(self, address, lost, node):
        """The lost rank serves on that node, one incarnation later."""
        def look():
            found = self.info(address)
            return len(found) == 4 and [rank for rank in found if rank["rank"] == lost["rank"] and
                                        rank["incarnation"] == lost["incarnation"] + 1]
        self.assertEqual(self.on(node, until(look, f"rank {lost['rank']} again", 8)), look())

    def end(self, job, address):
        pids = [rank["pid"] for rank in self.info(address)]
        self.terminate(f"{job}.0")
        self.ended(job, 10)
        self.assert_gone(pids)

    def test_a_killed_supervisor(self):
        job, address, ranks = self.serve()
        lost = self.on(2, ranks)[0]
        os.kill(jobs.parent(lost["pid"]), signal.SIGKILL)
        self.assert_gone([lost["pid"]], 1)
        began = time.monotonic()
        joined = self.join(job, 1)
        until(lambda: f"rank {lost['rank']} serves again at" in joined.errors(), "the joined rank ready")
        print(f"srun djinn-server --join: its rank ready after {time.monotonic() - began:.3f} s", file=sys.stderr)
        self.assert_replaced(address, lost, 1)
        self.end(job, address)
        self.assertEqual(joined.wait(), 0, joined.errors())

    def test_a_node_without_power(self):
        job, address, ranks = self.serve()
        lost = self.on(2, ranks)[0]
        self.cluster.node_down(2)
        joined = self.join(job, 1)
        self.assert_replaced(address, lost, 1)
        # The others were not touched.
        left = {rank["pid"] for rank in self.info(address)}
        self.assertLessEqual({rank["pid"] for rank in ranks if rank is not lost}, left)
        self.end(job, address)
        self.assertEqual(joined.wait(), 0, joined.errors())

    def test_a_cut_link_returns_to_a_replaced_rank(self):
        job, address, ranks = self.serve()
        lost = self.on(2, ranks)[0]
        supervisor = jobs.parent(lost["pid"])
        self.cluster.nodes.link(2, "down")
        began = time.monotonic()
        until(lambda: len(self.info(address)) == 3, "three ranks left", 5)
        self.assertLess(time.monotonic() - began, 1.5)
        joined = self.join(job, 1)
        self.assert_replaced(address, lost, 1)
        self.assertTrue(alive(lost["pid"]))  # it hopes for the link
        self.cluster.nodes.link(2, "up")
        self.assert_gone([lost["pid"], supervisor], 8)
        until(lambda: "replaced" in self.output(job), "the old supervisor's last word")
        self.assert_replaced(address, lost, 1)
        self.end(job, address)
        self.assertEqual(joined.wait(), 0, joined.errors())


if __name__ == "__main__":
    jobs.main()
