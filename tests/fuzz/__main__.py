"""Fuzz a target for so many seconds, and keep what is worth keeping.

    python -m tests.fuzz headers --seconds 3600

Targets are functions (`targets`): bodies, envelopes, control, headers; and `served`, which sends mutated bodies to a
real server beside a well-behaved tenant. For functions it needs atheris: pip install atheris.

The corpus is replaced by as small a one that reaches as much; an input that crashed stays, as `crash-...`, and ends
the command with 1. One that took too long is run again, since a machine may stand still for seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.coverage import smallest_cover
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import CORPUS, TARGETS

PATIENCE = 5  # seconds for one input
MEGABYTES = 2048  # of the process: torch and transformers take 700 of them
LONGEST = 2048  # bytes of an input
DRAWN = 20_000  # bodies that are looked through for such that bring something new
KEPT = 48  # inputs of a target
LIMITS = [f"-timeout={PATIENCE}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}", "-len_control=0"]
FOUND = ("crash-", "timeout-", "oom-")  # how libFuzzer calls what it has found


def fuzz(target: str, seconds: int, corpus: Path, dictionary: Path) -> bool:
    """Whether nothing was found. `corpus` is replaced."""
    from tests.fuzz.seeds import SEEDS

    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        grown, seeds = Path(scratch) / "grown", Path(scratch) / "seeds"
        for folder in (grown, seeds):
            folder.mkdir()
        for content in SEEDS[target]():
            (seeds / _name(content)).write_bytes(content)
        command = [sys.executable, "-m", "tests.fuzz.runner", target, scratch, *LIMITS]
        command += [f"-artifact_prefix={scratch}/", f"-dict={dictionary}"]
        end, sound, stalled = time.monotonic() + seconds, True, True
        while stalled and (left := int(end - time.monotonic())) > 0:
            aims = [f"-max_total_time={left}", "-print_final_stats=1", *map(str, (grown, seeds, corpus))]
            sound = subprocess.run([*command, *aims], check=False).returncode == 0
            stalled = not sound and _only_stalled(Path(scratch), command)
        found = [file for file in Path(scratch).iterdir() if file.name.startswith(FOUND)]
        for file in found:
            shutil.copy(file, corpus / file.name)
            print(f"found {corpus / file.name}")
        inputs = [file.read_bytes() for folder in (grown, seeds, corpus) for file in folder.iterdir()]
        if target == "bodies":  # in which libFuzzer sees little: pydantic's code is not Python
            inputs += [made for i in range(DRAWN) if (made := mutated(inputs[i % len(inputs)], i, LONGEST))]
        _keep(target, corpus, inputs)
    return (sound or stalled) and not found


def _only_stalled(folder: Path, command: list[str]) -> bool:
    """Whether all that was found took its time because the machine stood still: again, it takes none. Forgets it."""
    slow = list(folder.glob("timeout-*"))
    for file in slow:
        if subprocess.run([*command, str(file)], check=False).returncode:
            return False
        file.unlink()
    return bool(slow) and not any(file.name.startswith(FOUND) for file in folder.iterdir())


def _keep(target: str, corpus: Path, inputs: list[bytes]) -> None:
    chosen = {_name(content): content for content in smallest_cover(TARGETS[target], inputs, KEPT)}
    for file in corpus.iterdir():
        if not file.name.startswith(FOUND):
            file.unlink()
    for name, content in chosen.items():
        (corpus / name).write_bytes(content)
    print(f"{corpus}: {len(chosen)} inputs reach what {len(inputs)} do, {sum(map(len, chosen.values()))} bytes")


def _name(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()[:16]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS, "served"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="folder of inputs; default: tests/corpus/TARGET")
    parser.add_argument("--seed", type=int, default=1, help="for `served`")
    args = parser.parse_args()
    if args.target == "served":
        from tests.fuzz.served import attack

        corpus = args.corpus or CORPUS / "bodies"
        sys.exit(not attack(args.seconds, corpus, args.seed))
    if find_spec("atheris") is None:
        sys.exit("python -m tests.fuzz: atheris is missing; install it with: pip install atheris")
    dictionary = Path(__file__).parent / "words.dict"
    sys.exit(not fuzz(args.target, args.seconds, args.corpus or CORPUS / args.target, dictionary))


if __name__ == "__main__":
    main()
