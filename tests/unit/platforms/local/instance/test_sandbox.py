"""The filter itself, also for machines that this is not."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest

from faasmoe.platforms.local.instance import sandbox
from faasmoe.platforms.local.instance.sandbox import MACHINES, build_filter

X32 = 0x40000000


def verdict(machine: str, deny_writes: bool, name: str | int, *arguments: int, audit: int | None = None) -> str:
    """Interpret the filter as the kernel does."""
    expected, calls = MACHINES[machine]
    number = calls[name] if isinstance(name, str) else name
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, expected if audit is None else audit, 0, *padded)
    program = list(struct.iter_unpack("=HBBI", build_filter(machine, deny_writes)))
    at, word = 0, 0
    while True:
        code, true, false, operand = program[at]
        match code:
            case 0x20:  # load
                (word,) = struct.unpack_from("=I", data, operand)
                at += 1
            case 0x06:  # return
                return {0x7FFF0000: "allow"}.get(operand) or errno.errorcode[operand & 0xFFFF]
            case _:
                holds = {0x15: word == operand, 0x35: word >= operand, 0x45: bool(word & operand)}[code]
                at += 1 + (true if holds else false)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("deny_writes", [False, True])
def test_the_filter_denies_what_it_names_and_nothing_else(machine: str, deny_writes: bool) -> None:
    calls = MACHINES[machine][1]
    names = " ".join(sandbox._FORBIDDEN.values()).split() + sandbox._WRITING.split() * deny_writes
    denied = {calls[name] for name in names if name in calls}
    special = {calls[name] for name in ("clone3", "openat2", "clone") if name in calls}
    for number in range(600):
        if number not in special:
            assert (verdict(machine, deny_writes, number) == "EPERM") == (number in denied), number
    assert verdict(machine, deny_writes, 600, audit=0x40000003) == "EPERM"  # i386
    assert verdict(machine, deny_writes, X32) == "EPERM"


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_looks_at_arguments(machine: str) -> None:
    thread, creating = 0x3D0F00, os.O_CREAT | os.O_RDONLY
    assert verdict(machine, False, "clone", thread) == "allow"
    assert verdict(machine, False, "clone", signal.SIGCHLD) == "EPERM"
    assert verdict(machine, False, "clone3") == "ENOSYS"
    assert (
        verdict(machine, False, "socketpair", socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) == "allow"
    )
    assert verdict(machine, False, "socketpair", socket.AF_UNIX, socket.SOCK_DGRAM) == "EPERM"
    assert verdict(machine, False, "socketpair", socket.AF_INET, socket.SOCK_STREAM) == "EPERM"
    assert verdict(machine, False, "prlimit64", 0, 7, 0) == "allow"
    assert verdict(machine, False, "prlimit64", 0, 7, 1 << 40) == "EPERM"
    assert verdict(machine, False, "prlimit64", 0, 7, 16) == "EPERM"
    assert verdict(machine, False, "ioctl", 2, 0x5413) == "allow"
    assert verdict(machine, False, "ioctl", 2, 0x5412) == "EPERM"
    assert verdict(machine, False, "openat", 0, 0, creating) == "allow"
    assert verdict(machine, True, "openat", 0, 0, creating) == "EPERM"
    assert verdict(machine, True, "openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) == "allow"
    assert verdict(machine, True, "openat2") == "ENOSYS"


@pytest.mark.parametrize(
    ("machine", "header", "prefix"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "__NR_"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", "__NR(?:3264)?_"),
    ],
)
def test_numbers_are_those_of_the_headers(machine: str, header: str, prefix: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"there is no {header}")
    found = re.findall(rf"^#define {prefix}(\w+)\s+(\d+)", Path(header).read_text(), re.MULTILINE)
    numbers = {name: int(number) for name, number in found}
    calls = MACHINES[machine][1]
    known = {name: number for name, number in calls.items() if name in numbers}
    assert known == {name: numbers[name] for name in known}
    assert len(known) > 60
    assert {number for name, number in calls.items() if name not in numbers} <= set(range(430, 500))  # newer


def test_every_name_is_one_of_a_system_call() -> None:
    known = set().union(*(calls for _, calls in MACHINES.values()))
    assert set(sandbox._rules(deny_writes=True)) <= known
