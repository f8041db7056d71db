"""The supervisor's hold on one daemon: a process, and a socket pair that is its standard input.

The daemon sends a line when it is ready, and one for each byte that it is sent: why it cannot start instances, or an
empty one if it can. It ends when the socket pair closes.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress

from faasmoe.util.liveness import TICK, HangJudge, read_state

_START_LOOKS = 120  # until it must be ready
_KILLED_SECONDS = 1.0  # for the kernel to end what was killed
_MOST_BYTES = 4096


class DaemonProcess:
    """For one thread."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        channel.setblocking(False)
        self._process = process
        self._channel = channel
        self._judge = HangJudge()
        self._line = b""  # of which the end has not come
        self._looks = 0
        self._asked = False  # an answer is due
        self._owed = False  # it was at the last look
        self.ready = False
        self.lives = False  # it has answered since
        self.gone = False  # the daemon has closed its end
        self.trouble = ""  # what its last line said

    def fileno(self) -> int:
        """Readable when `hear` has something to do."""
        return self._channel.fileno()

    def hear(self) -> bool:
        """Take what it says. True: it has said something."""
        try:
            data = self._channel.recv(_MOST_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.gone = not data
        *lines, self._line = (self._line + data).split(b"\n")
        if lines:
            self.trouble = lines[-1].decode(errors="replace")
            self.lives = self.ready or len(lines) > 1
            self.ready, self._asked = True, False
        return bool(lines)

    def check(self) -> str:
        """To be called every `TICK`. Returns why the daemon must be taken to hang, "" if it need not be."""
        cause = self._judge.check(read_state(self._process.pid), owes=self._owed and self._asked)
        self._looks += not (self._judge.late or self.ready)
        if self._looks > _START_LOOKS:
            return f"it was not ready within {_START_LOOKS * TICK:g} s"
        if self.ready and not self._asked:
            with suppress(OSError):  # it is about to be gone
                self._channel.send(b"?")
                self._asked = True
        self._owed = self._asked
        return cause

    def end(self, seconds: float) -> int | None:
        """Have it end, and kill it if it does not within so many seconds. Returns its status, if it has ended."""
        self._channel.close()
        for _ in range(max(1, round(seconds / TICK))):
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(TICK if seconds else 0)
            if (state := read_state(self._process.pid)) and state.stopped:
                break
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_KILLED_SECONDS)
        return None
