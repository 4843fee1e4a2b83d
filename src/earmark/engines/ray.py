"""Groups on the workers of a Ray cluster, by Ray Data: one copy of the model per GPU, or per worker.

`ray.init` is left to Ray's own variables (`RAY_ADDRESS` names a cluster); without them a cluster of this machine alone
is started, and ended with the engine. Paths in cases must lead to the same files on every machine.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from earmark.engines import TIMEOUT_S, TRIES, Group, Source, Terms, lost, portable, verify_group
from earmark.errors import UsageError
from earmark.extras import need
from earmark.protocols import ModelInfo
from earmark.records.verdict import Verdict

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Shared memory of a cluster that is started here: groups are small."""


class Tally:
    """How often workers began something and did not end it: only a worker that died leaves a count behind."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._begun: Counter[Hashable] = Counter()

    def begin(self, key: Hashable) -> int:
        """Return how many workers have begun it, this one among them."""
        self._begun[key] += 1
        return self._begun[key]

    def end(self, key: Hashable) -> None:
        """Note that it was done."""
        del self._begun[key]


class Worker:
    """One copy of the model; Ray Data calls it with batches of groups, and starts it anew where it died."""

    def __init__(
        self, source: Source, device: str | None, terms: bytes, tally: Any, timeout_s: float | None = None
    ) -> None:
        """Open the model."""
        self._tally, self._timeout_s = tally, timeout_s
        with _limited(timeout_s):
            self._model = source.open(device)
        self._terms: Terms = pickle.loads(terms)  # noqa: S301 - the driver's own bytes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return verdicts, or an error, of each group."""
        answers = [
            pickle.dumps(self._answer(int(number), pickle.loads(group)))  # noqa: S301 - the driver's own bytes
            for number, group in zip(batch["number"], batch["group"], strict=True)
        ]
        return {"number": batch["number"], "answer": answers}

    def _answer(self, number: int, group: Group) -> list[Verdict] | Exception:
        try:
            whole = self._try((number,), group)
            if whole is not None:
                return whole
            alone = [self._try((number, place), group.only(place)) for place in range(len(group.cases))]
            return [own[0] if own else lost() for own in alone]
        except Exception as error:  # noqa: BLE001 - the driver raises it when the group's turn has come
            return portable(error)

    def _try(self, key: tuple[int, ...], group: Group) -> list[Verdict] | None:
        """Return the verdicts, or None where too many workers died of it."""
        import ray

        if ray.get(self._tally.begin.remote(key)) > TRIES:
            return None
        with _limited(self._timeout_s):
            verdicts = verify_group(group, self._model, self._terms)
        ray.get(self._tally.end.remote(key))
        return verdicts


