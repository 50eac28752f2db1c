"""djinn doctor inside a real Slurm cluster of two nodes: it names the launcher and what Slurm can do."""
import json
import os
import shutil
import sys
import tempfile

import jobs  # it knows where the others are
from jobs import DJINN


class Doctor(jobs.ClusterTest):
    folder, count = "slurm-doctor", 2

    def look(self, *launcher, only="launch"):
        """What the doctor says in every task, each into a file: srun mixes the lines of tasks."""
        folder = tempfile.mkdtemp(prefix="answers-", dir=self.home)
        code, out, err = self.finish(*self.cluster.argv(
            *launcher, "sh", "-c", f'exec "$@" > {folder}/$(hostname).$$', "sh", DJINN, "doctor",
            "--json", "--only", only))
        self.assertEqual(code, 0, out + err)
        found = []
        for name in os.listdir(folder):
            with open(os.path.join(folder, name)) as file:
                found.append({check["name"]: check for check in json.load(file)["checks"]})
        return found

    def test_on_the_login_node(self):
        found = self.look()[0]
        self.assertRegex(found["launcher"]["text"], "^no launcher")
        self.assertRegex(found["slurm"]["text"], "^Slurm [0-9]+[.]")
        self.assertRegex(found["slurm-mpi"]["text"], "^srun has pmix")
        self.assertEqual(found["munge"]["verdict"], "ok", found["munge"])

    def test_in_a_step_with_pmix(self):
        found = self.look("srun", "-N2", "-n2", "--mpi=pmix")
        self.assertEqual(len(found), 2)
        for one in found:
            self.assertRegex(one["launcher"]["text"], "^pmix started this")
            self.assertRegex(one["slurm"]["text"], ", in job [0-9]+$")

    def test_in_a_step_without_pmix(self):
        found = self.look("srun", "-N1", "-n1", "--mpi=none")[0]
        self.assertRegex(found["launcher"]["text"], "^slurm started this, because SLURM_STEP_ID")

    def test_in_an_allocation(self):
        found = self.look("salloc", "-N2", "-Q", only="launcher")[0]
        self.assertRegex(found["launcher"]["text"], "^this is a job of 2 nodes, but no step")
        if shutil.which("mpirun"):
            found = self.look("salloc", "-N2", "-Q", "mpirun", "--allow-run-as-root", "-np", "2",
                              "--map-by", "node", only="launcher")
            self.assertEqual(len(found), 2)
            for one in found:
                self.assertRegex(one["launcher"]["text"], "^pmix started this")


if __name__ == "__main__":
    jobs.main()
