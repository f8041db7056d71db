"""The processor of this machine, as /proc/cpuinfo tells of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

_FLAGS = ("flags", "Features")  # as x86-64 and aarch64 call them
_MODEL = ("model name", "CPU implementer", "CPU part", "CPU variant", "CPU revision", "microcode")


class Cpu(NamedTuple):
    """One of its cores; the others are taken to be alike."""

    architecture: str  # as uname(2) has it: x86_64, aarch64
    model: str  # x86-64: name and microcode; aarch64: numbers of its maker
    flags: frozenset[str]

    @classmethod
    def here(cls) -> Cpu:
        """Of this machine. Reads of the first core alone, since machines with many take long to tell of all."""
        with open("/proc/cpuinfo", errors="replace") as lines:
            return cls.parse(os.uname().machine, lines)

    @classmethod
    def parse(cls, architecture: str, lines: Iterable[str]) -> Cpu:
        """`lines`: those of /proc/cpuinfo, up to the first core's last one at least."""
        facts: dict[str, str] = {}
        for line in lines:
            name, found, value = line.partition(":")
            if found:
                facts[name.strip()] = value.strip()
            elif facts:
                break
        told = [f"{name} {facts[name]}" if i else facts[name] for i, name in enumerate(_MODEL) if name in facts]
        flags = next((facts[name] for name in _FLAGS if name in facts), "")
        return cls(architecture, ", ".join(told) or "of unknown model", frozenset(flags.split()))
