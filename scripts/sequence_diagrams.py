"""A hook of mkdocs: draws the pages' Mermaid sequence diagrams as SVG, so that the site needs no script from elsewhere.

It knows the few kinds of lines that docs/ uses: `participant A as name`, `A->>B: text`, `A-->>B: text` (a reply),
`A-xB: text` (a loss), and `loop text` with `end`. Any other line is an error.
"""

from __future__ import annotations

import re
import textwrap
from html import escape
from typing import NamedTuple

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)(->>|-->>|-x)(\w+): (.+)")
_LOOP = re.compile(r"loop (.+)")
_CHARACTER, _LINE, _WRAP = 6.6, 15, 30  # pixels, pixels, characters a line
_LEAST_GAP, _LOOP_SIZE = 110, 24  # pixels between two participants; pixels of a self-message's arrow


class Message(NamedTuple):
    """One arrow, from and to the participants of these numbers."""

    source: int
    target: int
    dashed: bool
    lost: bool
    text: tuple[str, ...]  # lines

    @property
    def width(self) -> float:
        """Pixels between its participants that the text needs."""
        room = _LOOP_SIZE + 12 if self.source == self.target else 16
        return max(map(len, self.text)) * _CHARACTER + room


class Loop(NamedTuple):
    """The beginning of a loop, or its end if the text is empty."""

    text: str = ""


class Diagram:
    """A sequence diagram, read from Mermaid's language. Raises `ValueError` for a line that it does not know."""

    def __init__(self, source: str) -> None:
        self.names: list[str] = []
        self.steps: list[Message | Loop] = []
        keys: list[str] = []
        for line in map(str.strip, source.strip().splitlines()):
            if found := _PARTICIPANT.fullmatch(line):
                keys.append(found[1])
                self.names.append(found[2])
            elif found := _MESSAGE.fullmatch(line):
                ends = keys.index(found[1]), keys.index(found[3])
                lines = tuple(textwrap.wrap(found[4], _WRAP))
                self.steps.append(Message(*ends, found[2] == "-->>", found[2] == "-x", lines))
            elif found := _LOOP.fullmatch(line):
                self.steps.append(Loop(found[1]))
            elif line == "end":
                self.steps.append(Loop())
            elif line != "sequenceDiagram":
                raise ValueError(f"a sequence diagram has the line {line!r}")

    def svg(self) -> str:
        """The drawing, in the colours of the page's text."""
        at = self._columns()
        width, y, parts, loops = at.pop(), 52.0, list[str](), list[tuple[float, str]]()
        for step in self.steps:
            if isinstance(step, Message):
                y += _LINE * len(step.text) + 8
                parts += _arrow(step, at, y)
                y += _LOOP_SIZE - 6 if step.source == step.target else 8
            elif step.text:
                loops.append((y + 4, step.text))
                y += _LINE + 8
            else:
                top, text = loops.pop()
                parts += [f'<rect x="8" y="{top}" width="{width - 16}" height="{y + 6 - top}" fill="none" '
                          'stroke-dasharray="2 3"/>', _text(14, top + 13, text, "start")]  # fmt: skip
                y += 14
        for x, name in zip(at, self.names, strict=True):
            half = len(name) * _CHARACTER / 2 + 10
            parts += [f'<rect x="{x - half}" y="8" width="{2 * half}" height="26" rx="4" fill="none"/>',
                      f'<path d="M{x} 34V{y + 8}" opacity="0.35"/>', _text(x, 25, name)]  # fmt: skip
        title = escape(", ".join(self.names))
        return (
            f'<svg viewBox="0 0 {width:.0f} {y + 14:.0f}" width="{width:.0f}" role="img" style="max-width:100%" '
            f'font-size="12" fill="none" stroke="currentColor"><title>{title}</title>{"".join(parts)}</svg>'
        )

    def _columns(self) -> list[float]:
        """The middle of each participant's column, and the width of the whole."""
        gaps = [float(_LEAST_GAP)] * len(self.names)  # on the right of each
        for step in self.steps:
            if isinstance(step, Message):
                low, high = sorted((step.source, step.target))
                spanned = range(low, max(high, low + 1))
                lacking = (step.width - sum(gaps[i] for i in spanned)) / len(spanned)
                for i in spanned:
                    gaps[i] += max(0.0, lacking)
        at = [20 + len(self.names[0]) * _CHARACTER / 2 + 10]
        for gap in gaps[:-1]:
            at.append(at[-1] + gap)
        return [*at, at[-1] + max(gaps[-1] if self._talks_to_itself() else 0, 70)]

    def _talks_to_itself(self) -> bool:
        last = len(self.names) - 1
        return any(isinstance(step, Message) and step.source == step.target == last for step in self.steps)


def _arrow(message: Message, at: list[float], y: float) -> list[str]:
    source, target = at[message.source], at[message.target]
    style = ' stroke-dasharray="5 4"' if message.dashed else ""
    if source == target:
        line = f"M{source} {y - 6}h{_LOOP_SIZE}v12h{5 - _LOOP_SIZE}"
        texts = [(source + _LOOP_SIZE + 6, "start")]
        tip, towards = source, -1
    else:
        towards = 1 if target > source else -1
        tip = (source + target) / 2 if message.lost else target
        line = f"M{source} {y}H{tip - towards}"
        texts = [((source + target) / 2, "middle")]
    head = f"M{tip - 5} {y - 5}l10 10m0 -10l-10 10" if message.lost else ""
    if not message.lost:
        end = y + 6 if source == target else y
        head = f"M{tip - 8 * towards} {end - 4}L{tip} {end}L{tip - 8 * towards} {end + 4}"
    (x, anchor), count = texts[0], len(message.text)
    top = y + 4 if source == target else y - 6
    return [f'<path d="{line}"{style}/>', f'<path d="{head}"/>'] + [
        _text(x, top - _LINE * (count - 1 - i), line, anchor) for i, line in enumerate(message.text)
    ]


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="currentColor" stroke="none">{escape(text)}</text>'


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs with the text of each page."""
    return _BLOCK.sub(lambda found: f"<figure>{Diagram(found[1]).svg()}</figure>\n", markdown)
