"""Engines: wherever clips are verified, the log is the same; a worker that dies loses nothing and doubles nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import engine_workers
import pytest
import torch
from engine_workers import OddError, OddSource, grouped
from made_profiles import calibrated

from earmark import audit
from earmark.audit import run_audit
from earmark.engines import Engine, InProcess, Source, local, open_engine, portable
from earmark.engines.local import LocalEngine
from earmark.engines.ray import Tally, _taken
from earmark.errors import EndpointError, RecordError, UsageError
from earmark.rules import Case
from earmark.scenarios import scenario

SEED = "a seed of sixteen letters or more"
SOURCE = Source(model="embedded:whisper-nano", arithmetic="float32")

# Workers without a model


@pytest.fixture
def light(monkeypatch):
    """Return a function that starts workers without a model; they are ended behind the test."""
    monkeypatch.setattr(local, "_serve", engine_workers.serve)
    started = []

    def start(*devices, **options):
        started.append(LocalEngine(SOURCE, devices, **options))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


def names_of(results):
    """Return the name in each verdict; None for a case that was lost."""
    return [own.findings[0].found if own.passed else None for _, verdicts in results for own in verdicts]


def test_groups_come_in_order_however_long_they_take(light):
    engine = light("cpu", "cpu")
    groups = grouped(["slow", *["quick"] * 30])
    results = list(engine.verify(groups, None))
    assert [group for group, _ in results] == groups
    assert names_of(results) == [str(i) for i in range(31)]
    assert isinstance(engine, Engine)


def test_a_deadly_case_costs_itself_alone(light):
    """It gets no verdict, by the verifier's own fault; its neighbours are verified one by one."""
    engine = light("cpu", "cpu")
    results = list(engine.verify(grouped(["quick"] * 4 + ["deadly"] + ["quick"] * 5), None))
    assert names_of(results) == [None if i == 4 else str(i) for i in range(10)]
    died = results[1][1][1]
    assert (died.outcome, died.fault, died.findings[0].code) == ("INCONCLUSIVE", "verifier", "worker.died")
    assert [own.findings[0].expected for _, verdicts in results for own in verdicts if own.passed] == [
        *"333",  # how many were verified together
        *"11",
        *"333",
        *"1",
    ]


def test_a_case_that_hangs_costs_itself_alone(light, monkeypatch):
    """Its worker never dies; it is ended when its time is over, and what follows is that of a dead one."""

    def begin(worker):
        worker.due = time.monotonic() + (60 if worker.job is None else 1)  # a busy machine opens slowly

    monkeypatch.setattr(local._Worker, "begin", begin)
    monkeypatch.setattr(local, "TRIES", 1)
    results = list(light("cpu").verify(grouped(["quick", "quick", "stuck", "quick"]), None))
    assert names_of(results) == ["0", "1", None, "3"]
    assert results[0][1][2].findings[0].code == "worker.died"


def test_workers_that_do_not_open_in_time_are_an_error(light):
    with pytest.raises(UsageError, match=r"took more than 0\.01 s.*longer --worker-timeout"):
        _ = light("cpu", timeout_s=0.01).info


def test_groups_before_an_error_of_the_stream_come_first(light):
    def groups():
        yield from grouped(["slow", "quick", "quick", *["quick"] * 6])
        raise UsageError("a name stands twice")

    stream = light("cpu", "cpu").verify(groups(), None)
    assert names_of(next(stream) for _ in range(3)) == [*"012345678"]
    with pytest.raises(UsageError, match="stands twice"):
        next(stream)
    held, error = _taken(groups())
    assert (len(held), str(error)) == (3, "a name stands twice")


# Errors on their way


