"""Contract 2: what a platform must do, and what it may say about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, overload

Buffer = bytes | bytearray | memoryview
State = Literal["ok", "starting"]

USUAL_REPLY_BYTES = 32 << 10


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of a file that a function maps."""

    file: Path
    offset: int  # bytes
    length: int  # bytes


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A function to deploy.

    `handler` is `module:attribute` of a callable that loads `artifact` and returns the function itself
    (`experts.handler.load`). If the module has a `warm_up()`, a platform may call it before it loads anything.
    """

    name: str
    handler: str
    artifact: Path
    _: KW_ONLY
    memory: int = 0  # bytes that an instance needs for its weights, mapped or not
    files: tuple[FileRange, ...] = ()  # where those that it maps lie
    keep_alive: float | None = None  # seconds; None: the platform's default
    min_instances: int = 0  # kept running once the function was called or prewarmed
    max_instances: int = 1
    concurrency: int = 1  # most calls that an instance runs side by side


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation: the envelope's parts, to be sent as one.

    `reply_bytes` is the most that the reply may have; a longer one is an error. `work` is how long it will take,
    in any unit that is the same for all calls of a batch: a hint for spreading them over cores.
    """

    function: str
    payload: Sequence[Buffer]
    reply_bytes: int = USUAL_REPLY_BYTES
    work: float = 1.0


class Replies(Sequence[memoryview]):
    """The replies of a batch in the order of its calls, and what each has taken.

    Only the attempt that was answered counts: work that is lost with an instance is nobody's (docs/metering.md).
    """

    def __init__(self, count: int) -> None:
        self.data = [memoryview(b"")] * count
        self.busy = [0.0] * count  # seconds that an instance worked on it; what ran side by side there shares them
        self.memory = [0] * count  # bytes that this instance counts for

    @overload
    def __getitem__(self, index: int) -> memoryview: ...

    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...

    def __getitem__(self, index: int | slice) -> memoryview | list[memoryview]:
        return self.data[index]

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a platform can do beyond running functions."""

    shared_memory: bool = False  # `invoke_many` takes a `shared` buffer, written once for all calls
    autoscaling: bool = True  # `keep_alive`, `min_instances` and `max_instances` of a function are obeyed
    isolation: bool = True  # an instance may die, hang or run out of memory, and nothing else is harmed
    parallelism: int = (
        1  # calls that compute side by side: a layer's work is cut into as many, if that is worth it
    )


@dataclass(frozen=True, slots=True)
class Instance:
    """One that runs, or starts."""

    id: str  # tells it apart from others of the platform
    node: str  # name of the machine on which it runs


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """A deployed function, as the platform sees it."""

    name: str
    state: str = "zero"  # zero (no instance), starting, idle, busy
    instances: tuple[Instance, ...] = ()
    _: KW_ONLY
    invocations: int = 0
    cold_starts: int = 0
    deaths: int = 0  # instances that ended otherwise than by being stopped or idle
    evictions: int = 0
    p50: float | None = None  # seconds from a request's arrival at the instance to its reply
    p99: float | None = None
    memory: int = 0  # bytes that its instances count for in the pool


@dataclass(frozen=True, slots=True)
class PoolTotals:
    """What all instances have taken and done since the pool's start, those included that have ended.

    What they live beyond `busy_gb_seconds` is overhead: starting, idling, draining, and work that was lost with one.
    """

    instance_gb_seconds: float = 0.0  # 10^9 bytes that they count for times seconds, from activation to the end
    busy_gb_seconds: float = 0.0  # of them, while they worked on calls that they have answered
    busy_seconds: float = 0.0  # the same time, whatever they count for
    invocations: int = 0  # that they have answered
    cold_starts: int = 0  # of instances

    def __add__(self, other: PoolTotals) -> PoolTotals:
        return PoolTotals(
            self.instance_gb_seconds + other.instance_gb_seconds,
            self.busy_gb_seconds + other.busy_gb_seconds,
            self.busy_seconds + other.busy_seconds,
            self.invocations + other.invocations,
            self.cold_starts + other.cold_starts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """Everything at once, for those who look."""

    functions: Sequence[FunctionStatus]
    memory_budget: int | None = None  # bytes; None: no limit
    memory_used: int  # bytes counted against the budget
    waiting: int = 0  # activations that wait for memory
    latency: Sequence[
        tuple[float, int]
    ] = ()  # all calls: (at most so many seconds, how many calls), not cumulative
    cold_start_phases: dict[str, tuple[int, float]] = field(default_factory=dict)  # phase to count and seconds
    totals: PoolTotals = field(default_factory=PoolTotals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What serving a model will ask of a platform, before anything of it is started."""

    functions: int  # deployed
    calls_at_once: int  # of one function by one client, on a platform that computes as many side by side
    client_tensors: int  # of the checkpoint that a client maps, each over a descriptor of its own
    function_tensors: int  # that an instance maps, in the same way
    clients: int = 1  # processes that call functions
    requests: int = 0  # connections of HTTP clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """What a pool takes in addition to what its functions need, for planning."""

    instance_bytes: int = 0  # that an instance counts for beside `FunctionSpec.memory`
    idle_seconds: float = 0.0  # that processes of the pool itself outlive the last instance


class Platform(Protocol):
    """Runs functions. `invoke_many` is for one thread at a time; everything else may be called from any."""

    capabilities: Capabilities

    @property
    def address(self) -> str:
        """What another process connects to (`PlatformEntry.connect`); empty if none can."""

    @property
    def state(self) -> State:
        """`ok`, or `starting` while instances cannot be started; never waits. Only for the owner of a pool."""

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """Make functions callable. No instance is started. A name deployed again with another spec is replaced."""

    def remove(self, names: Sequence[str]) -> None:
        """Drain the functions' instances and forget the functions. Raises `UnknownFunction`."""

    def check_fits(self, names: Sequence[str]) -> None:
        """Raises `OptionError` if one instance of each of these can never run at the same time."""

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """Run all calls, side by side; replies come in the order of `calls` and hold until the next `invoke_many`.

        `shared` is handed to every called function beside its payload (`Capabilities.shared_memory`).
        `meanwhile` is called once, on the calling thread, when the calls have been sent or instances asked for.
        `deadline` is an instant of `time.monotonic`. A call whose instance is lost is tried again elsewhere
        until then. Raises `DeadlineExceeded`, `UnknownFunction` or `PlatformError`, naming function and cause.
        """

    def prewarm(self, names: Sequence[str]) -> None:
        """Start an instance of each function that has none. Raises `UnknownFunction` or `PlatformError`."""

    def stop(self, names: Sequence[str]) -> None:
        """Drain the functions' instances: what runs is finished, then they end. Raises `UnknownFunction`."""

    def status(self) -> PoolStatus:
        """All deployed functions, and the pool they share."""

    def close(self) -> None:
        """Stop everything that this object started. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
