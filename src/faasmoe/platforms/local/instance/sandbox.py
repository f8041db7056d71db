"""What an instance gives up before it runs a function: files to write, sockets to make, programs to start.

An instance reads weights, computes, and talks over descriptors that it is given. It needs nothing else, so nothing
else is left to it, whatever a payload or a checkpoint makes it do. Four mechanisms of the kernel, each of which
holds without the others; what a kernel does not have is logged once, and instances start nevertheless:

- Landlock denies writing, making and removing files, running them, TCP, and signals to processes outside.
- A seccomp filter denies system calls that no function needs. It covers what Landlock leaves open (modes, owners,
  attributes and times of files) and, where Landlock cannot keep files from being written, that too.
- `RLIMIT_DATA` makes an allocation that runs away fail in this process instead of pressing on the machine.
- A high `oom_score_adj` offers an instance to the kernel before anything that cannot be started again.

Reading stays allowed: an instance reads any file that its user can. So does receiving descriptors, which keep the
rights that they were opened with.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

log = logging.getLogger(__name__)

DATA_HEADROOM = 1 << 30  # bytes
_LIBC = ctypes.CDLL(None, use_errno=True)
_OOM_SCORE, _OOM_SCORE_ADJ = 800, "/proc/self/oom_score_adj"  # of 1000; proc(5)
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h

# linux/landlock.h
_RULE_PATH_BENEATH, _CREATE_RULESET_VERSION = 1, 1
_EXECUTE, _WRITE_FILE, _REMOVE_AND_MAKE = 1 << 0, 1 << 1, 0x1FF0  # the last: REMOVE_DIR (bit 4) to MAKE_SYM (12)
# by the ABI that brought them: REFER, TRUNCATE, IOCTL_DEV; BIND_TCP, CONNECT_TCP; ABSTRACT_UNIX_SOCKET, SIGNAL
_FILES = {1: _EXECUTE | _WRITE_FILE | _REMOVE_AND_MAKE, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK, _SCOPES = {4: 1 << 0 | 1 << 1}, {6: 1 << 0 | 1 << 1}
_KEEPS_FILES, _KEEPS_SIGNALS = 3, 6  # before the first, files can be truncated
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # asm-generic/unistd.h, the same everywhere

# System calls that always fail. Landlock has no right for those of `attributes`.
_FORBIDDEN = {
    "sockets": "socket connect bind listen",
    "programs": "execve execveat fork vfork",
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd pidfd_send_signal",
    "attributes": """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setxattr lsetxattr fsetxattr
        setxattrat removexattr lremovexattr fremovexattr removexattrat utime utimes futimesat utimensat
        file_setattr""",
    "mounts": """mount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick
        mount_setattr unshare setns""",
    "kernel": """bpf perf_event_open userfaultfd add_key request_key keyctl io_uring_setup init_module finit_module
        delete_module kexec_load kexec_file_load reboot swapon swapoff acct iopl ioperm open_by_handle_at""",
    "higher limits, and memory that outlives its maker": "setrlimit shmget msgget semget mq_open",
}
_WRITING = """creat truncate unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod mknodat link
    linkat symlink symlinkat"""

# asm/unistd_64.h and asm-generic/unistd.h; those of later years have the same number everywhere
_X86_64 = """socket=41 connect=42 bind=49 listen=50 socketpair=53 clone=56 fork=57 vfork=58 execve=59 execveat=322
    ptrace=101 process_vm_readv=310 process_vm_writev=311 setrlimit=160 prlimit64=302 ioctl=16 chmod=90 fchmod=91
    fchmodat=268 chown=92 fchown=93 lchown=94 fchownat=260 setxattr=188 lsetxattr=189 fsetxattr=190
    removexattr=197 lremovexattr=198 fremovexattr=199 utime=132 utimes=235 futimesat=261 utimensat=280 mount=165
    umount2=166 pivot_root=155 chroot=161 unshare=272 setns=308 bpf=321 perf_event_open=298 userfaultfd=323
    add_key=248 request_key=249 keyctl=250 init_module=175 finit_module=313 delete_module=176 kexec_load=246
    kexec_file_load=320 reboot=169 swapon=167 swapoff=168 acct=163 iopl=172 ioperm=173 open_by_handle_at=304
    shmget=29 msgget=68 semget=64 mq_open=240 open=2 openat=257 creat=85 truncate=76 unlink=87 unlinkat=263
    rename=82 renameat=264 renameat2=316 mkdir=83 mkdirat=258 rmdir=84 mknod=133 mknodat=259 link=86 linkat=265
    symlink=88 symlinkat=266 seccomp=317"""
_AARCH64 = """socket=198 connect=203 bind=200 listen=201 socketpair=199 clone=220 execve=221 execveat=281
    ptrace=117 process_vm_readv=270 process_vm_writev=271 setrlimit=164 prlimit64=261 ioctl=29 fchmod=52
    fchmodat=53 fchown=55 fchownat=54 setxattr=5 lsetxattr=6 fsetxattr=7 removexattr=14 lremovexattr=15
    fremovexattr=16 utimensat=88 mount=40 umount2=39 pivot_root=41 chroot=51 unshare=97 setns=268 bpf=280
    perf_event_open=241 userfaultfd=282 add_key=217 request_key=218 keyctl=219 init_module=105 finit_module=273
    delete_module=106 kexec_load=104 kexec_file_load=294 reboot=142 swapon=224 swapoff=225 acct=89
    open_by_handle_at=265 shmget=194 msgget=186 semget=190 mq_open=180 openat=56 truncate=45 unlinkat=35
    renameat=38 renameat2=276 mkdirat=34 mknodat=33 linkat=37 symlinkat=36 seccomp=277"""
_EVERYWHERE = """clone3=435 process_madvise=440 pidfd_getfd=438 pidfd_send_signal=424 fchmodat2=452 setxattrat=463
    removexattrat=466 file_setattr=469 move_mount=429 open_tree=428 open_tree_attr=467 fsopen=430 fsconfig=431
    fsmount=432 fspick=433 mount_setattr=442 io_uring_setup=425 openat2=437"""


def _machine(audit: int, table: str) -> tuple[int, dict[str, int]]:
    entries = (entry.partition("=") for entry in f"{table} {_EVERYWHERE}".split())
    return audit, {name: int(number) for name, _, number in entries}


# linux/audit.h, AUDIT_ARCH_*, and the numbers of system calls
MACHINES = {"x86_64": _machine(0xC000003E, _X86_64), "aarch64": _machine(0xC00000B7, _AARCH64)}

# linux/bpf_common.h: load a word of the argument, compare it with the operand, return the operand
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # linux/seccomp.h, struct seccomp_data
_WORD, _FOREIGN = 0xFFFFFFFF, 0x40000000  # the latter: asm/unistd.h, __X32_SYSCALL_BIT

Code = list[tuple[int, int, int, int]]  # linux/filter.h, struct sock_filter: code, jumps if true and not, operand
_ALLOW: Code = [(_RETURN, 0, 0, 0x7FFF0000)]  # linux/seccomp.h, SECCOMP_RET_ALLOW
_DENY: Code = [(_RETURN, 0, 0, 0x00050000 | errno.EPERM)]  # SECCOMP_RET_ERRNO
_LACK: Code = [(_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)]


def _if(argument: int, test: int, operand: int, then: Code = _DENY, other: Code = _ALLOW, half: int = 0) -> Code:
    """Look at one half of an argument, the low one by default."""
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4 * half), (test, 0, len(then), operand), *then, *other]


def _rules(deny_writes: bool) -> dict[str, Code]:
    """What becomes of each system call that is not simply allowed."""
    rules = {name: _DENY for names in _FORBIDDEN.values() for name in names.split()}
    rules["clone"] = _if(0, _ANY_BIT, 0x10000, _ALLOW, _DENY)  # linux/sched.h, CLONE_THREAD
    rules["clone3"] = _LACK  # its flags are in memory, out of a filter's sight; libc turns to clone
    # connected pairs of unix streams; a datagram socket could be used to send to any other
    rules["socketpair"] = _if(0, _ANY_BIT, ~1 & _WORD, _DENY, _if(1, _ANY_BIT, 0xE))
    rules["prlimit64"] = _if(2, _ANY_BIT, _WORD, _DENY, _if(2, _ANY_BIT, _WORD, half=1))  # reading is allowed
    # asm-generic/ioctls.h: TIOCSTI and TIOCLINUX type into the terminal that stderr may be
    rules["ioctl"] = _if(1, _EQUAL, 0x5412, _DENY, _if(1, _EQUAL, 0x541C))
    if deny_writes:
        rules |= dict.fromkeys(_WRITING.split(), _DENY)
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        rules |= {"open": _if(1, _ANY_BIT, writing), "openat": _if(2, _ANY_BIT, writing)}
        rules["openat2"] = _LACK
    return rules


def build_filter(machine: str, deny_writes: bool) -> bytes:
    """The seccomp filter, an array of `struct sock_filter`."""
    audit, calls = MACHINES[machine]
    rules = {calls[name]: code for name, code in _rules(deny_writes).items() if name in calls}
    starts = [(0, _ALLOW)]
    for number in sorted(rules):  # between two rules all is allowed
        if rules[number] != starts[-1][1]:
            starts.append((number, rules[number]))
        if number + 1 not in rules:
            starts.append((number + 1, _ALLOW))
    starts.append((_FOREIGN, _DENY))
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, audit), *_DENY, (_LOAD, 0, 0, _NUMBER), *_search(starts)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _search(starts: list[tuple[int, Code]]) -> Code:
    """Find by halving what applies to a number: each entry holds from its own up to the next one's."""
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    low, high = _search(starts[:middle]), _search(starts[middle:])
    return [(_AT_LEAST, len(low), 0, starts[middle][0]), *low, *high]


