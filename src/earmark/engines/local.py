"""Groups in processes of this machine: one copy of the model each, threads divided among them.

One group is with a worker at a time, so that a worker that dies says which group it died of. The driver and a worker
share one pipe and nothing else: when either is killed, the other one reads the end of the pipe. A worker that takes
too long is killed.
"""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from time import monotonic
from typing import Any

from earmark.engines import TIMEOUT_S, TRIES, Group, Source, Terms, lost, portable, verify_group
from earmark.errors import UsageError
from earmark.protocols import ModelInfo
from earmark.records.verdict import Verdict

AHEAD = 4
"""Groups that are begun or wait for earlier ones, per worker."""
END_S = 10.0
"""Seconds for a killed process to end; one that hangs in a driver of the system is left to it."""


def _serve(pipe: connection.Connection, source: Source, device: str | None, workers: int) -> None:
    """Open the model and answer until the pipe ends: facts about the model, then verdicts or an error per group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver is interrupted, and ends its workers
    try:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        model = source.open(device)
        pipe.send(model.info)
        while True:
            group, terms = pipe.recv()
            pipe.send(_answer(group, model, terms))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 - the driver raises it
        pipe.send(portable(error))


def _answer(group: Group, model: Any, terms: Terms) -> list[Verdict] | Exception:
    try:
        return verify_group(group, model, terms)
    except Exception as error:  # noqa: BLE001 - the driver raises it when the group's turn has come
        return portable(error)


@dataclass(slots=True, eq=False)
class _Open:
    """A group of which not all verdicts are there; or, with an error and no cases, where the groups broke off."""

    group: Group
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or len(self.verdicts) == len(self.group.cases)

    def result(self) -> tuple[Group, list[Verdict]]:
        if self.error is not None:
            raise self.error
        return self.group, [self.verdicts[i] for i in range(len(self.group.cases))]


@dataclass(slots=True, eq=False)
class _Job:
    """What one worker does at once: a group, or one case of it."""

    whole: _Open
    place: int | None = None
    deaths: int = 0

    @property
    def group(self) -> Group:
        return self.whole.group if self.place is None else self.whole.group.only(self.place)

    def take(self, answer: list[Verdict] | Exception) -> None:
        if isinstance(answer, Exception):
            self.whole.error = answer
        else:
            self.whole.verdicts.update(enumerate(answer, self.place or 0))

    def again(self) -> list[_Job]:
        """Return what is left to do behind the loss of a worker."""
        self.deaths += 1
        if self.deaths < TRIES:
            return [self]
        if self.place is None:
            return [_Job(self.whole, place) for place in range(len(self.whole.group.cases))]
        self.take([lost()])
        return []


class _Worker:
    """A process with a model, started anew where it died or took too long."""

    def __init__(self, source: Source, device: str | None, workers: int, timeout_s: float) -> None:
        self._arguments, self._timeout_s = (source, device, workers), timeout_s
        self.job: _Job | None = None
        self.start()

    def start(self) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, *self._arguments), daemon=True)
        self.process.start()
        other.close()
        self.ready = False
        self.begin()

    def begin(self) -> None:
        """Set the time by which it must have answered."""
        self.due = monotonic() + self._timeout_s

    def stop(self) -> None:
        self.process.kill()
        self.process.join(END_S)
        self.pipe.close()


class LocalEngine:
    """Processes of this machine, one per device.

    Args:
        source: The model; every process opens its own copy.
        devices: Device of each process; None takes cuda where there is one.
        timeout_s: Seconds that a process may take for one group, or to open the model; None for no limit.

    Raises:
        UsageError: There are no devices.
    """

    def __init__(self, source: Source, devices: Sequence[str | None], *, timeout_s: float | None = TIMEOUT_S) -> None:
        """Start the processes; they open the model meanwhile."""
        if not devices:
            raise UsageError("no devices; expected one per process, for instance cpu or cuda:0")
        self._info: ModelInfo | None = None
        self._failed = 0
        self._left: deque[_Job] = deque()
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._workers = [_Worker(source, device, len(devices), self._timeout_s) for device in devices]

    @property
    def info(self) -> ModelInfo:
        """Facts about the model, as the first process to open it says."""
        while self._info is None:
            self._collect()
        return self._info

    def verify(self, groups: Iterable[Group], terms: Terms) -> Iterator[tuple[Group, list[Verdict]]]:
        """Yield each group with its verdicts, in order."""
        stream, begun = iter(groups), deque[_Open]()
        self._left.clear()  # of a run that ended early
        while True:
            self._take(stream, begun)
            self._hand_out(terms)
            if not begun:
                return
            if begun[0].done:
                yield begun.popleft().result()
            else:
                self._collect()

    def close(self) -> None:
        """Kill the processes."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def _take(self, stream: Iterator[Group], begun: deque[_Open]) -> None:
        """Take as many groups as keep the workers busy, up to an error: the groups before it come first."""
        while len(self._left) < len(self._workers) and len(begun) < AHEAD * len(self._workers):
            if begun and begun[-1].error is not None:
                return
            try:
                group = next(stream, None)
            except Exception as error:  # noqa: BLE001 - raised when its turn has come
                begun.append(_Open(Group(names=(), cases=(), modes=()), error=error))
                return
            if group is None:
                return
            begun.append(_Open(group))
            self._left.append(_Job(begun[-1]))

    def _hand_out(self, terms: Terms) -> None:
        for worker in self._workers:
            if worker.ready and worker.job is None and self._left:
                worker.job = self._left.popleft()
                worker.begin()
                try:
                    worker.pipe.send((worker.job.group, terms))
                except OSError:
                    self._replace(worker)

    def _collect(self) -> None:
        """Wait until a worker says something, dies, or has taken too long."""
        due = min(worker.due for worker in self._workers)
        patience = None if math.isinf(due) else max(0.0, due - monotonic())
        talking = connection.wait([worker.pipe for worker in self._workers], patience)
        for worker in self._workers:
            if worker.pipe in talking:
                self._hear(worker)
            elif worker.due <= monotonic():
                self._replace(worker, f"took more than {self._timeout_s:g} s")

    def _hear(self, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        worker.due = math.inf
        if worker.job is not None:
            worker.job.take(answer)
            worker.job = None
        elif isinstance(answer, Exception):
            raise answer
        else:
            self._info, worker.ready, self._failed = answer, True, 0

    def _replace(self, worker: _Worker, reason: str | None = None) -> None:
        worker.stop()
        if not worker.ready:
            self._failed += 1
            if self._failed > TRIES:
                reason = reason or f"ended (exit code {worker.process.exitcode})"
                expected = "fewer --processes, more memory, or a longer --worker-timeout; scripts need "
                expected += '`if __name__ == "__main__":`'
                found = f"{self._failed} processes that open the model: the last {reason}"
                raise UsageError(f"{found}; expected to open a copy in each: {expected}")
        if worker.job is not None:
            self._left.extendleft(reversed(worker.job.again()))
            worker.job = None
        worker.start()
