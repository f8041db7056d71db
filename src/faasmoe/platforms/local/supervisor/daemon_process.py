"""The supervisor's hold on one daemon: a process, and a socket that is its standard input.

They speak through it (`supervision`), and the daemon ends when it closes.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from faasmoe.errors import MessageError
from faasmoe.platforms.local.protocol.supervision import LARGEST_PACKET, AskHealth, HealthReport, pack, read_report
from faasmoe.util.liveness import TICK, HangJudge, ReadState, read_state

log = logging.getLogger(__name__)

_START_LOOKS = 120  # until it must be ready
_KILLED_SECONDS = 1.0  # for the kernel to end what was killed


class DaemonProcess:
    """For one thread."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        clock: Callable[[], float] = time.monotonic,
        read: ReadState = read_state,
    ) -> None:
        """`channel`: our end of the SOCK_SEQPACKET socket that is the daemon's standard input."""
        channel.setblocking(False)
        self._read = read
        self._process = process
        self._channel = channel
        self._judge = HangJudge(clock=clock)
        self._looks = 0
        self._asked = False  # an answer is due
        self._owed = False  # it was at the last look
        self.ready = False
        self.lives = False  # it has answered since
        self.gone = False  # the daemon has closed its end
        self.trouble = ""  # why it cannot start instances, as it has told last; empty if it can

    def fileno(self) -> int:
        """Readable when `hear` has something to do."""
        return self._channel.fileno()

    def hear(self) -> bool:
        """Take a message, if there is one. Returns whether there was one."""
        try:
            packet = self._channel.recv(LARGEST_PACKET)
        except BlockingIOError:
            return False
        except OSError:
            packet = b""
        if not packet:
            self.gone = True
            return False
        try:
            report = read_report(packet)
        except MessageError as error:
            log.error("the platform's daemon sent %s", error)
            self.gone = True  # nothing that it says can be believed
            return False
        self.ready = True
        if isinstance(report, HealthReport):
            self.trouble, self.lives, self._asked = report.trouble, True, False
        return True

    def check(self) -> str:
        """To be called every `TICK`. Returns why the daemon must be taken to hang, "" if it need not be."""
        cause = self._judge.check(self._read(self._process.pid, False), owes=self._owed and self._asked)
        self._looks += not (self._judge.late or self.ready)
        if self._looks > _START_LOOKS:
            return f"it was not ready within {_START_LOOKS * TICK:g} s"
        if self.ready and not self._asked:
            with suppress(OSError):  # it is about to be gone
                self._channel.send(pack(AskHealth()))
                self._asked = True
        self._owed = self._asked
        return cause

    def end(self, seconds: float) -> int | None:
        """Have it end, and kill it if it does not within so many seconds. Returns its status, if it has ended."""
        self._channel.close()
        for _ in range(max(1, round(seconds / TICK))):
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(TICK if seconds else 0)
            if (state := self._read(self._process.pid, False)) and state.stopped:
                break
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_KILLED_SECONDS)
        return None