def _call(number: int, *arguments: int | bytes) -> int:
    """A system call; bytes are what a pointer points to, and are only read. Raises `OSError`."""
    result: int = _LIBC.syscall(*(a if isinstance(a, bytes) else ctypes.c_long(a) for a in (number, *arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _deny_gaining_privileges() -> None:
    """Nothing that is executed gives rights; the kernel asks for this before it takes the two below."""
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_long, (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def _restrict_files(abi: int) -> None:
    """Landlock: every right to change a file that the kernel knows, but for writing to /dev/null."""
    handled = [sum(r for since, r in rights.items() if since <= abi) for rights in (_FILES, _NETWORK, _SCOPES)]
    attributes = struct.pack("=3Q", *handled)  # struct landlock_ruleset_attr
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        null = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", _WRITE_FILE, null)  # struct landlock_path_beneath_attr
            _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(null)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _filter_calls(seccomp: int, program: bytes) -> None:
    """Install a filter, but without the mitigations that kernels before 5.16 would slow all arithmetic with."""
    set_mode_filter, spec_allow = 1, 1 << 2  # linux/seccomp.h
    address = ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p).value
    _call(seccomp, set_mode_filter, spec_allow, struct.pack("HP", len(program) // 8, address))  # struct sock_fprog


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def _leave_no_core() -> None:
    """A core dump would hold activations. The filter is for those that go into a pipe, past the limit: core(5)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(FileNotFoundError):  # a kernel that dumps nothing
        _write("/proc/self/coredump_filter", b"0")


def _data_limit(headroom: int) -> int:
    """`headroom` bytes of private memory more than this process has, as far as its own limit goes."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # proc(5): data and stack
    limit = pages * resource.getpagesize() + headroom
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


@dataclass(frozen=True)
class Sandbox:
    """What instances give up on this machine."""

    steps: tuple[Callable[[], None], ...]
    landlock_abi: int = 0  # 0: there is none
    filtered: bool = False  # by seccomp

    def enter(self) -> None:
        """Give it up, in a process of one thread and for good. A step that fails is logged."""
        for step in self.steps:
            try:
                step()
            except (OSError, ValueError) as error:
                log.warning("instance %d gives up less than it should: %s", os.getpid(), error)


def _trial(*steps: Callable[[], None]) -> None:
    """Take steps on a thread that ends: they bind only the thread that takes them. Raises what they raise."""
    failures: list[OSError] = []

    def take() -> None:
        try:
            for step in steps:
                step()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _usable_landlock() -> int:
    """Its ABI, or 0."""
    try:
        abi = _call(_CREATE_RULESET, 0, 0, _CREATE_RULESET_VERSION)
        _trial(_deny_gaining_privileges, partial(_restrict_files, abi))
    except OSError as error:
        log.warning("no Landlock (%s): instances can signal this user's processes and read their memory", error)
        return 0
    if abi < _KEEPS_SIGNALS:
        log.warning("Landlock ABI %d has no scopes: instances can signal this user's processes", abi)
    return abi


def _usable_filter(deny_writes: bool) -> Callable[[], None] | None:
    """What installs the filter, if that can be done."""
    machine = os.uname().machine
    try:
        if machine not in MACHINES or sys.maxsize < 1 << 32:  # a 32-bit process calls by other numbers
            raise OSError(errno.ENOSYS, f"not written for {machine} of {struct.calcsize('P') * 8} bits")
        step = partial(_filter_calls, MACHINES[machine][1]["seccomp"], build_filter(machine, deny_writes))
        _trial(_deny_gaining_privileges, step)
    except OSError as error:
        files = "write files" if deny_writes else "change modes and owners of files"
        log.warning("no seccomp filter (%s): instances can open sockets, start processes and %s", error, files)
        return None
    return step


def prepare(data_headroom: int = DATA_HEADROOM) -> Sandbox:
    """Find out what this kernel offers, and log what it lacks. To be called before instances are forked.

    `data_headroom`: bytes of private memory that an instance may have more than this process has now.
    """
    steps: list[Callable[[], None]] = [_leave_no_core]
    try:
        score = max(_OOM_SCORE, int(Path(_OOM_SCORE_ADJ).read_text()))
        limit = _data_limit(data_headroom)
        steps.append(partial(_write, _OOM_SCORE_ADJ, b"%d" % score))
        steps.append(partial(resource.setrlimit, resource.RLIMIT_DATA, (limit, limit)))
    except OSError as error:
        log.warning("no usable /proc (%s): instances' memory is not limited, nor taken first", error)
    steps.append(_deny_gaining_privileges)
    if abi := _usable_landlock():
        steps.append(partial(_restrict_files, abi))
    if install := _usable_filter(deny_writes=abi < _KEEPS_FILES):
        steps.append(install)
    return Sandbox(tuple(steps), abi, install is not None)
