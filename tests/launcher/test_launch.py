"""djinn-run and djinn-server without a launcher: real processes, real signals, real sockets."""
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import termios
import time

import harness
from harness import BIN, ECHO, alive, greeting, until

RUN = os.path.join(BIN, "djinn-run")
SERVER = os.path.join(BIN, "djinn-server")


class WrongUse(harness.LaunchTest):
    def expect(self, status, words, argv, env=None):
        code, out, err = self.finish(*argv, env=env)
        self.assertEqual(code, status, err)
        self.assertEqual(out, "")
        for word in words:
            self.assertIn(word, err)

    def test_words_that_make_no_sense(self):
        for argv, word in [((RUN, "--no-such"), "--no-such"), ((RUN, "-n"), "-n 3"),
                           ((RUN, "-n", "0"), "--ranks"), ((RUN, "-nx"), "--ranks"),
                           ((RUN, "-n", "9" * 70), "-n"), ((RUN, "-x"), "-x"),
                           ((RUN, "--"), "command"), ((SERVER, "ls"), "djinn-run"),
                           ((SERVER, "--", "ls"), "djinn-run"), ((RUN, "--log"), "--log"),
                           ((RUN, "--auth", "maybe"), "maybe")]:
            with self.subTest(argv=argv):
                self.expect(2, [word], argv)

    def test_addresses_that_make_no_sense(self):
        for listen in ["nonsense", "127.0.0.1:99999999", "127.0.0.1:x", "127.0.0.1:",
                       "a" * 300 + ":1"]:
            with self.subTest(listen=listen):
                code, _, err = self.run_command("--listen", listen)
                self.assertEqual(code, 2, err)
                self.assertIn("djinn-run: ", err)

    def test_a_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            code, _, err = self.run_command("--listen", f"127.0.0.1:{port}")
        self.assertEqual(code, 2)
        self.assertIn(str(port), err)

    def test_a_rank_program_that_is_missing(self):
        self.expect(2, ["/nowhere/rank"], (RUN, "--rank-program", "/nowhere/rank"))

    def test_a_token_that_is_none(self):
        env = harness.scrubbed(self.home, DJINN_TOKEN="12ab")
        self.expect(2, ["64"], (RUN, "--rank-program", ECHO), env)

    def test_a_token_file_that_others_may_read(self):
        os.mkdir(f"{self.home}/.djinn", 0o700)
        with open(f"{self.home}/.djinn/token", "w") as file:
            file.write("ab" * 32)
        os.chmod(f"{self.home}/.djinn/token", 0o644)
        self.expect(2, [".djinn/token"], (RUN, "--rank-program", ECHO))

    def test_help_and_version(self):
        for argv in [(RUN, "--help"), (SERVER, "-h")]:
            code, out, err = self.finish(*argv)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("usage:", out)
            self.assertIn("--listen", out)
        for argv in [(RUN, "--version"), (SERVER, "-V")]:
            code, out, _ = self.finish(*argv)
            self.assertEqual(code, 0)
            self.assertRegex(out, r"^djinn-\w+ \d+\.\d+\.\d+\n$")

    def test_the_supervisor_carries_no_big_library(self):
        for program in (RUN, SERVER):
            libraries = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
            for name in ("libucp", "libuct", "libcuda", "libpmix", "libmpi", "libdnnl"):
                self.assertNotIn(name, libraries)