def test_an_error_that_cannot_be_received_is_told_in_words(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # it runs in this process
    driver, worker = multiprocessing.Pipe()
    local._serve(worker, OddSource(model="none"), "cpu", 1)
    with driver, worker:
        assert "a worker raised OddError: cpu in place of 1" in str(driver.recv())


def _sent(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - as a pipe does


def test_errors_arrive_as_they_were_or_as_one_of_earmark(monkeypatch):
    def verify_group(*_):
        raise OddError(1, 2)

    monkeypatch.setattr(local, "verify_group", verify_group)
    assert "OddError: 2 in place of 1" in str(_sent(local._answer(None, None, None)))
    for error in (EndpointError("gone", code="endpoint.cut", fault="verifier"), RecordError("bad", code="x.y")):
        assert portable(error) is error
        copy = _sent(error)
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    held = UsageError("with a function")
    held.reason = lambda: None
    assert str(portable(held)).startswith("a worker raised UsageError: with a function")


def test_an_error_comes_when_its_turn_has_come(light):
    results = []
    with pytest.raises(UsageError, match="a wrong case"):
        results.extend(light("cpu", "cpu").verify(grouped(["slow", *["quick"] * 5, "wrong", "quick"]), None))
    engine = light("cpu")
    stream = engine.verify(grouped(["slow", *["quick"] * 5, "wrong", "quick"]), None)
    assert names_of([next(stream), next(stream)]) == [*"012345"]
    with pytest.raises(UsageError, match="a wrong case"):
        next(stream)
    assert names_of(engine.verify(grouped(["quick"] * 2), None)) == ["0", "1"], "the engine goes on"


def test_groups_are_taken_a_bounded_number_ahead(light):
    taken = []

    def groups():
        for group in grouped(["quick"] * 300):
            taken.append(group)
            yield group

    stream = light("cpu", "cpu").verify(groups(), None)
    next(stream)
    stream.close()
    assert len(taken) <= 2 * local.AHEAD + 1


def test_workers_that_do_not_start_are_an_error_and_no_verdict(light):
    with pytest.raises(UsageError, match=r"exit code 7.*fewer --processes"):
        _ = light("broken").info
    with pytest.raises(UsageError, match="no such model"):
        _ = light("wrong").info


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "dask"}, "known: local, ray"),
        ({"devices": ["cpu"], "processes": 2}, "expected one of them"),
        ({"devices": ["cpu"], "kind": "ray"}, "as ray hands them out"),
        ({"processes": 0}, "1 or more"),
        ({"processes": 1, "timeout_s": 0.0}, "a timeout of 0 s"),
        ({"processes": 1, "timeout_s": float("nan")}, "a timeout of nan s"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        open_engine(SOURCE, **options)


# Workers with a model


@pytest.fixture(scope="module")
def cases(nano, clips):
    """Return clips of a provider that cheats on the last third."""
    chosen = clips[:12]
    honest = scenario("honest", batch_size=4).record(nano, chosen[:8])
    cheated = scenario("quantise", bits=4).record(nano, chosen[8:])
    return [
        (f"clip{i}", Case(evidence=e.to_msgpack(), audio=c.audio, request=c.request, receipt=e.receipt))
        for i, (e, c) in enumerate(zip([*honest, *cheated], chosen, strict=True))
    ]


@pytest.fixture
def audited(nano, cases, tmp_path, monkeypatch):
    """Return a function that runs an audit in rounds of two clips and gives its log; and the log of one process."""
    monkeypatch.setattr(audit, "ROUND", 2)
    profile = calibrated(nano)
    log = tmp_path / "log.jsonl"

    def run(engine, given=cases, **options):
        run_audit(given, engine, profile, log, stop=options.pop("stop", False), reexecute=0.3, seed=SEED, **options)
        return log.read_bytes()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker of two has on two cores
    expected = run(InProcess(nano))
    torch.set_num_threads(threads)
    log.unlink()
    rows = [json.loads(line) for line in expected.splitlines()]
    assert [row["outcome"] for row in rows] == ["PASS"] * 8 + ["FAIL"] * 4
    run.log, run.expected, run.rows = log, expected, rows
    return run


def decided(log):
    """Return what was decided of each clip; the last digits of scores depend on the number of threads."""
    rows = [json.loads(line) for line in log.splitlines()]
    return [(row["clip"], row["outcome"], row["mode"], row["findings"], row["decision"]) for row in rows]


def test_two_processes_write_the_log_of_one_whatever_is_killed(audited, cases):
    """A worker that holds a group is killed; then the audit is, and goes on from its log."""
    engine = LocalEngine(SOURCE, ["cpu", "cpu"])
    try:
        _ = engine.info
        held = engine._workers[0].process.pid
        os.kill(held, signal.SIGSTOP)  # so that it holds a group, for sure
        threading.Timer(0.5, os.kill, (held, signal.SIGKILL)).start()
        assert decided(audited(engine)) == decided(audited.expected)
        assert engine._workers[0].process.pid != held
        whole = audited.log.read_bytes()

        audited.log.unlink()
        with pytest.raises(KeyboardInterrupt):
            audited(engine, advance=_die_at("clip4"))
        audited.log.write_bytes(audited.log.read_bytes()[:-9])
        assert audited(engine) == whole, "bit for bit: the round that was cut short was verified again"

        audited.log.unlink()
        early = decided(audited(engine, cases[::-1], stop=True))
        assert early[-1][-1] == "FAIL"
        assert len(early) == 4, "it ends at the first look behind the decision"
    finally:
        engine.close()


def _die_at(name):
    def advance(entry):
        if entry.clip == name:
            raise KeyboardInterrupt

    return advance


# Ray


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster of two CPUs, and end it."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install earmark[ray]")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default ray's workers give way to everything else
    options = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False, "object_store_memory": 80 * 2**20}
    ray.init(address="local", logging_level="ERROR", **options)
    yield ray
    ray.shutdown()