class RayEngine:
    """Workers of a Ray cluster.

    Args:
        source: The model; every worker opens its own copy.
        device: Where; by default cuda on workers that Ray gives a GPU, else the CPU.
        workers: How many; by default one per GPU of the cluster, or one.
        timeout_s: Seconds that a worker may take for one group, or to open the model; None for no limit.

    Raises:
        UsageError: Ray is not installed, or the cluster is too small.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: str | None = None,
        workers: int | None = None,
        timeout_s: float | None = TIMEOUT_S,
    ) -> None:
        """Reach the cluster, or start one."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        self._ray = need("ray", what="--engine ray", extra="ray")
        need("ray.data", what="--engine ray", extra="ray")
        self._own = not self._ray.is_initialized()
        if self._own:
            _start(self._ray, workers)
        self._source, self._timeout_s = source, timeout_s
        self._info: ModelInfo | None = None
        there = self._ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
        on_gpu = device.startswith("cuda") if device else bool(gpus)
        self._device = "cuda" if on_gpu else device or "cpu"  # ray shows each worker one GPU alone
        self._needs = {"num_gpus": 1} if on_gpu else {"num_cpus": 1}
        self._workers = workers or gpus or 1
        kind, most = ("GPUs", gpus) if on_gpu else ("CPUs", int(there.get("CPU", 0)))
        if self._workers > most:
            self.close()
            found = f"a cluster of {most} {kind} for {self._workers} workers"
            raise UsageError(f"{found}; expected one for each: give fewer --processes, or another --device")

    @property
    def info(self) -> ModelInfo:
        """Facts about the model, as one worker of the kind says."""
        if self._info is None:
            opening = self._ray.remote(**self._needs, max_retries=TRIES)(_info_of)
            asked = opening.remote(self._source, self._device, self._timeout_s)
            with _named(self._ray):
                answer: ModelInfo | Exception = pickle.loads(self._ray.get(asked))  # noqa: S301 - our worker's bytes
            if isinstance(answer, Exception):
                raise answer
            self._info = answer
        return self._info

    def verify(self, groups: Iterable[Group], terms: Terms) -> Iterator[tuple[Group, list[Verdict]]]:
        """Yield each group with its verdicts, in order; Ray Data takes all groups at once."""
        held, broken = _taken(groups)
        if held:
            yield from self._verify(held, terms)
        if broken is not None:
            raise broken

    def _verify(self, held: Sequence[Group], terms: Terms) -> Iterator[tuple[Group, list[Verdict]]]:
        from ray.data import ActorPoolStrategy, from_items

        tally = self._ray.remote(num_cpus=0)(Tally).remote()
        rows = [{"number": number, "group": pickle.dumps(group)} for number, group in enumerate(held)]
        settings = {"source": self._source, "device": self._device, "terms": pickle.dumps(terms), "tally": tally}
        settings["timeout_s"] = self._timeout_s
        pool = ActorPoolStrategy(size=min(self._workers, len(held)))
        # Ray Data restarts workers that died and does their groups again, without end: the tally ends it
        data = from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker, fn_constructor_kwargs=settings, batch_size=1, compute=pool, **self._needs
        )
        with _quiet(), _named(self._ray):
            stream = iter(data.iter_rows())
            try:
                for group, answer in zip(held, _in_order(stream), strict=True):
                    if isinstance(answer, Exception):
                        raise answer
                    yield group, answer
            finally:
                del stream, data  # which ends what still runs

    def close(self) -> None:
        """End the cluster, where it was started here."""
        if self._own:
            self._ray.shutdown()
            self._own = False


def _taken(groups: Iterable[Group]) -> tuple[list[Group], Exception | None]:
    """Return all groups, and the error at which they broke off."""
    held: list[Group] = []
    try:
        for group in groups:
            held.append(group)  # noqa: PERF402 - those before an error are kept
    except Exception as error:  # noqa: BLE001 - raised when its turn has come
        return held, error
    return held, None


@contextmanager
def _limited(timeout_s: float | None) -> Iterator[None]:
    """End this process where the block takes too long, with its stack on stderr; Ray starts it anew."""
    if timeout_s is None:
        yield
        return
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=2)  # needs no lock of Python, as a thread would
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _in_order(rows: Iterator[dict[str, Any]]) -> Iterator[Any]:
    """Yield the answers of numbered rows in the order of their numbers."""
    early: dict[int, Any] = {}
    wanted = 0
    for row in rows:
        early[int(row["number"])] = pickle.loads(row["answer"])  # noqa: S301 - our workers' bytes
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def _start(ray: Any, workers: int | None) -> None:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        options["object_store_memory"] = OBJECT_STORE_BYTES
        if workers is not None:
            options["num_cpus"] = max(workers, os.cpu_count() or 1)
    try:
        ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"no Ray cluster on {where}: {reason}; expected one that runs, named by RAY_ADDRESS"
        ) from error


def _info_of(source: Source, device: str, timeout_s: float | None) -> bytes:
    """Return facts about the model, or the error of opening it."""
    try:
        with _limited(timeout_s):
            return pickle.dumps(source.open(device).info)
    except Exception as error:  # noqa: BLE001 - the driver raises it
        return pickle.dumps(portable(error))


@contextmanager
def _named(ray: Any) -> Iterator[None]:
    """Say in one line what Ray could not do."""
    try:
        yield
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        expected = "workers that live, or come back; the audit goes on from its log, Ray's own logs say why"
        raise UsageError(f"Ray gave up: {reason}; expected {expected}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Ray Data neither draw bars nor tell its plans."""
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    shown, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = shown
        logger.setLevel(level)
