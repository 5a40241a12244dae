"""A program in a terminal that the test made: what is on its screen, its size, its keys."""
import fcntl
import os
import pty
import select
import struct
import termios
import time

import pyte


class Terminal:
    """Runs `argv` in a pseudo-terminal of that size, and keeps its screen as a terminal emulator has it."""

    def __init__(self, argv, columns=80, lines=24, env=None):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.status = None
        self.raw = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})})
        self.resize(columns, lines)

    def resize(self, columns, lines):
        """The kernel tells the program with SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def modes(self):
        """The terminal's line discipline, as tcgetattr gives it."""
        return termios.tcgetattr(self.master)

    def read(self, seconds=0.1):
        """Takes what the program wrote within that time; False when it has closed the terminal."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.raw += data
        self.stream.feed(data)
        return bool(data)

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, what, condition, seconds=120):
        """Reads until `condition(text)` is true; fails with the screen."""
        end = time.monotonic() + seconds
        while not condition(self.text()):
            if not self.read() or time.monotonic() > end:
                raise AssertionError(f"never: {what}; the screen:\n{self.text()}")
        return self.text()

    def press(self, keys):
        os.write(self.master, keys)

    def wait_exit(self, seconds=60):
        """The program's exit code; a negative one is a signal."""
        end = time.monotonic() + seconds
        while self.status is None:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise AssertionError(f"it does not end; the screen:\n{self.text()}")
        while self.read(0):
            if not select.select([self.master], [], [], 0)[0]:
                break
        return self.status

    def close(self):
        """Ends the program, if the test has not, and gives the terminal back."""
        if self.status is None:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
            self.status = -9
        os.close(self.master)
