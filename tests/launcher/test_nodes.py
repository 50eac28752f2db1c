"""Tasks that are alone on their nodes: three network namespaces, the launcher played by Slurm's variables."""
import json
import os
import re
import signal
import sys
import time

import harness
import nodes
from harness import BIN, ECHO, until

RUN, SERVER, DJINN, OTHER = (os.path.join(BIN, name) for name in
                             ("djinn-run", "djinn-server", "djinn", "djinn-server-other-version"))
DGX = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "topologies", "dgx-a100.xml")


class WholeNodes(harness.LaunchTest):
    foreign = True
    count = 3

    def setUp(self):
        super().setUp()
        self.nodes = nodes.Nodes(self.count)
        self.addCleanup(self.nodes.close)
        self.job = 0

    def task(self, node, *argv):
        env = dict(self.env, SLURM_JOB_ID="79", SLURM_STEP_ID=str(self.job),
                   SLURM_PROCID=str(node), SLURM_STEP_NUM_TASKS=str(self.count),
                   SLURM_LOCALID="0", SLURM_NODEID=str(node),
                   SLURM_STEP_TASKS_PER_NODE=f"1(x{self.count})")
        return self.start(*self.nodes.on(node, *argv), env=env)

    def tasks(self, *argv):
        """One on each node; the last first, which has to wait for rank 0."""
        self.job += 1
        return [self.task(node, *argv) for node in reversed(range(self.count))][::-1]

    def ends(self, tasks):
        return [task.wait() for task in tasks]

    def info(self, node, address):
        code, out, err = self.finish(*self.nodes.on(node, DJINN, "info", "--json", "--address", address))
        self.assertEqual(code, 0, err)
        return {rank["rank"]: rank for rank in json.loads(out)["ranks"]}

    def seats(self, tasks):
        return [sorted(task.endpoints()) for task in tasks]


class Spread(WholeNodes):
    def spread(self, *words):
        tasks = self.tasks(SERVER, "--rank-program", ECHO, *words)
        until(lambda: "ranks ready in" in tasks[0].errors() or
              any(task.process.poll() is not None for task in tasks), "all ranks")
        found = self.seats(tasks)
        tasks[0].end()
        self.assertEqual(self.ends(tasks), [0, 0, 0], [task.errors() for task in tasks])
        self.assertEqual([name for name in os.listdir(f"{self.home}/.djinn") if name != "token"], [])
        return found

    def test_who_minds_what(self):
        self.assertEqual(self.spread(), [[0, 1], [2], [3]])
        self.assertEqual(self.spread("--ranks-per-node", "2"), [[0, 1, 2], [3, 4], [5, 6]])
        self.assertEqual(self.spread("--ranks-per-node", "2", "-n", "5"), [[0, 1, 2], [3], [4]])
        self.assertEqual(self.spread("--ranks-per-node", "task"), [[0], [1], [2]])
        self.assertEqual(self.spread("-n", "3"), [[0], [1], [2]])

    def refused(self, word, *argv):
        began = time.monotonic()
        tasks = self.tasks(*argv)
        self.assertEqual(self.ends(tasks), [2, 2, 2], [task.errors() for task in tasks])
        told = "".join(task.errors() for task in tasks)
        self.assertIn(word, told)
        self.assertEqual(told.count("\n"), 1, told)
        self.assertLess(time.monotonic() - began, 10)
        home = f"{self.home}/.djinn"
        self.assertLessEqual(set(os.listdir(home) if os.path.exists(home) else []), {"token"})

    def test_wrong_use(self):
        server = (SERVER, "--rank-program", ECHO)
        self.refused("devices for 1", *server, "-n", "7")
        self.refused("nothing to do for task 1", *server, "-n", "2")
        self.refused("listen: 'nonsense'", *server, "--listen", "nonsense")
        self.refused("/nowhere/rank", SERVER, "--rank-program", "/nowhere/rank")
        self.env["HWLOC_XMLFILE"] = DGX
        self.refused("has GPUs for 8 ranks", *server, "--device", "cuda", "--ranks-per-node", "9")
        self.refused("devices for 8", *server, "--device", "cuda", "-n", "26")

    def test_a_rank_for_every_gpu(self):
        self.env["HWLOC_XMLFILE"] = DGX
        found = self.spread("--device", "cuda")
        self.assertEqual([len(ranks) for ranks in found], [9, 8, 8])

    def test_mixed_versions(self):
        self.job += 1
        tasks = [self.task(node, OTHER if node == 2 else SERVER, "--rank-program", ECHO)
                 for node in range(3)]
        self.assertEqual(self.ends(tasks), [2, 2, 2], [task.errors() for task in tasks])
        told = "".join(task.errors() for task in tasks)
        self.assertIn("install the same version on all nodes", told)
        self.assertEqual(told.count("\n"), 1, told)

    def test_a_home_that_is_not_shared(self):
        self.job += 1
        homes = [f"{self.home}/{node}" for node in range(3)]
        tasks = []
        for node in range(3):
            os.mkdir(homes[node])
            self.env["HOME"] = homes[node]
            tasks.append(self.task(node, SERVER, "--rank-program", ECHO, "--meet-ms", "1s"))
        self.assertEqual(self.ends(tasks), [2, 2, 2], [task.errors() for task in tasks])
        self.assertIn("shared by all nodes", tasks[1].errors())
        self.assertIn("task 1 of 3 did not come", tasks[0].errors())

    def test_dry_run(self):
        tasks = self.tasks(RUN, "--dry-run", "--ranks-per-node", "2", "--", "false")
        self.assertEqual(self.ends(tasks), [0, 0, 0], [task.errors() for task in tasks])
        told = [task.process.stdout.read() for task in tasks]
        self.assertEqual([re.findall(r"(?m)^rank (\d) of 7", text) for text in told],
                         [["0", "1", "2"], ["3", "4"], ["5", "6"]])


