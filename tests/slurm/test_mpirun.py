"""mpirun over several nodes, in an allocation of salloc: Open MPI starts its daemons through Slurm."""
import os
import re
import shutil
import signal
import sys
import time

import jobs
from jobs import PYTHON, ROOT, RUN, SERVER
from harness import until

GENERATE = os.path.join(ROOT, "examples", "generate.py")


class Mpirun(jobs.JobTest):
    def salloc(self, *words, tasks=1):
        return self.login("salloc", "-N3", f"--ntasks-per-node={tasks}", *words)

    def start_server(self, *words, tasks=1, ranks=4):
        began = time.monotonic()
        step = self.salloc("mpirun", *words, SERVER, tasks=tasks)
        endpoints = step.wait_ready(ranks)
        print(f"salloc and mpirun: {ranks} ranks on three nodes ready in {time.monotonic() - began:.3f} s",
              file=sys.stderr)
        self.assertEqual(len({endpoint.split(":")[0] for endpoint in endpoints.values()}), 3)
        return step, endpoints[0], self.serving(endpoints[0], ranks)

    def end(self, step, ranks):
        mpirun = next(pid for pid in jobs.nodes.inhabitants(self.cluster.nodes.names[self.count])
                      if jobs.cluster.comm(pid) == "mpirun")
        os.kill(mpirun, signal.SIGTERM)
        step.wait()
        self.assert_gone([rank["pid"] for rank in ranks])

    def test_one_task_a_node(self):
        step, _, ranks = self.start_server()
        self.end(step, ranks)

    def test_two_tasks_a_node_and_a_death(self):
        step, address, ranks = self.start_server(tasks=2, ranks=6)
        os.kill(ranks[3]["pid"], signal.SIGKILL)
        until(lambda: "rank 3 serves again" in step.errors(), "rank 3 again", 5)
        self.serving(address, 6)
        # A whole task: Open MPI lets the others live, for PMIx was finalized.
        os.kill(jobs.parent(ranks[4]["pid"]), signal.SIGKILL)
        until(lambda: len(self.info(address)) == 5, "rank 4 missed", 5)
        time.sleep(0.5)
        left = self.serving(address, 5)
        # mpirun kills at once when it is told to end after a task failed; rank 0's supervisor ends all in order.
        os.kill(jobs.parent(left[0]["pid"]), signal.SIGTERM)
        step.wait()
        self.assert_gone([rank["pid"] for rank in left])

    def test_a_command(self):
        step = self.salloc("mpirun", RUN, "--", "sh", "-c", "echo ran on $(hostname) against $DJINN_ADDRESS; exit 7")
        # Open MPI ends with the first status that is not 0; salloc passes it on.
        self.assertEqual(step.wait(), 7, step.errors())
        out = step.process.stdout.read()
        self.assertEqual(len(re.findall(r"^ran on dn\d against 10\.77\.0\.", out, re.M)), 1, out)

    def test_generate(self):
        if why := jobs.needs_examples():
            self.skipTest(why)
        step = self.salloc("mpirun", RUN, "--", PYTHON, GENERATE, "--check", "--tokens", "16")
        self.assertEqual(step.process.wait(timeout=90), 0, step.errors())
        self.assertIn("tokens equal", step.process.stdout.read())


if __name__ == "__main__":
    if not shutil.which("mpirun"):
        sys.exit(77)
    jobs.main()
