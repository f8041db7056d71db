"""The contract of platforms: their methods, capabilities and status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, overload

from faasmoe.platforms.buffer import Buffer

State = Literal["ok", "starting"]

DEFAULT_KEEP_ALIVE = 60.0  # seconds that a function with no `keep_alive` keeps an idle instance
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

    With `files`, the last line of `artifact` is the file table: a JSON list of `[path, device, inode, size, mtime]` (in
    ns), one for each file that it maps. A platform that has these bytes in other files, at the same offsets, replaces
    the line; all that is before it stays as it is.
    """

    name: str
    handler: str
    artifact: Path
    _: KW_ONLY
    memory: int = 0  # bytes that an instance needs for its weights, mapped or not
    files: tuple[FileRange, ...] = ()  # the weights that an instance maps
    keep_alive: float | None = None  # seconds; None: the platform's default
    min_instances: int = 0  # kept running once the function was called or prewarmed
    max_instances: int = 1
    concurrency: int = 1  # most calls that an instance runs side by side
    group: int = 0  # functions of one group are called together, such as those of a layer
    reading: int = 1  # bytes of its weights that a call reads for a `Call.work` of 1


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation. The parts of `payload` are sent as one.

    A reply of more than `reply_bytes` bytes is an error. `work` is a hint for balancing the calls of a batch: how long
    the call will take, in a unit that is the same for all of them. `rows` are the rows, of `row_bytes` each, that the
    call reads of the `shared` buffer of its batch; without them it may read all of that.
    """

    function: str
    payload: Sequence[Buffer]
    reply_bytes: int = USUAL_REPLY_BYTES
    work: float = 1.0
    rows: Buffer = b""  # int32
    row_bytes: int = 0


class Replies(Sequence[memoryview]):
    """The replies of a batch in the order of its calls, and the costs of each call.

    Costs are those of the attempt that was answered: nobody pays for work that is lost with an instance
    (docs/metering.md).
    """

    def __init__(self, count: int) -> None:
        self.data = [memoryview(b"")] * count
        self.busy = [0.0] * count  # seconds that an instance worked on the call, shared with calls beside it
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
    """The abilities of a platform beyond running functions."""

    shared_memory: bool = False  # `invoke_many` takes a `shared` buffer, written once for all calls
    worth_sharing: int = 32 << 10  # bytes from which on that is cheaper than to send each call its part
    autoscaling: bool = True  # `keep_alive`, `min_instances` and `max_instances` of a function are obeyed
    isolation: bool = True  # an instance may die, hang or run out of memory, and nothing else is harmed
    parallelism: int = 1  # calls that compute side by side; callers divide their work into as many

    def missing(self) -> list[str]:
        """A sentence for the operator of a server about each ability that harms the service if it is missing."""
        sentences = {
            "idle functions keep their memory: this platform does not scale functions to zero": self.autoscaling,
            "a function that dies, hangs or takes all memory may end the server: this platform does not isolate "
            "functions": self.isolation,
        }
        return [sentence for sentence, given in sentences.items() if not given]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a function, running or starting."""

    id: str  # unique among the platform's instances
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
    """Totals of all instances since the pool's start, ended ones included. 1 GB is 10^9 bytes.

    `instance_gb_seconds` beyond `busy_gb_seconds` are overhead: of starting, idling and draining instances, and of work
    that was lost with an instance.
    """

    instance_gb_seconds: float = 0.0  # bytes that instances count for, times seconds from activation to end
    busy_gb_seconds: float = 0.0  # those of the time in which instances worked on calls that they answered
    busy_seconds: float = 0.0  # that time itself
    invocations: int = 0  # answered
    cold_starts: int = 0  # instances that were started

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
    """The state of a pool: its functions, memory, latency and totals."""

    functions: Sequence[FunctionStatus]
    memory_budget: int | None = None  # bytes; None: no limit
    memory_used: int  # bytes counted against the budget
    waiting: int = 0  # activations that wait for memory
    latency: Sequence[
        tuple[float, int]
    ] = ()  # histogram of all calls: (upper bound in seconds, calls in the bucket)
    cold_start_phases: dict[str, tuple[int, float]] = field(default_factory=dict)  # phase to count and seconds
    totals: PoolTotals = field(default_factory=PoolTotals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The demand of a model that is to be served, known before anything is started."""

    functions: int  # deployed
    calls_at_once: int  # of one function by one client, on a platform that computes as many side by side
    client_tensors: int  # of the checkpoint that a client maps, each over a descriptor of its own
    function_tensors: int  # that an instance maps, in the same way
    clients: int = 1  # processes that call functions
    requests: int = 0  # connections of HTTP clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """The memory and time that a pool takes beside its functions, for planning."""

    instance_bytes: int = 0  # that an instance counts for beside `FunctionSpec.memory`
    idle_seconds: float = 0.0  # that processes of the pool itself outlive the last instance


class Platform(Protocol):
    """Runs functions. One thread at a time may call `invoke_many`; any thread may call other methods."""

    capabilities: Capabilities

    @property
    def address(self) -> str:
        """The address for other processes (`PlatformEntry.connect`); empty if none can connect."""

    @property
    def state(self) -> State:
        """`ok`, or `starting` while instances cannot be started. Does not wait. Only for the owner of a pool."""

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """Make functions callable. No instance is started. A name deployed again with another spec is replaced."""

    def remove(self, names: Sequence[str]) -> None:
        """Drain the functions' instances and forget the functions. Raises `UnknownFunction`."""

    def check_fits(self, names: Sequence[str]) -> None:
        """Raises `OptionError` if the pool can never run an instance of each of these functions at the same time."""

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """Run all calls side by side. Replies are in the order of `calls`, and valid until the next `invoke_many`.

        `shared` is handed to every called function beside its payload (`Capabilities.shared_memory`).
        `meanwhile` is called once, on the calling thread, when the calls have been sent or instances asked for.
        `deadline` is an instant of `time.monotonic`. A call whose instance is lost is tried again elsewhere
        until then. Raises `DeadlineExceeded`, `UnknownFunction` or `PlatformError`, naming function and cause.
        """

    def prewarm(self, names: Sequence[str]) -> None:
        """Start an instance of each function that has none. Raises `UnknownFunction` or `PlatformError`."""

    def stop(self, names: Sequence[str]) -> None:
        """End the functions' instances when their running calls are finished. Raises `UnknownFunction`."""

    def status(self) -> PoolStatus:
        """The state of all deployed functions and of the pool."""

    def close(self) -> None:
        """Stop everything that this object started. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