class Commands(WholeNodes):
    def test_once(self):
        script = (f"{DJINN} info --json | grep -c serving; echo $DJINN_ADDRESS; "
                  "echo told >&2; exit 5")
        tasks = self.tasks(RUN, "--", "sh", "-c", script)
        self.assertEqual(self.ends(tasks), [5, 0, 0], [task.errors() for task in tasks])
        out = [task.process.stdout.read() for task in tasks]
        count, address = out[0].split()
        self.assertEqual(count, "4")
        self.assertEqual(address.split(":")[0], self.nodes.addresses[0])
        self.assertEqual(out[1:], ["", ""])

    def test_per_node(self):
        # The second one ends last: the server must wait for it.
        script = (f"[ $SLURM_PROCID = 1 ] && sleep 1; {DJINN} info > /dev/null || exit 9; "
                  "echo here; exit $SLURM_PROCID")
        tasks = self.tasks(RUN, "--per-node", "--", "sh", "-c", script)
        self.assertEqual(self.ends(tasks), [0, 1, 2], [task.errors() for task in tasks])
        self.assertEqual([task.process.stdout.read() for task in tasks], ["here\n"] * 3)

    def test_sigterm_ends_all(self):
        tasks = self.tasks(RUN, "--per-node", "--", "sh", "-c", "echo up; exec sleep 60")
        for task in tasks:
            self.assertEqual(task.process.stdout.readline(), "up\n")
        tasks[0].process.send_signal(signal.SIGTERM)
        self.assertEqual(self.ends(tasks), [143, 143, 143], [task.errors() for task in tasks])

    def test_a_rank_that_cannot_start_ends_all(self):
        self.env["ECHO_FAULT"] = "exit"
        tasks = self.tasks(RUN, "--rank-program", ECHO, "--", "echo", "never")
        ends = self.ends(tasks)  # who heard of the end before its own rank ended, ends in good order
        self.assertEqual(ends[0], 1, [task.errors() for task in tasks])
        self.assertLessEqual(set(ends), {0, 1})
        self.assertIn("could not start: exit status 7", "".join(task.errors() for task in tasks))
        self.assertEqual(tasks[0].process.stdout.read(), "")


class CutLinks(WholeNodes):
    def serving(self):
        tasks = self.tasks(SERVER, "--threads", "1")
        until(lambda: "4 ranks ready" in tasks[0].errors(), "four ranks")
        self.address = tasks[0].endpoints()[0]
        until(lambda: all(rank["state"] == "serving" for rank in self.info(0, self.address).values()),
              "four ranks registered")
        return tasks

    def cut(self, tasks):
        began = time.monotonic()
        self.nodes.link(2, "down")
        until(lambda: "rank 3 on node" in tasks[0].errors(), "the loss told", 3)
        supervisor_s = time.monotonic() - began
        until(lambda: self.info(0, self.address)[3]["state"] == "lost", "rank 3 lost", 3)
        print(f"cut link: told by the supervisor after {supervisor_s:.2f} s, by the coordinator after "
              f"{time.monotonic() - began:.2f} s", file=sys.stderr)
        self.assertLess(time.monotonic() - began, 1.6)

    def test_a_link_that_returns(self):
        tasks = self.serving()
        self.cut(tasks)
        self.nodes.link(2, "up")
        until(lambda: "is back after" in tasks[2].errors(), "the lifeline again", 10)
        until(lambda: self.info(0, self.address)[3]["state"] == "serving", "rank 3 again", 10)
        self.assertIsNone(tasks[2].process.poll())

    def test_the_replaced_are_fenced(self):
        tasks = self.serving()
        self.cut(tasks)
        other = self.start(*self.nodes.on(1, SERVER, "--join", self.address, "--threads", "1"))
        until(lambda: "rank 3 serves again" in other.errors(), "the replacement", 5)
        until(lambda: self.info(0, self.address)[3]["state"] == "serving", "rank 3 again", 5)
        self.nodes.link(2, "up")
        self.assertEqual(tasks[2].wait(), 1)
        self.assertIn("replaced", tasks[2].errors())
        described = self.info(0, self.address)[3]
        self.assertEqual((described["state"], described["incarnation"]), ("serving", 1))
        self.assertTrue(described["endpoint"].startswith(self.nodes.addresses[1] + ":"))
        tasks[0].end()
        self.assertEqual([tasks[1].wait(), other.wait()], [0, 0])

    def test_a_link_that_stays_down(self):
        tasks = self.serving()
        pids = [self.info(0, self.address)[3]["pid"]]
        self.cut(tasks)
        self.assertEqual(tasks[2].wait(), 1)
        self.assertIn("was not reached for 10 s", tasks[2].errors())
        self.assert_gone(pids)
        self.assertEqual(len(self.info(0, self.address)), 4)


if __name__ == "__main__":
    if not nodes.possible():
        sys.exit(77)
    harness.main()
