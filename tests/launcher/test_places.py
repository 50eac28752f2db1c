"""djinn-server under launchers: mpirun with PMIx, and launchers without it, played by their variables."""
import ast
import json
import os
import shutil
import signal
import sys
import time

import harness
import nodes
from harness import BIN, ECHO, greeting, until

SERVER = os.path.join(BIN, "djinn-server")
MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe")


class Mpirun(harness.LaunchTest):
    foreign = True

    def mpirun(self, count, *words):
        return self.start(*MPIRUN, "-np", str(count), SERVER, "--rank-program", ECHO, *words)

    def supervisors(self, server):
        """Rank → supervisor's pid."""
        return {int(greeting(address)["rank"]): os_parent(greeting(address)["pid"])
                for address in server.endpoints().values()}

    def test_nine_ranks(self):
        began = time.monotonic()
        server = self.mpirun(9)
        endpoints = server.wait_ready(9)
        print(f"nine ranks under mpirun ready in {time.monotonic() - began:.3f} s", file=sys.stderr)
        told = {rank: greeting(address) for rank, address in endpoints.items()}
        self.assertEqual(sorted(told), list(range(9)))
        for words in told.values():
            self.assertEqual(words["ranks"], "9")
            self.assertEqual(words["coordinator"], endpoints[0])
            self.assertEqual(words["token"], told[0]["token"])
        with open(f"{self.home}/.djinn/token") as file:
            self.assertEqual(file.read().strip(), told[0]["token"])
        self.assertEqual(server.process.stdout.readline(), f"DJINN_ADDRESS={endpoints[0]}\n")
        server.end()
        self.assert_gone([words["pid"] for words in told.values()])

    def test_deaths_stay_where_they_are(self):
        server = self.mpirun(4)
        endpoints = server.wait_ready(4)
        told = {rank: greeting(address) for rank, address in endpoints.items()}
        supervisors = self.supervisors(server)
        os.kill(int(told[1]["pid"]), signal.SIGKILL)
        until(lambda: "rank 1 serves again" in server.errors(), "rank 1 again", 5)
        self.assertEqual(greeting(endpoints[1])["incarnation"], "1")
        # A whole supervisor: its rank goes with it, the launcher lets the others live.
        os.kill(supervisors[2], signal.SIGKILL)
        self.assert_gone([told[2]["pid"]])
        time.sleep(0.5)
        for rank in (0, 1, 3):
            self.assertEqual(greeting(endpoints[rank])["rank"], str(rank))

    def test_nothing_outlives_a_killed_launcher(self):
        server = self.mpirun(3)
        endpoints = server.wait_ready(3)
        pids = [int(greeting(address)["pid"]) for address in endpoints.values()]
        pids += self.supervisors(server).values()
        server.process.kill()
        self.assert_gone(pids)

    def test_one_task_minds_all_ranks(self):
        server = self.mpirun(1, "-n", "3")
        endpoints = server.wait_ready(3)
        self.assertEqual(len(set(self.supervisors(server).values())), 1)
        self.assertEqual(greeting(endpoints[2])["ranks"], "3")

    def test_numbers_that_contradict(self):
        code, _, err = self.finish(*MPIRUN, "-np", "2", SERVER, "--rank-program", ECHO, "-n", "3")
        self.assertNotEqual(code, 0)
        self.assertIn("started 2 tasks", err)


