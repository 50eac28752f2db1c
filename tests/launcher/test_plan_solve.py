"""djinn plan solve: wrong words and malformed files first, then answers looked at row by row."""
import os
import random
import signal
import subprocess
import time

import harness
from harness import BIN

DJINN = os.path.join(BIN, "djinn")


def cut(seed, times, height, count):
    """A rectangle of time and space cut at random: full at all times."""
    chance = random.Random(seed)
    pieces = [(0, times, 0, height)]
    while len(pieces) < count:
        at = chance.randrange(len(pieces))
        lower, upper, low, high = pieces[at]
        if chance.random() < 0.5 and upper - lower > 1:
            middle = chance.randrange(lower + 1, upper)
            halves = [(lower, middle, low, high), (middle, upper, low, high)]
        elif high - low > 1:
            middle = chance.randrange(low + 1, high)
            halves = [(lower, upper, low, middle), (lower, upper, middle, high)]
        else:
            continue
        pieces[at:at + 1] = halves
    chance.shuffle(pieces)
    return [(lower, upper, high - low) for lower, upper, low, high in pieces]


class Solve(harness.LaunchTest):
    foreign = True

    def file(self, text, mode="w"):
        path = os.path.join(self.home, "rows.csv")
        with open(path, mode) as out:
            out.write(text)
        return path

    def rows(self, rects):
        return self.file("id,lower,upper,size\n" + "".join(
            f"b{i},{lower},{upper},{size}\n" for i, (lower, upper, size) in enumerate(rects)))

    def solve(self, *words):
        return self.finish(DJINN, "plan", "solve", *words)

    def refused(self, path, *wanted):
        code, out, err = self.solve(path, "--capacity", "10")
        self.assertEqual((code, out), (2, ""), err)
        self.assertEqual(err.count("\n"), 1, err)
        for words in wanted:
            self.assertIn(words, err)

    def check(self, rects, capacity, out):
        lines = out.splitlines()
        self.assertEqual(lines[0], "id,lower,upper,size,offset")
        self.assertEqual(len(lines), len(rects) + 1)
        placed = []
        for i, (line, rect) in enumerate(zip(lines[1:], rects)):
            name, *numbers = line.split(",")
            lower, upper, size, offset = map(int, numbers)
            self.assertEqual((name, lower, upper, size), (f"b{i}", *rect))
            self.assertLessEqual(offset + size, capacity)
            placed.append((lower, upper, offset, offset + size))
        for i, a in enumerate(placed):
            for b in placed[:i]:
                self.assertFalse(a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3])

    def test_wrong_use(self):
        path = self.rows([(0, 1, 1)])
        for words in ([], [path], ["--capacity", "5"], [path, "--capacity"],
                      [path, "--capacity", "x"], [path, "--capacity", "-1"],
                      [path, "--capacity", "9223372036854775808"], [path, "--capacity", "5", "x"],
                      [path, "--capacity", "5", "--time"], [path, "--capacity", "5", "--time", "0"],
                      [path, "--capacity", "5", "--time", "nan"],
                      [path, "--capacity", "5", "--json"]):
            with self.subTest(words=words):
                code, out, err = self.solve(*words)
                self.assertEqual((code, out), (2, ""))
                self.assertNotEqual(err, "")

    def test_malformed(self):
        head = "id,lower,upper,size\n"
        self.refused(os.path.join(self.home, "none.csv"), "cannot open")
        self.refused(self.home, "cannot read")
        self.refused(self.file(""), "empty")
        self.refused(self.file("1,2,3,4\n"), "line 1", "lower")
        self.refused(self.file("id,lower,upper\n"), "line 1", "size")
        self.refused(self.file("id,lower,lower,upper,size\n"), "line 1", "two columns")
        self.refused(self.file("id,lower,upper,size,offset\n"), "line 1", "offset")
        self.refused(self.file(head + "a,0,1,1\nb,0,1\n"), "line 3", "3 columns")
        self.refused(self.file(head + "a,0,1,1,1\n"), "line 2", "5 columns")
        self.refused(self.file(head + "a,0,one,1\n"), "line 2, column 3", "'one'")
        self.refused(self.file(head + "a,0,-1,1\n"), "line 2, column 3")
        self.refused(self.file(head + "a,0,1,\n"), "line 2, column 4", "missing")
        self.refused(self.file(head + "a,5,4,1\n"), "line 2, column 3", "before lower")
        self.refused(self.file(head + "a,0,1,99999999999999999999\n"), "line 2, column 4", "2^62")
        self.refused(self.file(b"id,lower,upper,size\na,0,1\0,1\n", "wb"), "zero byte")
        self.refused(self.file(head + "a,0,1,1\n" * 140000), "more than 131072 rows")

    def test_answers(self):
        self.check([], 0, self.solve(self.file("id,lower,upper,size\n"), "--capacity", "0")[1])
        # half-open: the second begins when the first ends; what has no time or no size takes none
        rects = [(0, 5, 10), (5, 9, 10), (3, 3, 7), (0, 9, 0)]
        code, out, err = self.solve(self.rows(rects), "--capacity", "10")
        self.assertEqual((code, err), (0, ""))
        self.check([(0, 5, 10), (5, 9, 10)], 10, "\n".join(out.splitlines()[:3]))
        # columns in another order, one more, and the line ends of another system
        path = self.file("size,name,upper,lower\r\n4,x,2,0\r\n4,y,2,0\r\n")
        code, out, err = self.solve(path, "--capacity", "8")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(sorted(line.rsplit(",", 1)[1] for line in out.splitlines()[1:]),
                         ["0", "4"])

    def test_perfect(self):
        for seed, count in ((1, 100), (2, 300)):
            rects = cut(seed, 2000, 1 << 20, count)
            code, out, err = self.solve(self.rows(rects), "--capacity", str(1 << 20),
                                        "--time", "20")
            self.assertEqual((code, err), (0, ""))
            self.check(rects, 1 << 20, out)

    def test_nothing_fits(self):
        rects = cut(3, 100, 1000, 40)
        code, out, err = self.solve(self.rows(rects), "--capacity", "999")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("no placement", err)
        # too hard for its time
        path = self.rows(cut(4, 60, 99991, 2000))
        began = time.monotonic()
        code, out, err = self.solve(path, "--capacity", "99991", "--time", "0.2")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("more --time", err)
        self.assertLess(time.monotonic() - began, 20)

    def test_interrupt(self):
        path = self.rows(cut(4, 60, 99991, 2000))
        process = subprocess.Popen([DJINN, "plan", "solve", path, "--capacity", "99991"],
                                   env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual((process.returncode, out), (128 + signal.SIGINT, ""))
        self.assertIn("stopped", err)


if __name__ == "__main__":
    harness.main()