class Command(harness.LaunchTest):
    def test_its_status_is_ours(self):
        for script, status in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143),
                               ("kill -KILL $$", 137)]:
            self.assertEqual(self.run_command("--", "sh", "-c", script)[0], status)

    def test_commands_that_cannot_run(self):
        code, _, err = self.run_command("--", "no-such-command")
        self.assertEqual(code, 127)
        self.assertIn("no-such-command", err)
        self.assertEqual(self.run_command("--", "/etc/passwd")[0], 126)

    def test_it_finds_the_server_and_nobody_else_does(self):
        code, out, err = self.run_command("-n", "3", "--", "sh", "-c",
                                          "echo $DJINN_ADDRESS $DJINN_TOKEN; read x < /dev/null; "
                                          f"{sys.executable} -c 'import harness; print(harness."
                                          "greeting(\"'$DJINN_ADDRESS'\"))'",
                                          env=dict(self.env, PYTHONPATH=os.path.dirname(__file__),
                                                   LAUNCH_BIN=BIN))
        self.assertEqual(code, 0, err)
        address, token = out.split("\n")[0].split()
        self.assertEqual(len(token), 64)
        self.assertIn(f"'coordinator': '{address}'", out)
        self.assertIn(f"'token': '{token}'", out)
        self.assertEqual(err.count("ready at"), 3)
        self.assertFalse(os.path.exists(f"{self.home}/.djinn"))

    def test_without_dashes_and_quiet(self):
        code, out, err = self.run_command("-q", "-n2", "echo", "-n", "hello")
        self.assertEqual((code, out, err), (0, "hello", ""))

    def test_sigterm_reaches_it(self):
        server = self.run_ranks("--", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do "
                                "read x; done < /dev/tty || sleep 60 & wait")
        self.assertEqual(server.process.stdout.readline(), "up\n")
        self.assertEqual(server.end(), 9)

    def test_a_command_deaf_to_sigterm_is_killed(self):
        server = self.run_ranks("--", sys.executable, "-c",
                                "import signal,time\nsignal.signal(15,1)\nprint('up',flush=True)\n"
                                "time.sleep(60)")
        self.assertEqual(server.process.stdout.readline(), "up\n")
        began = time.monotonic()
        self.assertEqual(server.end(), 137)
        self.assertLess(time.monotonic() - began, 8)

    def interruptible(self, **options):
        server = self.run_ranks("--", sys.executable, "-c",
                                "import time\n"
                                "try: print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n"
                                "  time.sleep(0.1)\n"
                                "  import harness, os\n"
                                "  told = harness.greeting(os.environ['DJINN_ADDRESS'])\n"
                                "  exit(5 if told['incarnation'] == '0' else 6)",
                                env=dict(self.env, PYTHONPATH=os.path.dirname(__file__)), **options)
        self.assertEqual(server.process.stdout.readline(), "up\n")
        return server

    def test_ctrl_c_is_the_commands_business(self):
        # A second SIGINT, passed on by us, would break into the command's handling of the first.
        master, slave = os.openpty()
        server = self.interruptible(
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0), pass_fds=(slave,))
        os.write(master, b"\x03")
        self.assertEqual(server.wait(), 5)
        os.close(master)
        os.close(slave)

    def test_sigint_from_a_process_is_passed_on(self):
        self.assertEqual(self.interruptible().end(signal.SIGINT), 5)

    def test_it_dies_with_us(self):
        server = self.run_ranks("--", "sh", "-c", "echo $$; exec sleep 60")
        pid = int(server.process.stdout.readline())
        server.process.kill()
        self.assert_gone([pid])

    def test_ranks_that_cannot_start(self):
        env = dict(self.env, ECHO_FAULT="exit")
        code, out, err = self.run_command("-n", "2", "--", "echo", "never", env=env)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("could not start: exit status 7", err)


