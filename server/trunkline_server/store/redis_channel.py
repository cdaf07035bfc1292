"""One pipelined connection to one Redis server, with a hard timeout on every command.

All callers share the connection: what they ask within one tick of the event loop leaves in one
write, and replies come in the order of the commands. Redis carries out one command at a time,
so a second connection would not make it faster.

The circuit breaker is the connection itself. Too many timeouts in a row drop it, and while
there is none, commands fail at once; the attempts to connect anew are the probes.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Connection
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

Reply = bytes | int | None | list["Reply"]
Connect = Callable[[], Awaitable[Connection]]

# A timer that fires this late, in seconds, tells of a stalled event loop: replies may be waiting
# in the socket, and get a moment to be read before they count as missing.
_STALL = 0.01
# A connection cut within this many seconds without any reply was of no use.
_SHORT_LIFE = 1.0


class RedisUnavailableError(Exception):
    """Redis did not answer in time, or cannot be reached. Whether a command that was sent has
    been carried out is not known. The message holds no password and no argument."""


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """Bounds of a channel; times are seconds.

    `timeout` holds for every command, `connect_timeout` for TCP, TLS and login together.
    `failures` timeouts in a row drop the connection. Then `retry_seconds` pass before the
    first attempt to connect anew, twice as many before each further one up to
    `max_retry_seconds`. No more than `max_pending` commands await replies.
    """

    timeout: float = 0.05
    connect_timeout: float = 1.0
    failures: int = 5
    retry_seconds: float = 0.5
    max_retry_seconds: float = 5.0
    max_pending: int = 10_000


class _Command:
    __slots__ = ("deadline", "future", "signed", "words")

    def __init__(
        self, words: Sequence[bytes], signed: bool, deadline: float, future: asyncio.Future[Reply]
    ) -> None:
        self.words = words
        self.signed = signed
        self.deadline = deadline
        self.future = future


class RedisChannel:
    """See the module. `name` is for messages; `on_change` hears when it goes down or up."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        policy: ChannelPolicy,
        on_change: Callable[["RedisChannel"], None],
    ) -> None:
        self.name = name
        self.available = True
        # Why it is not, for the operator; no password and no argument.
        self.cause = self._told = ""
        # Identifies the run of the server at the other end; a restarted one has another.
        self.generation = b""
        self._connect = connect
        self._policy = policy
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._unsent: list[_Command] = []
        self._unanswered: deque[_Command] = deque()
        self._work = asyncio.Event()
        self._tripped = asyncio.Event()
        self._timeouts = 0
        self._answered = False
        self._timer: asyncio.TimerHandle | None = None
        self._first_try = self._loop.create_future()
        self._task = self._loop.create_task(self._run(), name=f"redis {name}")

    async def first_try(self) -> bool:
        """Whether it is connected, once the first attempt is over."""
        await asyncio.shield(self._first_try)
        return self.available

    def send(self, words: Sequence[bytes], *, signed: bool = False) -> asyncio.Future[Reply]:
        """Sends a command with the next write. With `signed`, the generation of the server
        that it reaches is added as the last word.

        Raises RedisUnavailableError, at once or through the future; redis.ResponseError, through
        the future, if the server refuses the command.
        """
        if not self.available:
            raise RedisUnavailableError(f"{self.name} is down")
        if len(self._unsent) + len(self._unanswered) >= self._policy.max_pending:
            raise RedisUnavailableError(f"{self.name} has too many commands in flight")
        future: asyncio.Future[Reply] = self._loop.create_future()
        deadline = self._loop.time() + self._policy.timeout
        self._unsent.append(_Command(words, signed, deadline, future))
        self._work.set()
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._sweep, deadline)
        return future

    async def close(self) -> None:
        """Drops the connection; what is in flight fails."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.available = False
        self._fail_all("is closed")

    async def _run(self) -> None:
        pause = self._policy.retry_seconds
        while True:
            try:
                async with asyncio.timeout(self._policy.connect_timeout):
                    connection = await self._connect()
            # OSError covers the network, TLS and asyncio's timeout.
            except (OSError, RedisError, RedisUnavailableError) as error:
                self._go_down(_told(error, self._policy.connect_timeout))
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, self._policy.max_retry_seconds)
                continue
            try:
                healthy = await self._serve(connection)
            finally:
                with contextlib.suppress(OSError, RedisError):
                    await connection.disconnect(nowait=True)
            if healthy:
                # A cut connection is replaced at once; only if that fails is Redis down.
                pause = self._policy.retry_seconds
                continue
            self._go_down(self.cause or "no answers")
            await asyncio.sleep(pause)
            pause = min(2.0 * pause, self._policy.max_retry_seconds)

    async def _serve(self, connection: Connection) -> bool:
        """Works until the connection breaks or the breaker trips. False if it was of no use."""
        try:
            self.generation = await self._greet(connection)
        except (OSError, RedisError) as error:
            self.cause = _told(error, self._policy.timeout)
            return False
        self.cause = ""
        began = self._loop.time()
        self._timeouts = 0
        self._answered = False
        self._tripped.clear()
        self._come_up()
        parts = [
            self._loop.create_task(self._write(connection)),
            self._loop.create_task(self._read(connection)),
            self._loop.create_task(self._tripped.wait()),
        ]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            results = await asyncio.gather(*parts, return_exceptions=True)
            self._fail_all("lost the connection", sent_only=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, OSError | RedisError):
                raise result
        lived = self._loop.time() - began
        return not self._tripped.is_set() and (self._answered or lived > _SHORT_LIFE)

    async def _greet(self, connection: Connection) -> bytes:
        """Asks for the server's run id, which proves that it answers in time, and for its role:
        what is counted here is written."""
        async with asyncio.timeout(self._policy.timeout):
            asking = pack([b"INFO", b"server"]) + pack([b"INFO", b"replication"])
            await connection.send_packed_command(asking, check_health=False)
            info = await connection.read_response(disable_decoding=True)
            role = await connection.read_response(disable_decoding=True)
        if b"role:slave" in bytes(role):
            raise ReadOnlyError
        for line in bytes(info).splitlines():
            if line.startswith(b"run_id:"):
                # Enough of it to tell runs apart, and short, as every script gets it.
                return line[7:23]
        raise ResponseError("no run_id")

    async def _write(self, connection: Connection) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            commands = [one for one in self._unsent if not one.future.done()]
            self._unsent.clear()
            self._unanswered.extend(commands)
            generation = self.generation
            data = b"".join(
                [pack([*one.words, generation] if one.signed else one.words) for one in commands]
            )
            await connection.send_packed_command(data, check_health=False)

    async def _read(self, connection: Connection) -> None:
        unanswered = self._unanswered
        while True:
            error: ResponseError | None = None
            reply: Reply = None
            try:
                reply = await connection.read_response(disable_decoding=True)
            except ReadOnlyError:
                raise  # A primary that has become a replica: look for the new one.
            except ResponseError as refusal:
                error = refusal
            if not unanswered:
                raise InvalidResponse("a reply to nothing")
            command = unanswered.popleft()
            future = command.future
            if future.done():
                continue  # Too late, or nobody waits any more.
            self._timeouts = 0
            self._answered = True
            if error is None:
                future.set_result(reply)
            else:
                future.set_exception(error)

    def _sweep(self, due: float) -> None:
        """Fails what has waited too long, and comes again when the next is due."""
        now = self._loop.time()
        self._timer = None
        if now - due > _STALL:
            again = now + _STALL / 2
            self._timer = self._loop.call_at(again, self._sweep, again)
            return
        for queue in (self._unanswered, self._unsent):
            for command in queue:
                if command.future.done():
                    continue
                if command.deadline > now:
                    self._timer = self._loop.call_at(
                        command.deadline, self._sweep, command.deadline
                    )
                    break
                self._timeouts += 1
                command.future.set_exception(RedisUnavailableError(f"{self.name} answers too late"))
            if self._timer is not None:
                break
        if self._timeouts >= self._policy.failures:
            self._tripped.set()
            self._go_down(f"no answer within {self._policy.timeout * 1000:g} ms")

    def _go_down(self, cause: str) -> None:
        news = self.available or cause != self._told
        self.cause = self._told = cause
        self._fail_all(f"is down ({cause})")
        if not self._first_try.done():
            self._first_try.set_result(None)
        self.available = False
        if news:
            self._on_change(self)

    def _come_up(self) -> None:
        if not self._first_try.done():
            self._first_try.set_result(None)
        if not self.available:
            self.available = True
            self._on_change(self)

    def _fail_all(self, problem: str, *, sent_only: bool = False) -> None:
        commands = list(self._unanswered)
        self._unanswered.clear()
        if not sent_only:
            commands += self._unsent
            self._unsent.clear()
        for command in commands:
            if not command.future.done():
                command.future.set_exception(RedisUnavailableError(f"{self.name} {problem}"))


def _told(error: Exception, seconds: float) -> str:
    """What a failed attempt to connect means, in words that hold nothing secret."""
    if isinstance(error, AuthenticationError):
        return "it refuses the user or the password"
    if isinstance(error, NoPermissionError):
        return "it does not permit the user a command"
    if isinstance(error, ReadOnlyError):
        return "it is a replica, which takes no writes"
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds * 1000:g} ms"
    if isinstance(error, ResponseError):
        # Such as NOAUTH or LOADING: the first word of what it said.
        return f"it answers {(str(error).split() or ['an error'])[0]}"
    if isinstance(error, RedisConnectionError | OSError):
        return "no connection"
    return type(error).__name__


def pack(words: Sequence[bytes]) -> bytes:
    """A command in RESP, the protocol of Redis: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)
