"""The tarball: in an empty chroot that holds nothing but libc, and from a folder of another user's."""
import os
import re
import shutil
import subprocess
import sys

import installed
from installed import BUILD, ROOT, SKIPPED, dynamic, elf_files

SIZE_MAX = 60e6
# glibc's own: what a bare system has.
LIBC = ["ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libmvec.so.1", "libdl.so.2", "libpthread.so.0",
        "librt.so.1", "libresolv.so.2", "libutil.so.1"]
# Looked for on the user's system, and done without: PyTorch for the shim, verbs for UCX's ib modules.
FOREIGN = re.compile(r"^lib(torch|c10|ibverbs|rdmacm|mlx5|shm)")

# In a mount namespace of its own: what a kernel gives, then the empty folder as root.
ENTER = """set -e
root=$1; shift
ip link set lo up 2>/dev/null || true
mount -t proc proc "$root/proc"
[ -d "$root/sys" ] && mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o size=1g tmpfs "$root/dev/shm"
exec env -i PATH=/djinn/bin HOME=/home /usr/sbin/chroot "$root" "$@"
"""


class Tarball(installed.PackTest):
    @classmethod
    def setUpClass(cls):
        cls.tarball = os.path.join(BUILD, "test-tarball.tar.gz")
        done = subprocess.run([os.path.join(ROOT, "packaging/tarball"), BUILD, cls.tarball],
                              capture_output=True, text=True, timeout=170)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        print(done.stdout, file=sys.stderr)
        cls.addClassCleanup(os.unlink, cls.tarball)

    def unpack(self, folder):
        os.makedirs(folder)
        self.run_ok("tar", "-xzf", self.tarball, "-C", folder, "--strip-components=1")
        return folder

    def make_root(self):
        root = os.path.join(self.folder, "root")
        for name in ("dev/shm", "proc", "home", "tmp", "lib64", "lib"):
            os.makedirs(os.path.join(root, name))
        os.chmod(os.path.join(root, "tmp"), 0o1777)
        for name in LIBC:
            for place in ("/lib64", "/lib/x86_64-linux-gnu", "/usr/lib64"):
                if os.path.exists(f"{place}/{name}"):
                    folder = "lib64" if name.startswith("ld-") else "lib"
                    shutil.copy(f"{place}/{name}", f"{root}/{folder}/{name}")
                    break
        os.mknod(f"{root}/dev/null", 0o20666, os.makedev(1, 3))
        self.unpack(f"{root}/djinn")
        return root

    def inside(self, root, *argv):
        return self.run_ok("unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork",
                           "--kill-child", "--propagation", "private", "sh", "-c", ENTER, "sh", root,
                           *argv)

    def test_an_empty_chroot_without_sys(self):
        """UCX looks for tcp in /sys: that check alone is left out, and shared memory carries the rest."""
        if os.geteuid() != 0:
            self.skipTest("needs root for a chroot")
        out = self.inside(self.make_root(), "/djinn/bin/djinn-run", "-n", "3", "--", "djinn-selftest")
        self.assertRegex(out.splitlines()[-1], r"^\d\d ok, 0 failed, 1 skipped in ")
        self.assertRegex(out, "(?m)^skipped +tcp ")

    def test_an_empty_chroot(self):
        if os.geteuid() != 0:
            self.skipTest("needs root for a chroot")
        root = self.make_root()
        os.mkdir(f"{root}/sys")
        run = ("djinn-run", "-q", "-n", "3", "--")
        self.assert_selftest(self.inside(root, "/djinn/bin/djinn-run", "-n", "3", "--",
                                         "djinn-selftest"))
        self.assertIn("coordinator", self.inside(root, *run, "djinn", "info"))
        self.assertRegex(self.inside(root, *run, "djinn", "doctor"), r"(?m)^\w+ +ucx +UCX .*tcp/lo")
        self.assertRegex(self.inside(root, *run, "djinn_exec", "-i", "200", "-x", "10"), r"(?m)^add/64 +\d")
        self.assertIn("[       OK ]", self.inside(root, "/djinn/lib/djinn/tests/comm_test_token"))
        self.inside(root, "/djinn/lib/djinn/tests/client_test_requests")
        self.assertEqual(os.listdir(f"{root}/home"), [])

    def test_a_folder_of_a_user(self):
        tree = self.unpack(os.path.join(self.folder, "my own", "djinn 1"))
        more = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        home = os.path.join(self.folder, "home")
        os.mkdir(home, 0o755)
        if more:
            os.chown(home, 65534, 65534)
        out = self.run_ok(f"{tree}/bin/djinn-run", "-q", "-n", "3", "--", f"{tree}/bin/djinn-selftest",
                          env=installed.scrubbed(home), **more)
        self.assert_selftest(out)

    def test_under_mpirun(self):
        """The machine's PMIx is opened by name, and takes the hwloc that is loaded: ours."""
        if not shutil.which("mpirun"):
            self.skipTest("mpirun is not here")
        tree = self.unpack(os.path.join(self.folder, "tree"))
        env = installed.scrubbed(self.folder, OMPI_ALLOW_RUN_AS_ROOT="1",
                                 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        out = self.run_ok("mpirun", "--oversubscribe", "-np", "3", f"{tree}/bin/djinn-run", "--",
                          f"{tree}/bin/djinn-selftest", env=env)
        self.assert_selftest(out)

    def test_from_python(self):
        """Its UCX and everything else come from the tarball, PyTorch and what that has loaded do not."""
        python = os.path.join(ROOT, "build/venv/bin/python")
        tree = self.unpack(os.path.join(self.folder, "tree"))
        if not os.path.exists(f"{tree}/lib/djinn/python") or not os.path.exists(python):
            self.skipTest("the frontend was not built")
        site = os.path.join(self.folder, "site")
        os.mkdir(site)
        with open(f"{site}/djinn.pth", "w") as file:
            file.write(f"{tree}/lib/djinn/python\n")
        words = ("import site, sys; site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.path.pop()); "
                 "import torch, djinn; djinn.connect(); x = torch.ones(3, 4).to('djinn'); "
                 "print((x @ x.t()).cpu().sum()); print(open('/proc/self/maps').read())")
        out = self.run_ok(python, "-P", "-c", words, site)
        self.assertIn("tensor(36.)", out)
        for name in ("libdjinn", "libucp", "libuct_cma", "libsodium"):
            found = set(re.findall(r"(/.*/" + name + r"\.so.*)", out))
            self.assertTrue(found and all(path.startswith(tree) for path in found), found)

    def test_another_ucx_in_the_path_is_left_alone(self):
        tree = self.unpack(os.path.join(self.folder, "tree"))
        wrong = os.path.join(self.folder, "wrong")
        os.mkdir(wrong)
        for name in ("libucp.so.0", "libucs.so.0", "libsodium.so.23", "libhwloc.so.15"):
            with open(f"{wrong}/{name}", "w") as file:
                file.write("no library")
        out = self.run_ok(f"{tree}/bin/djinn-run", "-q", "-n", "2", "--", f"{tree}/bin/djinn-selftest",
                          "--only", "roundtrip", env=installed.scrubbed(self.folder, LD_LIBRARY_PATH=wrong))
        self.assertIn("1 ok", out)

    def test_nothing_is_missing_or_too_new(self):
        tree = self.unpack(os.path.join(self.folder, "tree"))
        self.assertLess(os.path.getsize(self.tarball), SIZE_MAX)
        there = {name for folder in ("lib", "lib/ucx") for name in os.listdir(f"{tree}/{folder}")}
        newest, files = (0, 0), 0
        for path in elf_files(tree):
            files += 1
            for tag, value in dynamic(path):
                if tag == "NEEDED" and not FOREIGN.match(value):
                    self.assertIn(value, there | set(LIBC), path)
                if tag in ("RPATH", "RUNPATH"):
                    self.assertEqual(tag, "RPATH", path)
                    self.assertTrue(all(part.startswith("$ORIGIN") for part in value.split(":")), value)
            symbols = subprocess.run(["objdump", "-T", path], capture_output=True, text=True).stdout
            newest = max([newest] + [(int(a), int(b)) for a, b in
                                     re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)])
            sections = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True).stdout
            self.assertNotIn(".debug_info", sections, path)
        self.assertGreater(files, 80)
        self.assertLessEqual(newest, (2, 36))
        with open(f"{tree}/share/doc/djinn/licences/LIBRARIES") as file:
            text = file.read().split()
        bundled = {name for name in there if ".so." in name and not name.startswith("libdjinn")}
        self.assertEqual({os.path.basename(name) for name in text}, bundled)


if __name__ == "__main__":
    if "Tarball" in sys.argv and not shutil.which("patchelf"):
        sys.exit(SKIPPED)
    installed.main()
