"""The context to serve: the least of the model's, of --max-model-len, and of what the KV cache memory holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from faasmoe.engine.kv.allocator import budget
from faasmoe.errors import OptionError
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.protocol.config import EngineOptions

log = logging.getLogger(__name__)

_RECORD = "kv-cache-memory"  # file in the folder that a gateway shares with its templates
_LEAST = 2  # tokens: one of a prompt, and one of a completion
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class KVShare:
    """The KV cache memory of a server, and how many orchestrators share it."""

    nbytes: int  # for all orchestrators together
    orchestrators: int  # that share it
    stated: bool  # by --kv-cache-memory, or else a part of what was available

    @classmethod
    def of(cls, options: EngineOptions, orchestrators: int, folder: Path) -> KVShare:
        """The memory that `options` give, or else a part of the memory that was available at the server's start.

        The first process of a server writes that down in `folder`, because available memory changes and the context
        that clients know must not. Raises `OSError`.
        """
        if options.kv_cache_bytes is not None:
            return cls(options.kv_cache_bytes, orchestrators, stated=True)
        record = folder / _RECORD
        if not record.exists():
            draft = record.with_suffix(".new")
            draft.write_text(str(budget(options)))
            draft.rename(record)
        return cls(int(record.read_text()), orchestrators, stated=False)

    @property
    def each(self) -> int:
        """Bytes of one orchestrator."""
        return max(1, self.nbytes // self.orchestrators)

    def context(self, model: int, asked: int | None, spec: StateSpec) -> int:
        """The context to serve, in tokens, of a model whose sequences keep what `spec` says.

        `model` is how many the model takes, `asked` how many --max-model-len does. Raises `OptionError` if `asked` are
        more than fit.
        """
        held = spec.tokens_within(self.each)
        if held < _LEAST:
            raise OptionError(
                f"the KV cache ({self._described()}) holds {held} tokens of this model: "
                f"--kv-cache-memory must be {self._needed(spec.nbytes(_LEAST))} at least"
            )
        if asked is not None and asked > held:
            raise OptionError(
                f"--max-model-len {asked}: the KV cache ({self._described()}) holds {held} tokens: "
                f"must be {held} at most, or --kv-cache-memory {self._needed(spec.nbytes(asked))} at least"
            )
        wanted = model if asked is None else asked
        if wanted > held:
            log.warning("context: %d of the model's %d tokens: the KV cache (%s) holds no more; "
                        "--kv-cache-memory %s holds all of it",
                        held, model, self._described(), self._needed(spec.nbytes(model)))  # fmt: skip
        else:
            log.info("context: %d of the model's %d tokens; the KV cache (%s) holds %d",
                     wanted, model, self._described(), held)  # fmt: skip
        return min(wanted, held)

    def _described(self) -> str:
        source = "--kv-cache-memory" if self.stated else "a part of the memory that was available"
        shared = f", shared by {self.orchestrators} orchestrators" if self.orchestrators > 1 else ""
        return f"{self.nbytes // _MIB} MiB, {source}{shared}"

    def _needed(self, each: int) -> str:
        """The value of --kv-cache-memory that gives each orchestrator so many bytes."""
        return f"{-(-each * self.orchestrators // _MIB)}MiB"
