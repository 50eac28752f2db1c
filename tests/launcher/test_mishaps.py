"""What goes wrong while supervisors start, wait, lose each other and end: each case once did harm."""
import json
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import time

import harness
from harness import BIN, ECHO, alive, greeting, until
from test_lifeline import Lifeline, children

RUN, SERVER = (os.path.join(BIN, name) for name in ("djinn-run", "djinn-server"))


def busy_ms(pid):
    """Processor time of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) * 1000 // os.sysconf("SC_CLK_TCK")


class Alone(harness.LaunchTest):
    def test_a_parent_that_ignored_its_children(self):
        # SIGCHLD ignored is inherited, and then the kernel tells nobody of a death.
        server = self.run_ranks("-n", "2", preexec_fn=lambda: signal.signal(signal.SIGCHLD,
                                                                            signal.SIG_IGN))
        pid = int(greeting(server.wait_ready(2)[1])["pid"])
        os.kill(pid, signal.SIGKILL)
        until(lambda: "rank 1 serves again" in server.errors(), "the rank again", 5)
        self.assertEqual(server.end(), 0)


    def test_more_ranks_than_the_soft_limit_of_descriptors(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
        server = self.run_ranks("-n", "40", preexec_fn=limit)
        server.wait_ready(40)
        self.assertEqual(server.end(), 0)


    def test_an_address_file_that_cannot_be_written(self):
        # Whoever waits for the file would wait for ever.
        for path in ("/nowhere/address", "/proc/address", self.home):
            server = self.start(SERVER, "--rank-program", ECHO, "--address-file", path)
            self.assertEqual(server.wait(), 2)
            self.assertIn(path, server.errors())
            self.assertEqual(server.errors().count("\n"), 1, server.errors())
        self.assertEqual(os.listdir(self.home).count(".djinn"), 0)


class Waiting(Lifeline):
    def test_who_waits_long_is_idle(self):
        head = self.start(SERVER, "-q", "-n", "5", "--ranks-per-node", "2", "--threads", "1",
                          "--address-file", self.file)
        until(lambda: os.path.exists(self.file), "the address file")
        member = self.join("--ranks-per-node", "1")  # rank 4 stays open
        time.sleep(5.5)  # they begin to tell what they wait for after 5 s
        before = [busy_ms(server.pid) for server in (head, member)]
        time.sleep(1)
        for server, ms in zip((head, member), before):
            self.assertLess(busy_ms(server.pid) - ms, 200)

    def test_a_worker_given_up_while_seats_are_open(self):
        head = self.head("--restarts", "0")
        until(lambda: self.serving() == {0: 0, 1: 0, 2: 0}, "three ranks registered", 5)
        os.kill(self.ranks()[2]["pid"], signal.SIGKILL)
        until(lambda: "DJINN_RESTARTS" in head.errors(), "rank 2 given up", 5)
        until(lambda: self.serving() == {0: 0, 1: 0}, "the others serving", 5)
        self.assertIsNone(head.process.poll())

    def test_more_connections_than_descriptors(self):
        # 12 descriptors or so are the supervisor's own.
        limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
        head = self.start(SERVER, "-n", "5", "--ranks-per-node", "2", "--threads", "1",
                          "--rank-program", ECHO, preexec_fn=limit)
        head.wait_ready(3)
        with open(f"/proc/{children(head.pid)[0]}/cmdline") as file:
            port = int(file.read().split("--lifeline=")[1].split("\0")[0].rsplit(":", 1)[1])
        held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(24)]
        time.sleep(0.2)
        before = busy_ms(head.pid)
        time.sleep(1)
        self.assertLess(busy_ms(head.pid) - before, 200)
        for peer in held:
            peer.close()

    def test_a_proof_of_another_token(self):
        head, member = self.pair()
        with open(f"/proc/{children(head.pid)[0]}/cmdline") as file:
            port = int(file.read().split("--lifeline=")[1].split("\0")[0].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            magic, version = struct.unpack_from("<IH", peer.recv(4096))
            hello = bytearray(152)
            struct.pack_into("<I", hello, 32, 5)  # behind the proof: a supervisor
            peer.sendall(struct.pack("<IHHII", magic, version, 2, len(hello), 0) + hello)
            self.assertEqual(struct.unpack_from("<IHH", peer.recv(4096)), (magic, version, 5))
        self.assertIsNone(member.process.poll())

    def test_a_stranger_of_another_version_ends_nothing(self):
        head = self.head()
        with open(f"/proc/{children(head.pid)[0]}/cmdline") as file:
            port = int(file.read().split("--lifeline=")[1].split("\0")[0].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            challenge = peer.recv(4096)
            magic, version = struct.unpack_from("<IH", challenge)
            peer.sendall(struct.pack("<IH", magic, version + 1) + challenge[6:])
            while peer.recv(4096):
                pass
        self.join()
        until(lambda: "5 ranks ready" in head.errors(), "five ranks", 5)

    def test_a_member_that_pauses_before_all_serve(self):
        head = self.head()
        member = self.join("--ranks-per-node", "1")
        os.kill(member.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(member.pid, signal.SIGCONT)
        self.join("--ranks-per-node", "1")
        until(lambda: "5 ranks ready" in head.errors() or head.process.poll() is not None,
              "five ranks", 5)
        self.assertIsNone(head.process.poll(), head.errors())

    def test_who_joins_and_is_lost_before_all_serve(self):
        head = self.head()
        member = self.join("--ranks-per-node", "1")
        os.kill(member.pid, signal.SIGKILL)
        self.is_lost(head)
        failed = self.start(SERVER, "--join", self.file, "--rank-program", ECHO,
                            env=dict(self.env, ECHO_FAULT="exit"))
        self.assertEqual(failed.wait(), 1)
        self.assertIsNone(head.process.poll(), head.errors())
        for _ in range(2):
            self.join("--ranks-per-node", "1")
        until(lambda: "5 ranks ready" in head.errors(), "five ranks", 5)


class Ending(Lifeline):
    def test_a_member_without_a_command_is_not_waited_for(self):
        env = dict(self.env, DJINN_TOKEN="cd" * 32)
        head = self.start(RUN, "-n", "3", "--ranks-per-node", "1", "--listen", "127.0.0.1:0",
                          "--per-node", "--", "sh", "-c", "exit 4", env=env)
        address = head.wait_ready(2)[0]
        member = self.start(SERVER, "--join", address, env=env)
        self.assertEqual([head.wait(), member.wait()], [4, 0])

    def test_rank_0_outlives_what_drains(self):
        head = self.head("--drain-ms", "4s")
        member = self.join("--rank-program", ECHO, "--drain-ms", "4s",
                           env=dict(self.env, ECHO_FAULT="slow"))
        until(lambda: "5 ranks ready" in head.errors(), "five ranks")
        first = children(head.pid)[0]
        began = time.monotonic()
        head.process.send_signal(signal.SIGTERM)
        until(lambda: not alive(first), "the end of rank 0", 10)
        self.assertGreater(time.monotonic() - began, 1.9)
        self.assertEqual([head.wait(), member.wait()], [0, 0])

    def test_the_replaced_are_killed(self):
        head = self.head()
        member = self.join("--rank-program", ECHO, env=dict(self.env, ECHO_FAULT="stubborn"))
        until(lambda: "5 ranks ready" in head.errors(), "five ranks")
        os.kill(member.pid, signal.SIGSTOP)
        self.is_lost(head)
        self.join("--rank-program", ECHO)
        began = time.monotonic()
        os.kill(member.pid, signal.SIGCONT)
        self.assertEqual(member.wait(), 1)
        self.assertLess(time.monotonic() - began, 2)

    def test_a_replacement_is_newer_than_what_never_served(self):
        head = self.head()
        member = self.join("--rank-program", ECHO, env=dict(self.env, ECHO_FAULT="mute"))
        until(lambda: "5 ranks ready" in head.errors(), "five ranks")
        for pid in children(member.pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: member.errors().count("; restart 1") == 2 and len(children(member.pid)) == 2,
              "incarnation 1")
        os.kill(member.pid, signal.SIGKILL)
        other = self.join("--rank-program", ECHO)
        until(lambda: len(other.again()) == 2, "the replacement")
        self.assertEqual(greeting(other.again()[3])["incarnation"], "2")

    def test_nothing_is_started_behind_a_cut_lifeline(self):
        # Another supervisor may mind these ranks by now, and the newest incarnation is believed.
        head = self.head()
        member = self.join("--rank-program", ECHO, "--log", "info")
        until(lambda: "5 ranks ready" in head.errors(), "five ranks")
        os.kill(head.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, head.pid, signal.SIGCONT)
        until(lambda: "is cut" in member.errors(), "the cut", 5)
        for pid in children(member.pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: member.errors().count("; restart 1") == 2, "the deaths", 5)
        time.sleep(0.5)
        self.assertEqual(children(member.pid), [])
        os.kill(head.pid, signal.SIGCONT)
        until(lambda: len(member.again()) == 2, "both again", 5)


class Tasks(harness.LaunchTest):
    """Three tasks on one node, by Slurm's variables."""

    def task(self, rank, *words, argv=(), tasks=3, **options):
        env = dict(self.env, SLURM_JOB_ID="80", SLURM_STEP_ID="0", SLURM_PROCID=str(rank),
                   SLURM_STEP_NUM_TASKS=str(tasks), SLURM_LOCALID=str(rank), SLURM_NODEID="0",
                   SLURM_STEP_TASKS_PER_NODE=str(tasks))
        return self.start(*argv, SERVER, *words, env=env, **options)

    def test_a_task_that_never_comes(self):
        began = time.monotonic()
        tasks = [self.task(rank, "--rank-program", ECHO, "--meet-ms", "1s") for rank in (0, 1)]
        self.assertEqual(tasks[0].wait(), 2)
        self.assertLess(time.monotonic() - began, 5)
        self.assertIn("task 2 of 3 did not come in time", tasks[0].errors())
        self.assertIn(tasks[1].wait(), (0, 1))
        self.assertEqual(os.listdir(f"{self.home}/.djinn"), ["token"])

    def test_a_task_without_a_device(self):
        began = time.monotonic()
        tasks = [self.task(0, "--rank-program", ECHO, tasks=2),
                 self.task(1, "--rank-program", ECHO, "--device", "cuda", tasks=2)]
        self.assertEqual([task.wait() for task in tasks], [2, 2])
        self.assertLess(time.monotonic() - began, 5)
        self.assertRegex(tasks[0].errors(), "(?m)^djinn.*no device for task 1")
        self.assertEqual(tasks[1].errors(), "")

    def test_seats_of_a_task_that_comes_late(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            listen = f"127.0.0.1:{other.getsockname()[1]}"
        first = self.task(0, "--listen", listen, "--threads", "1")
        first.wait_ready(1)
        code, _, err = self.finish(SERVER, "--join", listen)
        self.assertEqual(code, 2)
        self.assertIn("nothing to join", err)
        late = [self.task(rank, "--threads", "1") for rank in (1, 2)]
        until(lambda: "3 ranks ready" in first.errors(), "three ranks", 10)
        self.assertEqual([sorted(task.endpoints()) for task in late], [[1], [2]])

    def test_the_launcher_dies_while_tasks_meet(self):
        argv = ("sh", "-c", 'echo $$; "$@" & exec sleep 60', "sh")
        first = self.task(0, "--rank-program", ECHO, argv=argv, tasks=2)
        shell = int(first.process.stdout.readline())
        until(lambda: any(name.startswith("job-") for name in os.listdir(f"{self.home}/.djinn"))
              if os.path.exists(f"{self.home}/.djinn") else False, "the exchange's file")
        pid = until(lambda: children(shell), "the supervisor")[0]
        self.addCleanup(lambda: alive(pid) and os.kill(pid, signal.SIGKILL))
        os.kill(shell, signal.SIGKILL)
        # It may look for the exchange when it is gone, and then waits as long as it is told to.
        second = self.task(1, "--rank-program", ECHO, "--meet-ms", "2s", tasks=2)
        self.assert_gone([pid], 5)
        self.assertIn(second.wait(), (0, 1, 2))

    def test_who_joins_under_a_launcher_ends_with_it(self):
        head = self.start(SERVER, "-n", "3", "--ranks-per-node", "1", "--threads", "1")
        address = head.wait_ready(2)[0]
        argv = ("sh", "-c", 'echo $$; "$@" & echo $!; exec sleep 60', "sh")
        member = self.task(0, "--join", address, "--threads", "1", argv=argv)
        shell, pid = (int(member.process.stdout.readline()) for _ in range(2))
        self.addCleanup(lambda: alive(pid) and os.kill(pid, signal.SIGKILL))
        until(lambda: "3 ranks ready" in head.errors(), "three ranks", 10)
        os.kill(shell, signal.SIGKILL)
        self.assert_gone([pid], 5)
        self.assertIsNone(head.process.poll())


class Mpirun(harness.LaunchTest):
    foreign = True

    def test_a_single_task_leaves_pmix(self):
        # A thread of PMIx would take the signals that tell of deaths.
        server = self.start("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "1", SERVER,
                            "--rank-program", ECHO)
        address = server.wait_ready(1)[0]
        for incarnation in range(1, 6):
            told = greeting(address)
            with open(f"/proc/{told['pid']}/stat") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
            self.assertEqual(len(os.listdir(f"/proc/{parent}/task")), 1)
            os.kill(int(told["pid"]), signal.SIGKILL)
            until(lambda: f"restart {incarnation}, " in server.errors(), "the rank again", 5)


if __name__ == "__main__":
    if "Mpirun" in sys.argv and not shutil.which("mpirun"):
        sys.exit(77)
    harness.main()
