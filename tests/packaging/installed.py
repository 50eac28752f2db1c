"""What the tests of packages share: a build, its tarball made once, folders that go away."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("PACK_BUILD", "")
LIMIT_S = 120
SKIPPED = 77


def scrubbed(home, **extra):
    """Only what a login gives."""
    return {"PATH": "/usr/bin:/bin", "HOME": home, "LC_ALL": "C", **extra}


def elf_files(folder):
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def dynamic(path):
    """(tag, value) of an ELF file's dynamic section."""
    text = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        if "[" in line:
            yield line.split("(")[1].split(")")[0], line.split("[")[1].split("]")[0]


class PackTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="djinn pack ")  # with blanks: they must not matter
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o755)

    def run_ok(self, *argv, env=None, **options):
        done = subprocess.run(argv, env=env or scrubbed(self.folder), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, **options)
        self.assertEqual(done.returncode, 0, f"{argv}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def assert_selftest(self, out):
        self.assertRegex(out.splitlines()[-1], r"^\d\d ok, 0 failed, 0 skipped in ")


def main():
    if not os.path.exists(os.path.join(BUILD, "CMakeCache.txt")):
        sys.exit("PACK_BUILD must name a build folder")
    unittest.main(verbosity=2)
