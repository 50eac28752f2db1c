"""What the tests of Slurm jobs share: a cluster a class (slurm/cluster.py), jobs in it, and that nothing is
left of them afterwards."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "launcher"))
sys.dont_write_bytecode = True
import harness
import cluster  # harness knows where
import nodes
from harness import BIN, ROOT, until

SCRIPTS = os.path.join(ROOT, "slurm")
PYTHON = os.path.join(ROOT, "build", "venv", "bin", "python")
DJINN, SERVER, RUN = (os.path.join(BIN, name) for name in ("djinn", "djinn-server", "djinn-run"))
DAEMONS = {"slurmd"}
ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
# PMIx's and Open MPI's own, which they remove later or never.
FOREIGN_FILES = r"spmix_appdir|ompi\.|pmix|\.?dstore|prte"


class ClusterTest(harness.LaunchTest):
    """A cluster a class; each test has a home folder of its own in it."""
    foreign = True
    folder, count, gpus = "slurm-tests", 3, 0

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster.Cluster(os.path.join(BIN, cls.folder), cls.count, gpus=cls.gpus,
                                      share=[ROOT, BIN])
        cls.addClassCleanup(cls.cluster.remove)
        cls.cluster.up()

    def setUp(self):
        super().setUp()
        self.home = tempfile.mkdtemp(prefix="home-", dir=self.cluster.folder)
        self.env = dict(self.cluster.environment(), HOME=self.home)


class JobTest(ClusterTest):
    gpus = 4

    def setUp(self):
        super().setUp()
        self.env = self.cluster.environment(dict(
            harness.scrubbed(self.home), PYTHONPATH=os.path.join(os.path.dirname(BIN), "python"),
            HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false",
            ASAN_OPTIONS="detect_leaks=0"))
        self.env.update(HOME=self.home, PATH=f"{BIN}:{os.path.dirname(PYTHON)}:{self.env['PATH']}")
        del self.env["TMPDIR"]
        self.addCleanup(self.assert_nothing_left)

    # ---- commands of the login node ----

    def login(self, *words, **options):
        """A program started on the login node."""
        return self.start(*self.cluster.argv(*words), cwd=self.home, **options)

    def slurm(self, *words):
        """What a Slurm command prints."""
        done = subprocess.run(self.cluster.argv(*words), env=self.env, cwd=self.home, capture_output=True,
                              stdin=subprocess.DEVNULL, text=True, timeout=harness.LIMIT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def srun(self, *words, **options):
        return self.login("srun", "--kill-on-bad-exit=0", "--no-kill", *words, **options)

    def sbatch(self, *words):
        return int(self.slurm("sbatch", "--parsable", "--output=job-%j.out", "--open-mode=append", *words))

    def batch(self, text, *options):
        """Submits a script made of the text."""
        path = os.path.join(self.home, "job.sh")
        with open(path, "w") as file:
            file.write(f"#!/bin/bash\n{text}\n")
        return self.sbatch(*options, path)

    def output(self, job):
        try:
            with open(f"{self.home}/job-{job}.out") as file:
                return file.read()
        except OSError:
            return ""

    def told(self, job, pattern, limit_s=harness.LIMIT_S):
        """The first match in what the job wrote."""
        try:
            return until(lambda: re.search(pattern, self.output(job)), pattern, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.slurm('scontrol', 'show', 'job', str(job))}\n"
                                 f"{self.output(job)}") from None

    def job(self, job):
        """Fields of `scontrol show job`."""
        return dict(re.findall(r"(\w+)=(\S*)", self.slurm("scontrol", "show", "job", str(job))))

    def ended(self, job, limit_s=harness.LIMIT_S):
        """State and exit code ("0:0") of a job, once it has ended."""
        def look():
            words = self.job(job)
            return words["JobState"] in ENDS and words
        words = until(look, f"job {job} ended", limit_s)
        return words["JobState"], words["ExitCode"]

    def step_of(self):
        """The newest step that runs ("7.0")."""
        steps = re.findall(r"^(\d+\.\d+)$", self.slurm("squeue", "-s", "-h", "-o", "%i"), re.M)
        return sorted(steps, key=lambda step: [int(part) for part in step.split(".")])[-1]

    def terminate(self, step):
        """scancel complains where a node's task has ended already, and signals the others."""
        subprocess.run(self.cluster.argv("scancel", "-s", "TERM", step), env=self.env, cwd=self.home,
                       capture_output=True, timeout=harness.LIMIT_S)

    # ---- the server ----

    def info(self, address):
        """The ranks that serve, as rank 0 knows them; empty while it does not answer."""
        code, out, _ = self.finish(*self.cluster.argv(DJINN, "info", "--json", "--address", address))
        return [rank for rank in json.loads(out)["ranks"] if rank["state"] == "serving"] if code == 0 else []

    def serving(self, address, count, limit_s=harness.LIMIT_S):
        return until(lambda: (ranks := self.info(address)) and len(ranks) == count and ranks,
                     f"{count} ranks serving", limit_s)

    # ---- nothing is left ----

    def strangers(self, node):
        return [pid for pid in nodes.inhabitants(self.cluster.nodes.names[node])
                if cluster.comm(pid) not in DAEMONS]

    def files_on(self, node):
        """Files in the node's own /tmp and /dev/shm, but for other programs' and what is shared there."""
        try:
            argv = self.cluster.node_argv(node, "find", "/tmp", "/dev/shm", "-xdev", "-mindepth", "1", "-not",
                                          "-type", "d")
        except (cluster.Failure, OSError):
            return []
        found = subprocess.run(argv, capture_output=True, text=True, timeout=10).stdout.split()
        return [path for path in found if not re.search(FOREIGN_FILES, path)]

    def assert_nothing_left(self):
        self.slurm("scancel", "-u", "root")
        for node in range(self.count):
            if not self.cluster.runs(node, "slurmd"):
                self.cluster.node_up(node)
            self.cluster.nodes.link(node, "up")
        until(lambda: not self.slurm("squeue", "-h"), "the queue empty", 15)
        for node in range(self.count):
            until(lambda: not self.strangers(node), f"only daemons on {self.cluster.name(node)}", 8)
            self.assertEqual(self.files_on(node), [], self.cluster.name(node))
        left = set(os.listdir(f"{self.home}/.djinn")) if os.path.exists(f"{self.home}/.djinn") else set()
        self.assertLessEqual(left, {"token"})


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def needs_examples():
    return None if os.access(PYTHON, os.X_OK) else f"no {PYTHON}: scripts/setup makes it"


def main():
    if not cluster.possible():
        print(cluster.why_impossible(), file=sys.stderr)
        sys.exit(77)
    harness.main()
