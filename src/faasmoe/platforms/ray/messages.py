"""Messages of this platform's processes: the server, Ray's driver, an actor, and the agent that it starts.

Server and driver, actor and agent speak through a SOCK_SEQPACKET socket each, which is the second one's standard input
and ends it when it closes. Driver and actor speak through Ray.
"""

from __future__ import annotations

import msgspec

from faasmoe.platforms.cluster.addresses import NodeAddress

LARGEST_PACKET = 192 << 10  # bytes; the kernel takes packets of 208 KiB


class RayMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of what goes through sockets."""


class ScalingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many nodes there are to be."""

    min_nodes: int  # that stay although they are idle
    max_nodes: int  # 0: no limit
    idle_seconds: float  # without a call or an instance after which a node is released


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the agents of a server have in common."""

    pool: str  # for whose server they work
    namespace: str  # of Ray's; a node has one agent in each
    local_options: str  # as `LocalOptions.to_json` has them, without a budget: that is each node's own
    preload: tuple[str, ...]
    log: str  # format and level, see `util.logs`


class DriverOrder(RayMessage, frozen=True, kw_only=True):
    """The server's only message: what Ray is used for."""

    address: str
    node_memory: int | None  # bytes
    limits: ScalingLimits
    cluster_folder: str  # of the authority
    agents: AgentSettings


class NodesReport(RayMessage, frozen=True, kw_only=True):
    """From the driver, once a second while Ray answers."""

    nodes: tuple[NodeAddress, ...] = ()
    complete: bool = False  # every node that is used has told where its agent listens, or why there is none
    trouble: str = ""  # why there are not more
    fatal: str = ""  # what has to be mended before Ray can be used; the driver ends


class Certificate(RayMessage, frozen=True, kw_only=True):
    """A node's certificate. All of it is public."""

    request: bytes  # for which it was made
    certificate: bytes
    authority: bytes  # the authority's


class AgentOrder(RayMessage, frozen=True, kw_only=True):
    """What an agent is to be. Answered by `AgentReady`."""

    name: str  # of the node
    host: str  # address to listen on
    memory: int  # bytes that Ray has reserved
    settings: AgentSettings
    certificate: Certificate | None = None
    raylet: int = 0  # process id of Ray's daemon on the node


class AskLoad(RayMessage, frozen=True):
    """Answered by `AgentLoad`."""


class Drain(RayMessage, frozen=True):
    """End when the calls that run are answered, so many seconds from now at most."""

    seconds: float


class AgentReady(RayMessage, frozen=True, kw_only=True):
    """From the agent. It listens when it has a certificate."""

    error: str = ""  # why it ends


class AgentLoad(RayMessage, frozen=True, kw_only=True):
    """From the agent: where it listens, and what it has to do."""

    port: int = 0  # 0: it does not listen yet
    request: bytes = b""  # for a certificate, if it has none or that ends soon
    calls: int = 0  # answered since it was started
    instances: int = 0
    waiting: int = 0  # activations that wait for memory
    memory_used: int = 0  # bytes
    claimed: bool = False  # a server has it, or had it a moment ago
    headed: bool = False  # a server has it, and is connected to it


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor tells of its agent."""

    memory: int  # bytes that Ray has reserved
    load: AgentLoad = AgentLoad()  # of port 0 if it does not listen
    draining: bool = False
    foreign: bool = False  # another server has the agent
    trouble: str = ""  # why there is none


def waking_address(pool: str) -> str:
    """Address, in Linux's abstract namespace, to which a client sends a packet when it has calls and finds no node."""
    return f"\0faasmoe-ray-{pool}"


def agent_address(raylet: int, namespace: str) -> str:
    """Address, in the same namespace, of an agent: a connection has it end, as another one takes its place."""
    return f"\0faasmoe-ray-agent-{raylet}-{namespace}"


to_packet = msgspec.msgpack.Encoder().encode
from_packet = msgspec.msgpack.Decoder(
    DriverOrder | NodesReport | AgentOrder | AskLoad | Drain | AgentReady | AgentLoad | Certificate
).decode
