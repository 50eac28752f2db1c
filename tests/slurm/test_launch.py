"""djinn-server as a step of a real Slurm cluster of three nodes."""
import json
import os
import signal
import sys
import time

import jobs  # it knows where the others are
from harness import ECHO, until
from jobs import DJINN, SERVER


class Slurm(jobs.ClusterTest):
    def srun(self, *words):
        return self.start(*self.cluster.argv("srun", "--kill-on-bad-exit=0", "--no-kill", *words))

    def info(self, address):
        code, out, err = self.finish(*self.cluster.argv(DJINN, "info", "--json", "--address",
                                                        address))
        self.assertEqual(code, 0, err)
        return [rank for rank in json.loads(out)["ranks"] if rank["state"] == "serving"]

    def serve(self, mpi):
        began = time.monotonic()
        step = self.srun(f"--mpi={mpi}", "-N3", "-n5", SERVER)
        endpoints = step.wait_ready(5)
        print(f"five ranks on three nodes by srun --mpi={mpi} ready in "
              f"{time.monotonic() - began:.3f} s", file=sys.stderr)
        self.assertEqual(len({endpoint.split(":")[0] for endpoint in endpoints.values()}), 3)
        ranks = until(lambda: (found := self.info(endpoints[0])) and len(found) == 5 and found,
                      "five ranks registered")
        return step, endpoints, ranks

    def test_pmix(self):
        step, endpoints, ranks = self.serve("pmix")
        os.kill(ranks[3]["pid"], signal.SIGKILL)
        until(lambda: "rank 3 serves again" in step.errors(), "rank 3 again", 5)
        until(lambda: sum(rank["incarnation"] for rank in self.info(endpoints[0])) == 1,
              "rank 3 registered again", 5)
        # A whole task dies: no other does.
        os.kill(os_parent(ranks[4]["pid"]), signal.SIGKILL)
        until(lambda: len(self.info(endpoints[0])) == 4, "rank 4 missed", 5)
        time.sleep(0.5)
        self.assertEqual(len(self.info(endpoints[0])), 4)
        self.end_step(step, ranks)

    def test_without_pmix(self):
        step, _, ranks = self.serve("none")
        self.end_step(step, ranks)
        self.assertEqual(os.listdir(f"{self.home}/.djinn"), ["token"])

    def test_one_task_a_node_alone(self):
        step = self.srun("--mpi=none", "-N1", "-n1", SERVER, "--rank-program", ECHO, "-n", "3")
        step.wait_ready(3)

    def end_step(self, step, ranks):
        job = self.cluster.run("squeue", "-h", "-o", "%i").split()[0]
        self.cluster.run("scancel", "-s", "TERM", f"{job}.0")
        step.wait()
        self.assert_gone([rank["pid"] for rank in ranks])


def os_parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


if __name__ == "__main__":
    jobs.main()
