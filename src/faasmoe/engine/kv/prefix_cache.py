"""Keys and values of ended sequences, kept for requests of the same tenant that start with the same tokens.

A tenant's prefixes are the leaves of a radix tree: an edge holds tokens, and no two edges of a node begin with the same
one. So what a lookup takes grows with the tokens that are asked for, not with the prefixes that are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faasmoe.engine.kv.cache import KVCache

LEAST = 16  # tokens that are worth keeping: fewer are computed in the step that has to run anyway

Tokens = NDArray[np.int64]


@dataclass(eq=False, frozen=True, slots=True)
class Prefix:
    """The keys and values of `tokens`, of which there is one at least."""

    tenant: str
    tokens: Tokens
    cache: KVCache
    capacity: int  # tokens that the cache has memory for


class _Node:
    """A place in a tree. One without children is a leaf and has a prefix; others but the root have two or more."""

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

    def leaf(self) -> Prefix:
        """Some prefix that goes through here."""
        node = self
        while node.prefix is None:
            node = next(iter(node.children.values()))
        return node.prefix


class PrefixCache:
    """Prefixes by tenant and beginning, in the order of their last use. Another tenant's are never found."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}  # of tenants that have prefixes
        self._by_use: OrderedDict[Prefix, _Node] = OrderedDict()  # with their leaves
        self.capacity = 0  # tokens of all

    def __len__(self) -> int:
        return len(self._by_use)

    def find(self, tenant: str, tokens: Tokens) -> tuple[Prefix, int] | None:
        """A prefix that has most in common with `tokens`, and how many: at least `LEAST`, and never all of them."""
        root = self._roots.get(tenant)
        if root is None:
            return None
        node, common, _ = _follow(root, tokens[:-1])
        return (node.leaf(), common) if common >= LEAST else None

    def add(self, prefix: Prefix) -> bool:
        """Keep it, instead of the one that it continues. False if one that is kept holds all of it."""
        tokens = prefix.tokens
        node, common, _ = _follow(self._root(prefix.tenant), tokens)
        if common == len(tokens):
            self.touch(node.leaf())
            return False
        if node.prefix is not None and common == len(node.prefix.tokens):
            self.remove(node.prefix)
        node, common, within = _follow(self._root(prefix.tenant), tokens)
        if node.parent is not None and within < len(node.edge):
            node = _split(node, within)
        leaf = _Node(tokens, node, prefix)
        node.adopt(leaf, tokens[common:])
        self._by_use[prefix] = leaf
        self.capacity += prefix.capacity
        return True

    def remove(self, prefix: Prefix) -> None:
        """Keep it no longer."""
        leaf = self._by_use.pop(prefix)
        self.capacity -= prefix.capacity
        parent = leaf.parent
        assert parent is not None  # noqa: S101 - for the type checker: a root is no leaf
        del parent.children[int(leaf.edge[0])]
        if parent.parent is None:
            if not parent.children:
                del self._roots[prefix.tenant]
        elif len(parent.children) == 1:
            (child,) = parent.children.values()
            parent.parent.adopt(child, np.concatenate([parent.edge, child.edge]))

    def touch(self, prefix: Prefix) -> None:
        """It was used just now."""
        self._by_use.move_to_end(prefix)

    def evict(self) -> int:
        """Drop the one whose last use is longest ago. Returns the tokens that it had memory for, 0 if there is none."""
        prefix = next(iter(self._by_use), None)
        if prefix is None:
            return 0
        self.remove(prefix)
        return prefix.capacity

    def _root(self, tenant: str) -> _Node:
        return self._roots.setdefault(tenant, _Node(np.zeros(0, np.int64), None))


def _follow(root: _Node, tokens: Tokens) -> tuple[_Node, int, int]:
    """How far `tokens` lead: the node at the end of the last edge, how many led there, and how many on that edge."""
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


def common_length(one: Tokens, other: Tokens) -> int:
    """How many tokens both start with."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
