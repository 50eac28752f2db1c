"""slurm/testbed as a contributor uses it: up, twice, after a crash, and nothing left after down."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import jobs
from jobs import ROOT
from harness import BIN, until

TESTBED = os.path.join(ROOT, "slurm", "testbed")


class Testbed(jobs.harness.LaunchTest):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(BIN, "slurm-try")
        self.cluster = jobs.cluster.Cluster(self.folder, 2)
        self.addCleanup(self.cluster.remove)
        self.cluster.remove()

    def command(self, *words, env=None):
        return self.finish(sys.executable, TESTBED, *words, "--folder", self.folder, env=env)

    def up(self):
        code, out, err = self.command("up", "--nodes", "2", "--gpus", "2")
        self.assertEqual((code, err), (0, ""), out)
        return out

    def run_there(self, *words):
        code, out, err = self.finish(sys.executable, TESTBED, "--folder", self.folder, "exec", *words)
        self.assertEqual(code, 0, err)
        return out

    def inhabitants(self):
        return [pid for name in self.cluster.nodes.names for pid in jobs.nodes.inhabitants(name)]

    def assert_nothing_left(self, pids):
        self.assert_gone(pids, 2)
        held = os.listdir(jobs.nodes.HELD)
        self.assertEqual([name for name in (*self.cluster.nodes.names, self.cluster.nodes.switch) if name in held], [])
        with open("/proc/mounts") as file:
            self.assertNotIn(self.folder, file.read())
        self.assertFalse(os.path.exists(self.folder))

    def test_up_and_down(self):
        self.assertIn("2 nodes (dn0 to dn1)", self.up())
        self.assertIn("up already", self.up())
        code, _, err = self.command("up", "--nodes", "3")
        self.assertEqual(code, 2)
        self.assertIn("another cluster is up", err)
        # Each node is a machine of its own; the home is shared.
        out = self.run_there("srun", "-N2", "--gpus-per-node=2", "sh", "-c",
                             "touch /tmp/$(hostname) ~/$(hostname); echo $(ls /tmp | grep dn), $CUDA_VISIBLE_DEVICES")
        self.assertEqual(sorted(out.split("\n")), ["", "dn0, 0,1", "dn1, 0,1"])
        self.assertFalse(os.path.exists("/tmp/dn0") or os.path.exists("/tmp/dn1"))
        self.assertLessEqual({"dn0", "dn1"}, set(os.listdir(f"{self.folder}/home")))
        pids = self.inhabitants()
        self.assertGreaterEqual(len(pids), 4)
        self.assertEqual(self.command("down"), (0, "", ""))
        self.assert_nothing_left(pids)
        self.assertEqual(self.command("down")[0], 0)

    def test_nodes_and_links(self):
        self.up()
        self.assertEqual(self.command("link", "1", "down")[0], 0)
        self.assertIn("its cable is out", self.command("status")[1])
        self.assertEqual(self.command("link", "dn1", "up")[0], 0)
        self.assertEqual(self.command("node", "1", "down")[0], 0)
        self.assertIn("no slurmd", self.command("status")[1])
        self.assertEqual(self.command("node", "1", "up")[0], 0)
        until(lambda: "no slurmd" not in self.command("status")[1], "dn1 back")
        self.assertEqual(self.run_there("srun", "-w", "dn1", "hostname"), "dn1\n")
        code, _, err = self.command("node", "2", "down")
        self.assertEqual(code, 2)
        self.assertIn("there is no node 2", err)

    def test_after_a_crash(self):
        self.up()
        job = self.start(sys.executable, TESTBED, "--folder", self.folder, "exec", "srun", "-N2", "sleep", "1000")
        until(lambda: any(jobs.cluster.comm(pid) == "sleep" for pid in self.inhabitants()), "the job runs")
        for pid in self.inhabitants():
            if jobs.cluster.comm(pid) == "slurmctld":
                os.kill(pid, signal.SIGKILL)
        before = self.inhabitants()
        job.process.kill()
        until(lambda: self.command("status")[0] == 2, "no cluster")
        self.assertIn("2 nodes", self.up())
        self.assert_gone(before, 2)
        # The record is lost, too: the folder alone tells which namespaces are its own.
        before = self.inhabitants()
        os.unlink(f"{self.folder}/testbed.json")
        self.assertEqual(self.command("down")[0], 0)
        self.assert_gone(before, 2)

    def test_wrong_use(self):
        for words, told in [(["up", "--nodes", "0"], "0 nodes will not do: 1 to 32"),
                            (["up", "--gpus", "-1"], "-1 gpus"), (["status"], "no cluster is up"),
                            (["up", "--nodes", "x"], "invalid int"), (["node", "1", "up"], "no cluster is up")]:
            code, out, err = self.command(*words)
            self.assertEqual((code, out), (2, ""), err)
            self.assertIn(told, err)
        code, _, err = self.finish(sys.executable, TESTBED, "up", "--folder", os.path.join(BIN, "a b"))
        self.assertEqual(code, 2)
        self.assertIn("plain characters", err)
        self.assertFalse(os.path.exists(self.folder))

    def test_without_packages_or_root(self):
        empty = tempfile.mkdtemp(dir=self.home)
        code, _, err = self.command("up", env=dict(self.env, PATH=empty))
        if code == 2:  # Slurm's daemons may lie in /usr/sbin, which is looked at whatever PATH says
            self.assertRegex(err, r"no \w+ here: install the package [\w-]+")
        if shutil.which("setpriv"):
            os.chmod(self.home, 0o755)
            done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", sys.executable, TESTBED, "up",
                                   "--folder", self.folder], env=self.env, capture_output=True, text=True, timeout=20)
            if "Permission denied" not in done.stderr:  # the checkout may be root's alone
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)
                self.assertIn("root", done.stderr)


if __name__ == "__main__":
    if not jobs.cluster.possible():
        sys.exit(77)
    jobs.harness.main()
