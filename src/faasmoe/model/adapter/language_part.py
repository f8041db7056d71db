"""The part of a model through which text goes: of one that also sees or hears, the language model and its head.

Everything beside it (towers, projectors, talkers) is absent: a module without weights that cannot be called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING


@dataclass(frozen=True, slots=True)
class LanguagePart:
    """Names of modules of a model."""

    name: str = ""  # the module that turns tokens into logits; empty: the whole model
    absent: tuple[str, ...] = ()  # what text does not go through

    def leaves_out(self, name: str) -> bool:
        """Whether a parameter `name` is one of an absent module."""
        return name.startswith(tuple(f"{module}." for module in self.absent))


class Absent(nn.Module):
    """Stands in for a module that is not there. Raises `RuntimeError` if it is called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Say which module would have been needed."""
        raise RuntimeError(f"text goes through {self._name}, which is not loaded")


def multimodal_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The class of a model of text and images, or sound, with such a config; None: transformers has none."""
    if type(config) not in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return None
    found: type[PreTrainedModel] = MODEL_FOR_MULTIMODAL_LM_MAPPING[type(config)]
    return found


def language_part(model: PreTrainedModel) -> LanguagePart:
    """Find it by the config of the language model, which is a part of the model's config.

    Raises `LookupError` if no part of the model has that config, or a head that makes logits.
    """
    text = type(model.config.get_text_config())
    models = {name: module for name, module in model.named_modules() if isinstance(module, PreTrainedModel)}
    inner = next((name for name, module in models.items() if type(module.config) is text), None)
    if inner is None:
        raise LookupError(f"none of its parts has a config {text.__name__}")
    around = [name for name in models if _holds(name, inner)]
    name = next((name for name in reversed(around) if models[name].get_output_embeddings() is not None), None)
    if name is None:
        raise LookupError(f"{inner} has no head that makes logits")
    head = models[name].get_output_embeddings()
    kept = {inner, next(its for its, module in model.named_modules() if module is head)}
    return LanguagePart(name, tuple(_beside(model, kept, inner)))


def leave_out(model: nn.Module, absent: tuple[str, ...]) -> None:
    """Put an `Absent` in the place of each of these modules."""
    for name in absent:
        model.set_submodule(name, Absent(name))


def _holds(outer: str, name: str) -> bool:
    return not outer or name == outer or name.startswith(f"{outer}.")


def _beside(model: nn.Module, kept: set[str], inner: str) -> list[str]:
    """Modules with weights beside `inner`, and beside those that hold it, that hold nothing of what is `kept`."""
    found = []
    path = inner.split(".") if inner else []
    for depth in range(len(path)):
        outer = ".".join(path[:depth])
        for child, module in model.get_submodule(outer).named_children():
            name = f"{outer}.{child}" if outer else child
            if not any(_holds(name, its) for its in kept) and next(module.parameters(), None) is not None:
                found.append(name)
    return found
