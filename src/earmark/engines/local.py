"""Groups in processes of this machine: one copy of the model each, threads divided among them.

One group is with a worker at a time, so that a worker that dies says which group it died of. The driver and a worker
share one pipe and nothing else: when either is killed, the other one reads the end of the pipe.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from typing import Any

from earmark.engines import TRIES, Group, Source, Terms, lost, verify_group
from earmark.errors import UsageError
from earmark.protocols import ModelInfo
from earmark.records.verdict import Verdict

AHEAD = 4
"""Groups that are begun or wait for earlier ones, per worker."""


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
        pipe.send(error)


def _answer(group: Group, model: Any, terms: Terms) -> list[Verdict] | Exception:
    try:
        return verify_group(group, model, terms)
    except Exception as error:  # noqa: BLE001 - the driver raises it when the group's turn has come
        return error


@dataclass(slots=True, eq=False)
class _Open:
    """A group of which not all verdicts are there."""

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
        """Return what is left to do behind the death of a worker."""
        self.deaths += 1
        if self.deaths < TRIES:
            return [self]
        if self.place is None:
            return [_Job(self.whole, place) for place in range(len(self.whole.group.cases))]
        self.take([lost()])
        return []


class _Worker:
    """A process with a model, started anew where it died."""

    def __init__(self, source: Source, device: str | None, workers: int) -> None:
        self._arguments = (source, device, workers)
        self.job: _Job | None = None
        self.start()

    def start(self) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, *self._arguments), daemon=True)
        self.process.start()
        other.close()
        self.ready = False

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class LocalEngine:
    """Processes of this machine, one per device.

    Args:
        source: The model; every process opens its own copy.
        devices: Device of each process; None takes cuda where there is one.

    Raises:
        UsageError: There are no devices.
    """

    def __init__(self, source: Source, devices: Sequence[str | None]) -> None:
        """Start the processes; they open the model meanwhile."""
        if not devices:
            raise UsageError("no devices; expected one per process, for instance cpu or cuda:0")
        self._info: ModelInfo | None = None
        self._failed = 0
        self._left: deque[_Job] = deque()
        self._workers = [_Worker(source, device, len(devices)) for device in devices]

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
        """Take as many groups as keep the workers busy."""
        while len(self._left) < len(self._workers) and len(begun) < AHEAD * len(self._workers):
            if (group := next(stream, None)) is None:
                return
            begun.append(_Open(group))
            self._left.append(_Job(begun[-1]))

    def _hand_out(self, terms: Terms) -> None:
        for worker in self._workers:
            if worker.ready and worker.job is None and self._left:
                worker.job = self._left.popleft()
                try:
                    worker.pipe.send((worker.job.group, terms))
                except OSError:
                    self._replace(worker)

    def _collect(self) -> None:
        """Wait until a worker says something, or dies."""
        talking = connection.wait([worker.pipe for worker in self._workers])
        for worker in [own for own in self._workers if own.pipe in talking]:
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            if worker.job is not None:
                worker.job.take(answer)
                worker.job = None
            elif isinstance(answer, Exception):
                raise answer
            else:
                self._info, worker.ready, self._failed = answer, True, 0

    def _replace(self, worker: _Worker) -> None:
        worker.stop()
        if not worker.ready:
            self._failed += 1
            if self._failed > TRIES:
                found = f"{self._failed} processes ended (exit code {worker.process.exitcode}) while opening the model"
                expected = 'fewer --processes, or more memory; scripts need `if __name__ == "__main__":`'
                raise UsageError(f"{found}; expected to open a copy in each: {expected}")
        if worker.job is not None:
            self._left.extendleft(reversed(worker.job.again()))
            worker.job = None
        worker.start()
