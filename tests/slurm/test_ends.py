"""How jobs end, and what they survive: a signal, the time limit, requeue, a node without power, a cut link."""
import os
import sys
import time

import jobs
from jobs import SERVER
from harness import alive, until

STARTS = r"rank 0 ready at (\S+),"
SERVE = f"""
trap 'scancel -s TERM $SLURM_JOB_ID.0; wait $step; echo step ended with $?; exit 0' TERM
srun --kill-on-bad-exit=0 --no-kill {SERVER} & step=$!
wait $step; echo server ended with $?
"""


class Ends(jobs.JobTest):
    def serve(self, *options):
        """A batch job with a rank a node, and rank 0: its number, rank 0's address, the ranks."""
        job = self.batch(SERVE, "-N3", "--ntasks-per-node=1", "--no-kill", *options)
        address = self.told(job, STARTS).group(1)
        return job, address, self.serving(address, 4)

    def rank_on(self, node, ranks):
        return next(rank for rank in ranks if rank["endpoint"].startswith(self.cluster.nodes.addresses[node]))

    def test_step_told_to_end(self):
        job, _, _ = self.serve()
        self.terminate(f"{job}.0")
        self.assertEqual(self.ended(job, 10), ("COMPLETED", "0:0"), self.output(job))
        self.assertIn("server ended with 0", self.output(job))

    def test_job_cancelled(self):
        job, _, ranks = self.serve()
        self.slurm("scancel", str(job))
        self.assertEqual(self.ended(job, 10)[0], "CANCELLED")
        self.assert_gone([rank["pid"] for rank in ranks], 5)

    def test_requeued(self):
        job, _, ranks = self.serve("--requeue")
        self.slurm("scontrol", "requeue", str(job))
        self.assert_gone([rank["pid"] for rank in ranks], 8)
        until(lambda: self.job(job)["JobState"] == "PENDING", "the job queued again", 10)
        # Slurm would wait two minutes; sooner than a second or two its nodes refuse the job as one just killed.
        self.slurm("scontrol", "update", f"jobid={job}", "StartTime=now+3")
        address = self.told(job, f"(?s){STARTS}.*{STARTS}").group(2)
        self.serving(address, 4)
        self.assertEqual(self.job(job)["Restarts"], "1")
        self.terminate(f"{job}.0")
        self.assertEqual(self.ended(job, 10), ("COMPLETED", "0:0"), self.output(job))

    def test_node_without_power(self):
        job, address, ranks = self.serve()
        lost = self.rank_on(2, ranks)
        began = time.monotonic()
        self.cluster.node_down(2)
        until(lambda: len(self.info(address)) == 3, "three ranks left", 5)
        print(f"a node without power missed after {time.monotonic() - began:.2f} s", file=sys.stderr)
        # Slurm notices, too, and lets the step go on.
        until(lambda: "down" in self.cluster.run("sinfo", "-h", "-n", "dn2", "-o", "%t"), "dn2 down", 25)
        self.assertEqual(self.job(job)["JobState"], "RUNNING")
        left = self.info(address)
        self.assertEqual(sorted(rank["pid"] for rank in left),
                         sorted(rank["pid"] for rank in ranks if rank is not lost))
        self.assertTrue(all(alive(rank["pid"]) for rank in left))

    def test_cut_link(self):
        _, address, ranks = self.serve()
        lost = self.rank_on(1, ranks)
        began = time.monotonic()
        self.cluster.nodes.link(1, "down")
        until(lambda: len(self.info(address)) == 3, "three ranks left", 5)
        seen = time.monotonic() - began
        print(f"a cut link told after {seen:.2f} s", file=sys.stderr)
        self.assertLess(seen, 1.5)
        self.cluster.nodes.link(1, "up")
        ranks = self.serving(address, 4)
        again = next(rank for rank in ranks if rank["rank"] == lost["rank"])
        self.assertGreater((again["incarnation"], again["pid"]), (lost["incarnation"], 0))
        self.assertFalse(alive(lost["pid"]) and again["pid"] != lost["pid"])


if __name__ == "__main__":
    jobs.main()
