"""An asyncio event loop in simulated time, one for each process that can be killed or stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from tests.simulation.world import World


class WorldLoop(asyncio.AbstractEventLoop):
    """Runs callbacks at times of the simulated clock. ``kill`` ends it as kill -9 does: no further
    callback runs, and no ``finally``. ``stop_for`` delays everything, as SIGSTOP does."""

    def __init__(self, world: World, failed: Callable[[BaseException | str], None]) -> None:
        self._world = world
        self._failed = failed
        self._ready: deque[asyncio.Handle] = deque()
        self._scheduled = False
        self._dead = False
        self._stopped_until_s = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def dead(self) -> bool:
        return self._dead

    @property
    def stopped(self) -> bool:
        return self._world.now_s < self._stopped_until_s

    def stop_for(self, seconds: float) -> None:
        self._stopped_until_s = self._world.now_s + seconds

    def cont(self) -> None:
        self._stopped_until_s = 0.0
        self._schedule()

    def kill(self) -> None:
        self._dead = True
        self._ready.clear()

    def dispose(self) -> None:
        """Close pending coroutines, so that the garbage collector reports none."""
        self.kill()
        with self.entered():
            for task in list(self._tasks):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
        self._tasks.clear()

    @contextlib.contextmanager
    def entered(self) -> Any:
        """Be the running loop of this thread."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    # ----------------------------------------------------------------------------------- scheduling

    def _schedule(self) -> None:
        if not self._scheduled and not self._dead:
            self._scheduled = True
            self._world.after(0.0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._dead or not self._ready:
            return
        if self.stopped:
            self._scheduled = True
            self._world.after(self._stopped_until_s - self._world.now_s + 1e-6, self._turn)
            return
        with self.entered():
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
                if self._dead:
                    return
        if self._ready:
            self._schedule()

    def _due(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled() and not self._dead:
            self._ready.append(handle)
            self._schedule()

    # ---------------------------------------------------------------------------- AbstractEventLoop

    def time(self) -> float:
        return self._world.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._dead:
            self._ready.append(handle)
            self._schedule()
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._dead:
            self._world.after(max(0.0, when - self._world.now_s), lambda: self._due(handle))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._world.now_s + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays scheduled and does nothing."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._dead:
            self._failed(context.get("exception") or context["message"])
