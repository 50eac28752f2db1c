"""The batch scripts of slurm/, submitted as a user does, and the examples in them: three nodes, over tcp."""
import os
import re
import stat

import jobs
from jobs import DJINN, PYTHON, ROOT, SCRIPTS
from harness import until

SEARCH = os.path.join(ROOT, "examples", "semantic_search.py")
GENERATE = os.path.join(ROOT, "examples", "generate.py")


class Scripts(jobs.JobTest):
    def submit(self, name, *words, options=()):
        return self.sbatch(*options, os.path.join(SCRIPTS, f"{name}.sbatch"), *words)

    def completed(self, job, limit_s=30):
        self.assertEqual(self.ended(job, limit_s), ("COMPLETED", "0:0"), self.output(job))
        return self.output(job)

    def ready(self, text):
        """Rank → node's address, of the ranks that said so."""
        return {int(rank): address for rank, address in re.findall(r"rank (\d+) ready at ([\d.]+):", text)}

    def serve(self, ranks=4, options=()):
        job = self.submit("server", options=options)
        path = f"{self.home}/djinn-server.address"
        until(lambda: os.path.exists(path) and os.path.getsize(path), f"{path} written")
        with open(path) as file:
            address = file.read().strip()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        return job, path, self.serving(address, ranks)

    # ---- server and client in one job ----

    def test_job(self):
        job = self.submit("job", "sh", "-c", "echo ran on $(hostname) against $DJINN_ADDRESS; exit 7")
        self.assertEqual(self.ended(job), ("FAILED", "7:0"), self.output(job))
        out = self.output(job)
        self.assertEqual(out.count("ran on dn0 against 10.77.0.1:"), 1, out)
        self.assertEqual(sorted(set(self.ready(out).values())), sorted(self.cluster.nodes.addresses[:3]))

    def test_no_such_program(self):
        job = self.submit("job", "no-such-program")
        self.assertEqual(self.ended(job), ("FAILED", "127:0"), self.output(job))

    # ---- GPUs ----

    def test_gpus(self):
        job = self.submit("gpus", "djinn", "info")
        out = self.completed(job)
        self.assertEqual(len(re.findall(r"^rank \d+ of 13 on dn\d: ", out, re.M)), 13, out)
        self.assertEqual(len(self.ready(out)), 13, out)
        self.assertIn("13 ranks", out)

    # ---- a server for many ----

    def test_server_and_an_array_of_clients(self):
        first, path, ranks = self.serve()
        script = "djinn info >/dev/null && echo client $SLURM_ARRAY_TASK_ID saw $DJINN_ADDRESS"
        clients = self.submit("clients", "sh", "-c", script, options=["--output=job-%A.out"])
        for i in range(4):
            self.told(clients, f"client {i} saw 10.77.0.1:")
        self.slurm("scancel", "--batch", "--signal=TERM", "--name=djinn-server")
        self.completed(first)
        self.assertFalse(os.path.exists(path))
        self.assert_gone([rank["pid"] for rank in ranks])

    def test_clients_wait_for_the_server(self):
        clients = self.submit("clients", "djinn", "info", options=["--array=1", "--output=job-%A.out"])
        until(lambda: self.job(clients)["JobState"] == "RUNNING", "the client runs")
        self.serve()
        self.told(clients, "4 ranks")

    # ---- the time limit ----

    def test_time_is_up(self):
        # Slurm looks at the clock every half a minute and signals up to a minute early: one wait for both.
        script = "trap 'echo told; exit 0' TERM; echo began; while :; do sleep 0.1; done"
        few = ["--time=1", "--cpus-per-task=1"]
        job = self.submit("job", "sh", "-c", script, options=few)
        server, path, ranks = self.serve(options=few)
        self.told(job, "began")
        self.assertIn("told", self.completed(job, 45))
        self.assert_gone([rank["pid"] for rank in ranks], 10)
        until(lambda: self.job(server)["JobState"] == "PENDING", "the server queued again", 20)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.job(server)["Restarts"], "1")


class Examples(Scripts):
    """The issue's two programs, in the same scripts."""

    def setUp(self):
        if why := jobs.needs_examples():
            self.skipTest(why)
        super().setUp()

    def test_semantic_search(self):
        # The first chapter: the whole book is searched by the test examples_semantic_search.
        with open(os.path.join(ROOT, "examples", "data", "persuasion.txt")) as book:
            text = book.read(8000)
        with open(f"{self.home}/chapter.txt", "w") as file:
            file.write(text)
        out = self.completed(self.submit("job", "python", SEARCH, "--check", "--text", f"{self.home}/chapter.txt"), 90)
        self.assertIn("mode remote", out)
        self.assertEqual(len(set(self.ready(out).values())), 3, out)

    def test_generate(self):
        self.serve()
        job = self.sbatch("-n1", "--wrap", f"exec djinn-run --attach {self.home}/djinn-server.address -- "
                          f"python {GENERATE} --check --tokens 16")
        out = self.completed(job, 90)
        self.assertIn("mode remote", out)
        self.assertIn("tokens equal", out)


for name in [name for name in dir(Scripts) if name.startswith("test_")]:
    setattr(Examples, name, None)  # once is enough

if __name__ == "__main__":
    jobs.main()