class Ranks(harness.LaunchTest):
    def test_nine_ranks_each_knows_its_place(self):
        began = time.monotonic()
        server = self.run_ranks("-n", "9", "--text-bytes", "7M")
        endpoints = server.wait_ready(9)
        seconds = time.monotonic() - began
        print(f"nine ranks ready in {seconds:.3f} s", file=sys.stderr)
        told = {rank: greeting(address) for rank, address in endpoints.items()}
        for rank, words in told.items():
            self.assertEqual(words["rank"], str(rank))
            self.assertEqual(words["ranks"], "9")
            self.assertEqual(words["coordinator"], endpoints[0])
            self.assertEqual(words["text_bytes"], str(7 << 20))
            self.assertEqual(words["token"], told[0]["token"])
        self.assertEqual(server.process.stdout.readline(), f"DJINN_ADDRESS={endpoints[0]}\n")
        with open(f"{self.home}/.djinn/address") as file:
            self.assertEqual(file.read().strip(), endpoints[0])
        with open(f"{self.home}/.djinn/token") as file:
            self.assertEqual(file.read().strip(), told[0]["token"])
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.home}/.djinn/token").st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.home}/.djinn").st_mode), 0o700)
        pids = [words["pid"] for words in told.values()]
        self.assertEqual(server.end(), 0)
        self.assert_gone(pids, 1)
        self.assertFalse(os.path.exists(f"{self.home}/.djinn/address"))

    def test_a_rank_inherits_its_socket_and_no_secret_in_argv(self):
        leak = f"{self.home}/leak"
        leaked = os.open(leak, os.O_WRONLY | os.O_CREAT)
        self.addCleanup(os.close, leaked)
        server = self.run_ranks("-n", "3", pass_fds=(leaked,))
        told = greeting(server.wait_ready(3)[1])
        links = {fd: os.readlink(f"/proc/{told['pid']}/fd/{fd}")
                 for fd in os.listdir(f"/proc/{told['pid']}/fd")}
        sockets = [fd for fd, link in links.items() if link.startswith("socket:") and int(fd) > 2]
        self.assertLessEqual(len(sockets), 2, links)  # its own and, for a moment, our connection
        self.assertNotIn(leak, links.values())
        self.assertEqual(links["0"], "/dev/null")
        with open(f"/proc/{told['pid']}/cmdline") as file:
            self.assertNotIn(told["token"], file.read())

    def test_a_killed_rank_returns_at_its_address(self):
        server = self.run_ranks("-n", "3")
        endpoints = server.wait_ready(3)
        for victim in (0, 2, 2):
            before = greeting(endpoints[victim])
            others = {rank: greeting(endpoints[rank])["pid"] for rank in endpoints if rank != victim}
            began = time.monotonic()
            os.kill(int(before["pid"]), signal.SIGKILL)
            after = until(lambda: again(endpoints[victim], before["pid"]), "the rank again", 5)
            print(f"rank {victim} again after {time.monotonic() - began:.3f} s", file=sys.stderr)
            self.assertEqual(int(after["incarnation"]), int(before["incarnation"]) + 1)
            self.assertEqual(after["token"], before["token"])
            self.assertFalse(os.path.exists(f"/proc/{before['pid']}"), "a zombie is left")
            for rank, pid in others.items():
                self.assertEqual(greeting(endpoints[rank])["pid"], pid)
        self.assertEqual(server.errors().count("serves again"), 3)

    def test_connections_wait_while_a_rank_is_down(self):
        server = self.run_ranks("-n", "2")
        endpoints = server.wait_ready(2)
        for _ in range(5):
            os.kill(int(greeting(endpoints[1])["pid"]), signal.SIGKILL)
            for _ in range(3):  # into the backlog of a dead process: refused by nobody
                host, port = endpoints[1].rsplit(":", 1)
                socket.create_connection((host, int(port)), timeout=5).close()
        self.assertGreaterEqual(int(greeting(endpoints[1])["incarnation"]), 1)

    def test_crashes_at_the_start_are_survived(self):
        server = self.run_ranks(env=dict(self.env, ECHO_FAULT="crash"))
        until(lambda: "serves again" in server.errors(), "the third incarnation")
        self.assertIn("died by signal 6", server.errors())
        self.assertEqual(server.end(), 0)

    def test_restarts_are_bounded(self):
        server = self.run_ranks("--restarts", "1", env=dict(self.env, ECHO_FAULT="crash"))
        self.assertEqual(server.wait(), 1)
        self.assertIn("DJINN_RESTARTS", server.errors())

    def test_a_worker_lost_for_good_leaves_the_others(self):
        server = self.run_ranks("-n", "3", "--restarts", "0")
        endpoints = server.wait_ready(3)
        os.kill(int(greeting(endpoints[2])["pid"]), signal.SIGKILL)
        until(lambda: "DJINN_RESTARTS" in server.errors(), "rank 2 given up")
        self.assertEqual(greeting(endpoints[1])["rank"], "1")
        os.kill(int(greeting(endpoints[0])["pid"]), signal.SIGKILL)
        self.assertEqual(server.wait(), 1)

    def test_a_rank_that_was_asked_to_end_stays_away(self):
        server = self.run_ranks("-n", "2")
        endpoints = server.wait_ready(2)
        for rank in (1, 0):
            os.kill(int(greeting(endpoints[rank])["pid"]), signal.SIGTERM)
        self.assertEqual(server.wait(), 0)


