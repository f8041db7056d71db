from __future__ import annotations

import os

from faasmoe.experts.kernels.cpu import Cpu

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9554
stepping\t: 1
microcode\t: 0xa101154
flags\t\t: fpu avx2 avx512f
bugs\t\t: sysret_ss_attrs

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimddp i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1

"""


def test_a_processor_is_known_by_its_name_and_microcode() -> None:
    assert Cpu.parse("x86_64", X86.splitlines()) == (
        "x86_64",
        "AMD EPYC 9554, microcode 0xa101154",
        {"fpu", "avx2", "avx512f"},
    )


def test_aarch64_has_numbers_and_its_own_word_for_flags() -> None:
    told = Cpu.parse("aarch64", ARM.splitlines())
    assert told.model == "CPU implementer 0x41, CPU part 0xd40, CPU variant 0x1, CPU revision 1"
    assert told.flags == {"fp", "asimd", "asimddp", "i8mm", "bf16"}


def test_a_kernel_that_tells_nothing_leaves_no_flags() -> None:
    assert Cpu.parse("x86_64", []) == ("x86_64", "of unknown model", frozenset())


def test_this_machine_has_one() -> None:
    here = Cpu.here()
    assert here.architecture == os.uname().machine
    assert here.flags