class Played(harness.LaunchTest):
    """The variables of launchers that bring no PMIx: the exchange goes through a file."""

    def task(self, **variables):
        return self.start(SERVER, "--rank-program", ECHO, env=dict(self.env, **variables))

    def meet(self, environments):
        # The last first: it has to wait for rank 0.
        tasks = [self.task(**variables) for variables in reversed(environments)][::-1]
        endpoints = [task.wait_ready(1)[rank] for rank, task in enumerate(tasks)]
        told = [greeting(address) for address in endpoints]
        for rank, words in enumerate(told):
            self.assertEqual((words["rank"], words["coordinator"], words["token"]),
                             (str(rank), endpoints[0], told[0]["token"]))
        self.assertEqual([task.end() for task in reversed(tasks)], [0] * len(tasks))
        self.assertEqual([name for name in os.listdir(f"{self.home}/.djinn")
                          if name.startswith("job-")], [])

    def test_slurm(self):
        self.meet([{"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank),
                    "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
                    "SLURM_STEP_TASKS_PER_NODE": "3"} for rank in range(3)])

    def test_open_mpi(self):
        self.meet([{"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": "2",
                    "OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                    "OMPI_MCA_ess_base_jobid": "4026531841/../1"} for rank in range(2)])

    def test_pmix_without_its_server(self):
        server = self.task(PMIX_NAMESPACE="gone", PMIX_RANK="0")
        self.assertEqual(greeting(server.wait_ready(1)[0])["ranks"], "1")

    def test_a_batch_script_stands_alone(self):
        server = self.task(SLURM_JOB_ID="77", SLURM_PROCID="0", SLURM_NTASKS="4")
        self.assertEqual(greeting(server.wait_ready(1)[0])["ranks"], "1")

    def test_variables_that_make_no_sense(self):
        good = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}
        for name, value, told in [
                ("SLURM_PROCID", "2", "rank 2 of 2"), ("SLURM_PROCID", "-1", "SLURM_PROCID"),
                ("SLURM_LOCALID", "9", "local rank 9"), ("SLURM_NODEID", "1", "node 1"),
                ("SLURM_STEP_TASKS_PER_NODE", "x", "SLURM_STEP_TASKS_PER_NODE"),
                ("SLURM_STEP_TASKS_PER_NODE", "2(x", "SLURM_STEP_TASKS_PER_NODE"),
                ("SLURM_STEP_NUM_TASKS", "99999", "SLURM_STEP_NUM_TASKS")]:
            with self.subTest(name=name, value=value):
                code, _, err = self.finish(SERVER, "--rank-program", ECHO,
                                           env={**self.env, **good, name: value})
                self.assertEqual(code, 2, err)
                self.assertIn(told, err)


class SeveralNodes(harness.LaunchTest):
    """Two tasks on each of two nodes, by Slurm's variables, over a real network between them."""
    foreign = True

    def setUp(self):
        super().setUp()
        self.nodes = nodes.Nodes(2)
        self.addCleanup(self.nodes.close)

    def start_tasks(self, *words):
        tasks = []
        for rank in range(4):
            env = dict(self.env, SLURM_JOB_ID="78", SLURM_STEP_ID="3", SLURM_PROCID=str(rank),
                       SLURM_STEP_NUM_TASKS="4", SLURM_LOCALID=str(rank % 2),
                       SLURM_NODEID=str(rank // 2), SLURM_STEP_TASKS_PER_NODE="2(x2)")
            tasks.append(self.start(*self.nodes.on(rank // 2, SERVER, *words), env=env))
        return tasks, [task.wait_ready(1)[rank] for rank, task in enumerate(tasks)]

    def greeting_from(self, node, address):
        script = f"import harness; print(harness.greeting('{address}'))"
        env = dict(self.env, PYTHONPATH=os.path.dirname(os.path.abspath(__file__)), LAUNCH_BIN=BIN)
        code, out, err = self.finish(*self.nodes.on(node, sys.executable, "-c", script), env=env)
        self.assertEqual(code, 0, err)
        return ast.literal_eval(out)

    def test_each_listens_where_the_others_reach_it(self):
        tasks, endpoints = self.start_tasks("--rank-program", ECHO)
        for rank, endpoint in enumerate(endpoints):
            self.assertEqual(endpoint.split(":")[0], self.nodes.addresses[rank // 2])
            told = self.greeting_from(1 - rank // 2, endpoint)
            self.assertEqual((told["rank"], told["ranks"], told["coordinator"]),
                             (str(rank), "4", endpoints[0]))
        self.assertEqual([task.end() for task in reversed(tasks)], [0] * 4)

    def test_real_ranks_find_each_other(self):
        _, endpoints = self.start_tasks()
        djinn = self.nodes.on(1, os.path.join(BIN, "djinn"), "info", "--json", "--address",
                              endpoints[0])

        def look():
            code, out, err = self.finish(*djinn)
            self.assertEqual(code, 0, err)
            return sorted(rank["endpoint"] for rank in json.loads(out)["ranks"]
                          if rank["state"] == "serving") == sorted(endpoints)
        until(look, "four ranks serving")


def os_parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


if __name__ == "__main__":
    if "Mpirun" in sys.argv and not shutil.which("mpirun"):
        sys.exit(77)
    if "SeveralNodes" in sys.argv and not nodes.possible():
        sys.exit(77)
    harness.main()
