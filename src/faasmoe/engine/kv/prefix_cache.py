"""The prefix cache: states of ended sequences, kept for requests of the same tenant that start with the same tokens.

A tenant's prefixes are nodes of a radix tree: an edge holds tokens, and no two edges of a node begin with the same
one. So the cost of a lookup grows with the tokens that are asked for, not with the prefixes that are kept.

A state that can be truncated serves all that start like it, so only the longest is kept, in a leaf. A state that
cannot is a snapshot for requests that start with all its tokens, so shorter ones are kept beside longer ones.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faasmoe.model.state.sequence_state import SequenceState, StateSpec

LEAST = 16  # tokens that are worth keeping: fewer are computed in the step that has to run anyway

Tokens = NDArray[np.int64]


@dataclass(eq=False, frozen=True, slots=True)
class Prefix:
    """The state of a sequence that has seen `tokens`, of which there is one at least."""

    tenant: str
    tokens: Tokens
    state: SequenceState


class _Node:
    """A place in a tree. It has a prefix, two or more children, or both; the root may have fewer children."""

    __slots__ = ("children", "edge", "parent", "prefix")

    def __init__(self, edge: Tokens, parent: _Node | None, prefix: Prefix | None = None) -> None:
        self.edge = edge  # tokens on the way from its parent
        self.parent = parent
        self.prefix = prefix
        self.children: dict[int, _Node] = {}  # by the first token of their edges

    def adopt(self, child: _Node, edge: Tokens) -> None:
        """Make `child` one of this node's, at the end of `edge`."""
        child.parent, child.edge = self, edge
        self.children[int(edge[0])] = child

    def below(self) -> Prefix:
        """Some prefix that ends here or goes through here."""
        node = self
        while node.prefix is None:
            node = next(iter(node.children.values()))
        return node.prefix


class PrefixCache:
    """Prefixes by tenant and beginning, in the order of their last use. Another tenant's are never found."""

    def __init__(self, spec: StateSpec) -> None:
        """`spec` says how much memory states take and whether they can be truncated."""
        self._spec = spec
        self._roots: dict[str, _Node] = {}  # of tenants that have prefixes
        self._by_use: OrderedDict[Prefix, _Node] = OrderedDict()  # with their nodes
        self.nbytes = 0  # reserved for all prefixes

    def __len__(self) -> int:
        return len(self._by_use)

    def find(self, tenant: str, tokens: Tokens) -> tuple[Prefix, int] | None:
        """The prefix with most tokens to reuse for `tokens`, and how many: at least `LEAST`, and never all of them."""
        root = self._roots.get(tenant)
        if root is None:
            return None
        node, common, within = _follow(root, tokens[:-1])
        if common < LEAST:
            return None
        if self._spec.truncatable:
            return node.below(), common
        complete = node if within == len(node.edge) else node.parent  # all tokens before it are in common
        while complete is not None and complete.prefix is None:
            complete = complete.parent
        prefix = complete.prefix if complete else None
        return (prefix, len(prefix.tokens)) if prefix else None

    def add(self, prefix: Prefix) -> bool:
        """Keep `prefix`, instead of the one that it continues. False if a kept one serves all that it would serve."""
        tokens = prefix.tokens
        node, common, within = _follow(self._root(prefix.tenant), tokens)
        same = common == len(tokens) and within == len(node.edge) and node.prefix is not None
        if same or (common == len(tokens) and self._spec.truncatable):
            self.touch(node.below())
            return False
        if self._spec.truncatable and node.prefix is not None and common == len(node.prefix.tokens):
            self.remove(node.prefix)
            node, common, within = _follow(self._root(prefix.tenant), tokens)
        if node.parent is not None and within < len(node.edge):
            node = _split(node, within)
        if common < len(tokens):
            parent, node = node, _Node(tokens, node)
            parent.adopt(node, tokens[common:])
        node.prefix = prefix
        self._by_use[prefix] = node
        self.nbytes += self._spec.nbytes(prefix.state.capacity)
        return True

    def remove(self, prefix: Prefix) -> None:
        """Keep it no longer."""
        node = self._by_use.pop(prefix)
        self.nbytes -= self._spec.nbytes(prefix.state.capacity)
        node.prefix = None
        parent = node.parent
        assert parent is not None  # noqa: S101 - for the type checker: a root has no prefix
        if node.children:
            _bypass(node)
            return
        del parent.children[int(node.edge[0])]
        if parent.parent is not None:
            _bypass(parent)
        elif not parent.children:
            del self._roots[prefix.tenant]

    def touch(self, prefix: Prefix) -> None:
        """Mark the entry as used now."""
        self._by_use.move_to_end(prefix)

    def evict(self) -> int:
        """Drop the least recently used prefix. Returns the bytes that this frees, 0 if there is none."""
        prefix = next(iter(self._by_use), None)
        if prefix is None:
            return 0
        self.remove(prefix)
        return self._spec.nbytes(prefix.state.capacity)

    def _root(self, tenant: str) -> _Node:
        return self._roots.setdefault(tenant, _Node(np.zeros(0, np.int64), None))


def _follow(root: _Node, tokens: Tokens) -> tuple[_Node, int, int]:
    """The path of `tokens`: the node at the end of the last edge, the tokens up to that edge, and the tokens on it."""
    node, common, within = root, 0, 0
    while common < len(tokens) and (child := node.children.get(int(tokens[common]))) is not None:
        within = common_length(child.edge, tokens[common:])
        node, common = child, common + within
        if within < len(child.edge):
            break
    return node, common, within


def _split(node: _Node, at: int) -> _Node:
    """Put a node on the edge of `node`, behind `at` tokens. Edges are copied: they would keep all of a prefix alive."""
    upper, edge = _Node(node.edge, None), node.edge
    if node.parent is not None:
        node.parent.adopt(upper, edge[:at].copy())
    upper.adopt(node, edge[at:].copy())
    return upper


def _bypass(node: _Node) -> None:
    """Take `node` out of its tree if it has no prefix and a single child."""
    if node.parent is not None and node.prefix is None and len(node.children) == 1:
        (child,) = node.children.values()
        node.parent.adopt(child, np.concatenate([node.edge, child.edge]))


def common_length(one: Tokens, other: Tokens) -> int:
    """The length of the common prefix, in tokens."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
