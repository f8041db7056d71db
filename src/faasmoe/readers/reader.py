"""A process that reads bodies, one after the other, within limits of memory and time, and may die of it.

Templates are programs that come with a checkpoint, and tokenizers are C code fed with whatever users write. What they
do here they do to this process alone.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faasmoe.api.parsed_request import EndpointName, ParsedRequest
from faasmoe.errors import MessageError, RequestError
from faasmoe.readers.messages import LARGEST, LENGTH, Answer, Done, Job, Refused, frame, read_job

MEMORY = 768 << 20  # bytes that a reader may take beyond what it begins with; 4 MiB of text need some 500 MiB
_GROWN = 48 << 20  # bytes beyond which a reader ends, so that they are given back
_PAGE = os.sysconf("SC_PAGESIZE")

Read = Callable[[EndpointName, bytes], ParsedRequest[Any]]


class GatewayLeft(Exception):
    """Nobody sends bodies any more."""


def run(gateway: socket.socket, read: Read) -> None:
    """Answer jobs until the gateway hangs up, or this process has grown."""
    confine()
    begun = _resident()
    while True:
        job = receive(gateway)
        signal.setitimer(signal.ITIMER_PROF, job.cpu_seconds)  # its signal ends the process
        answer = _answer(read, job)
        signal.setitimer(signal.ITIMER_PROF, 0)
        last = _resident() - begun > _GROWN
        send(gateway, answer(last))
        if last:
            return


def confine() -> None:
    """Bound this process's memory. The kernel bounds what the interpreter cannot: a loop in C, a stack of templates."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = size + MEMORY
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _answer(read: Read, job: Job) -> Callable[[bool], Answer]:
    try:
        asked = read(job.kind, job.body)
    except RequestError as error:
        refused = error  # a name that lasts
        return lambda last: Refused(_text(str(refused)), refused.param, refused.code, last)
    except MemoryError:
        return lambda _: Refused(too_much_memory(), None, None, last=True)
    return lambda last: Done(asked, last)


def too_much_memory() -> str:
    """The error of a body that took more memory than a reader may."""
    return f"to read this request takes more than {MEMORY >> 20} MiB of memory"


def _text(message: str) -> str:
    return message.encode(errors="backslashreplace").decode()  # it may quote what is not Unicode


def receive(gateway: socket.socket) -> Job:
    """The next job. Raises `GatewayLeft` or `MessageError`."""
    (length,) = LENGTH.unpack(_exactly(gateway, LENGTH.size))
    if length > LARGEST:
        raise MessageError(f"a message of {length} bytes was announced, {LARGEST} are the limit")
    return read_job(_exactly(gateway, length))


def send(gateway: socket.socket, answer: Answer) -> None:
    """Raises `GatewayLeft`."""
    try:
        gateway.sendall(frame(answer))
    except OSError as error:
        raise GatewayLeft from error


def _exactly(gateway: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view, at = memoryview(data), 0
    while at < length:
        try:
            got = gateway.recv_into(view[at:])
        except OSError as error:
            raise GatewayLeft from error
        if got == 0:
            raise GatewayLeft
        at += got
    return data


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
