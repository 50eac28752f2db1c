"""The Debian package: what it says of itself, and that it comes and goes without a trace."""
import glob
import os
import shutil
import subprocess
import sys

import installed
from installed import BUILD, SKIPPED


class Deb(installed.PackTest):
    @classmethod
    def setUpClass(cls):
        cls.made = os.path.join(BUILD, "test-deb")
        done = subprocess.run(["cpack", "-G", "DEB", "-B", cls.made], cwd=BUILD, capture_output=True,
                              text=True, timeout=170)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        cls.addClassCleanup(shutil.rmtree, cls.made)
        cls.deb, = glob.glob(f"{cls.made}/*.deb")

    def field(self, name):
        return self.run_ok("dpkg-deb", "-f", self.deb, name).strip()

    def test_what_it_says(self):
        self.assertEqual(self.field("Package"), "djinn")
        depends = self.field("Depends")
        for name in ("libc6", "libucx0", "libhwloc15", "libsodium23", "libdnnl2", "libjansson4"):
            self.assertIn(name, depends)
        for name in ("torch", "libdjinn"):
            self.assertNotIn(name, depends)
        listed = self.run_ok("dpkg-deb", "-c", self.deb)
        self.assertIn("./usr/bin/djinn-rank", listed)
        self.assertIn("./usr/share/man/man1/djinn.1.gz", listed)
        for line in listed.splitlines():
            self.assertRegex(line, r"^[dl-]r.. ?.*root/root ", line)
            self.assertNotIn(BUILD, line)

    def test_it_comes_and_goes(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        root = os.path.join(self.folder, "root")
        os.makedirs(f"{root}/var/lib/dpkg/info")
        os.makedirs(f"{root}/var/lib/dpkg/updates")
        # This machine's packages are taken for installed there, so that dependencies are looked at.
        shutil.copy("/var/lib/dpkg/status", f"{root}/var/lib/dpkg/status")
        dpkg = ("dpkg", f"--root={root}", "--force-script-chrootless", "--no-triggers", "--log=/dev/null")
        env = installed.scrubbed(self.folder, PATH="/usr/sbin:/usr/bin:/sbin:/bin")
        self.run_ok(*dpkg, "-i", self.deb, env=env)
        out = self.run_ok(f"{root}/usr/bin/djinn-run", "-q", "-n", "3", "--",
                          f"{root}/usr/bin/djinn-selftest")
        self.assert_selftest(out)
        self.run_ok(*dpkg, "-r", "djinn", env=env)
        left = [name for parent, _, names in os.walk(f"{root}/usr") for name in names]
        self.assertEqual(left, [])


if __name__ == "__main__":
    if not shutil.which("dpkg-shlibdeps"):
        sys.exit(SKIPPED)
    installed.main()