def test_two_workers_of_ray_write_the_same_log_though_one_is_killed(cluster, audited):
    assert cluster.is_initialized()
    engine = open_engine(SOURCE, kind="ray", device="cpu", processes=2)
    killed = []

    def advance(entry):  # noqa: ARG001
        if not killed:
            killed.append(_workers_of_ray()[0])
            os.kill(killed[0], signal.SIGKILL)

    assert decided(audited(engine, advance=advance)) == decided(audited.expected)
    assert killed
    engine.close()
    assert cluster.is_initialized(), "a cluster that was there before stays"


def _workers_of_ray():
    """Return the processes of this test's own cluster that hold a model."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])

    def ours(pid):
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [pid for pid, name in names.items() if name.startswith(b"ray::MapWorker") and ours(pid)]


def test_a_cluster_that_is_too_small_is_refused(cluster):
    assert cluster.is_initialized()
    with pytest.raises(UsageError, match=r"a cluster of 2 CPUs for 3 workers.*fewer --processes"):
        open_engine(SOURCE, kind="ray", device="cpu", processes=3)
    with pytest.raises(UsageError, match=r"a cluster of 0 GPUs for 1 workers.*another --device"):
        open_engine(SOURCE, kind="ray", device="cuda:1")


def test_ray_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--engine ray needs ray; install earmark\[ray\]"):
        open_engine(SOURCE, kind="ray")


def test_a_worker_of_ray_that_hangs_ends_itself():
    """In time nothing happens; else the process ends and says where it hung, whatever lock it holds."""
    code = "import time\nfrom earmark.engines.ray import _limited\n"
    code += "with _limited(60):\n    print('in time', flush=True)\nwith _limited(0.1):\n    time.sleep(60)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (1, "in time\n")
    assert "line 6" in done.stderr


def test_only_work_that_was_begun_and_not_ended_counts():
    tally = Tally()
    assert [tally.begin(1), tally.begin(1), tally.begin((1, 0))] == [1, 2, 1]
    tally.end(1)
    assert tally.begin(1) == 1