class Ends(harness.LaunchTest):
    def started(self, *words, **options):
        server = self.run_ranks("-n", "3", *words, **options)
        endpoints = server.wait_ready(3)
        return server, [int(greeting(address)["pid"]) for address in endpoints.values()]

    def test_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            server, pids = self.started()
            self.assertEqual(server.end(number), 0)
            self.assert_gone(pids, 1)

    def test_ctrl_c_at_the_terminal(self):
        server, pids = self.started()
        os.killpg(server.pid, signal.SIGINT)
        self.assertEqual(server.wait(), 0)
        self.assert_gone(pids, 1)

    def test_no_orphans_of_a_killed_supervisor(self):
        server, pids = self.started()
        server.process.kill()
        self.assert_gone(pids)

    def test_ranks_deaf_to_sigterm_are_killed(self):
        server, pids = self.started(env=dict(self.env, ECHO_FAULT="stubborn"))
        began = time.monotonic()
        self.assertEqual(server.end(), 1)
        self.assertTrue(4 < time.monotonic() - began < 8)
        self.assert_gone(pids, 1)

    def test_a_second_signal_is_impatience(self):
        server, pids = self.started(env=dict(self.env, ECHO_FAULT="stubborn"))
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        server.end(signal.SIGINT)
        self.assertLess(time.monotonic() - began, 3)
        self.assert_gone(pids, 1)

    def test_nohup_is_respected(self):
        server, pids = self.started(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        self.assertTrue(all(alive(pid) for pid in pids))
        self.assertEqual(server.end(), 0)

    def test_follow_ends_with_its_parent(self):
        script = f"{RUN} --follow --rank-program {ECHO} -n 2 & echo $!; sleep 60"
        shell = self.start("sh", "-c", script)
        pid = int(shell.process.stdout.readline())
        shell.wait_ready(2)
        self.assertTrue(alive(pid))
        shell.process.kill()
        self.assert_gone([pid])

    def test_a_given_token_is_written_nowhere(self):
        env = dict(self.env, DJINN_TOKEN="0a" * 32)
        server = self.run_ranks(env=env)
        self.assertEqual(greeting(server.wait_ready(1)[0])["token"], "0a" * 32)
        self.assertFalse(os.path.exists(f"{self.home}/.djinn"))

    def test_two_servers_share_the_users_token(self):
        servers = [self.run_ranks() for _ in range(6)]  # all make the first token at once
        tokens = {greeting(server.wait_ready(1)[0])["token"] for server in servers}
        later = self.run_ranks()
        tokens.add(greeting(later.wait_ready(1)[0])["token"])
        self.assertEqual(len(tokens), 1)
        self.assertEqual(sorted(os.listdir(f"{self.home}/.djinn")), ["address", "token"])


class Cores(harness.LaunchTest):
    def shares(self, topology, ranks, *words):
        env = dict(self.env, HWLOC_SYNTHETIC=topology)
        server = self.run_ranks("-n", str(ranks), *words, env=env)
        told = {rank: greeting(at) for rank, at in server.wait_ready(ranks).items()}
        return [(int(told[rank]["threads"]), told[rank]["cores"]) for rank in sorted(told)]

    def test_shares(self):
        two_packages = "pack:2 core:8 pu:2"
        self.assertEqual(self.shares(two_packages, 1), [(16, "0-31")])
        self.assertEqual(self.shares(two_packages, 3), [(1, ""), (8, "0-15"), (8, "16-31")])
        self.assertEqual(self.shares(two_packages, 4),
                         [(1, ""), (5, "0-9"), (5, "10-19"), (6, "20-31")])
        self.assertEqual(self.shares("core:2 pu:1", 4), [(1, ""), (1, ""), (1, ""), (1, "")])
        self.assertEqual(self.shares("core:4 pu:1", 3, "--threads", "3"),
                         [(3, ""), (3, "0-1"), (3, "2-3")])

    def test_our_own_binding_is_respected(self):
        cores = sorted(os.sched_getaffinity(0))
        server = self.run_ranks(preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]))
        told = greeting(server.wait_ready(1)[0])
        self.assertEqual((told["threads"], told["cores"]), ("1", str(cores[0])))


def again(address, old_pid):
    """The greeting of a new incarnation; a connection can still fall into the old one's hands."""
    try:
        words = greeting(address)
    except (OSError, AssertionError):
        return None
    return words if words.get("pid", old_pid) != old_pid else None


if __name__ == "__main__":
    harness.main()
