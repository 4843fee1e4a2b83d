"""Naming deployments: splits without leaks, the estimator, what is saved and what is refused, both commands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import shutil
import zipfile
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

import earmark
from earmark import Case, classify
from earmark.challenges import load as load_clips
from earmark.classify import DeploymentClassifier, purged_splits
from earmark.classify.evaluation import cross_validate
from earmark.classify.speakers import speakers_of
from earmark.classify.splits import check_apart
from earmark.cli import main
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.shape import SHAPE_VERSION
from earmark.fingerprint.types import FINGERPRINT_VERSION, Fingerprint
from earmark.records.verdict import Verdict
from earmark.runs import RUN_VERSION, Row, Run
from earmark.scenarios import scenario

SIZES = {"reference": 1e-6, "int8": 3e-2, "int4": 6e-1, "fp8": 2e-1}
"""Size of each made-up deployment's deviation."""
BUCKETS = 24


def made_run(clips: int = 50, deployments: tuple[str, ...] = tuple(SIZES), seed: int = 0) -> Run:
    """Rows of made-up deployments: each has a size, and moves tokens in its own direction."""
    rng = np.random.default_rng(seed)
    directions = {name: np.random.default_rng(i).standard_normal(BUCKETS) for i, name in enumerate(SIZES)}
    rows = []
    for clip in range(clips):
        loudness = 0.3 * rng.standard_normal()
        for name in deployments:
            size = SIZES[name] * np.exp(loudness + 0.1 * rng.standard_normal())
            share = 0.0 if name == "reference" else 1.0
            tokens = (share * directions[name] + rng.standard_normal(BUCKETS)) / BUCKETS**0.5
            shape = {"shape_rms": size, "shape_mean": float(0.1 * rng.standard_normal()), "own_chosen_mean": loudness}
            shape |= {f"shape_token_{i}": float(value) for i, value in enumerate(tokens)}
            rows.append(made_row(f"c{clip}", name, {"logprob_l1": 0.8 * size, "margin_max": np.nan}, shape))
    return Run(rows)


def made_row(clip: str, name: str, statistics: dict[str, float], shape: dict[str, float]) -> Row:
    return Row(
        clip=clip,
        base=clip,
        scenario=name,
        honest=name == "reference",
        model="made-up",
        weights="a" * 64,
        family="ctc",
        precision="fp32",
        level="scores",
        outcome="PASS",
        statistics=statistics,
        shape=shape,
    )


@pytest.fixture(scope="module")
def trained():
    return classify.train(made_run(), exclude=["fp8"], folds=3)


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "made")
    return tmp_path / "made"


# splits


def test_no_base_clip_and_no_speaker_stands_on_both_sides():
    keys = list(speakers_of(load_clips()).values())
    folds = list(purged_splits(keys, 5))
    assert len(folds) == 5
    for train, test in folds:
        assert len(train) > len(keys) / 2
        assert not {k for i in train for k in keys[i]} & {k for i in test for k in keys[i]}
    tested = np.concatenate([test for _, test in folds])
    assert len(set(tested.tolist())) == len(tested) > 0.7 * len(keys)  # mixes of voices of several folds are left out


def test_a_base_clip_on_both_sides_is_refused():
    keys = [("clip a",), ("clip b",), ("clip a",)]
    check_apart(keys, np.array([0, 2]), np.array([1]))
    with pytest.raises(UsageError, match="share clip a"):
        check_apart(keys, np.array([0, 1]), np.array([2]))


def test_cross_validation_would_find_a_leak(monkeypatch):
    data = classify.table(made_run(20))
    everything = np.arange(len(data.labels))
    monkeypatch.setattr("earmark.classify.evaluation.purged_splits", lambda *_: [(everything, everything)])
    with pytest.raises(UsageError, match="share clip c0"):
        classify.train(made_run(20))


# the estimator


@pytest.mark.filterwarnings("ignore")  # the checks feed it degenerate data
def test_scikit_learn_accepts_the_estimator():
    results = check_estimator(DeploymentClassifier(folds=2), on_skip=None)
    assert {row["status"] for row in results} <= {"passed", "skipped"}
    assert sum(row["status"] == "passed" for row in results) > 40


def test_known_deployments_are_named_and_strangers_refused(trained):
    figures = trained.header.figures
    assert figures.balanced_accuracy > 0.97
    assert figures.open_rates()["fp8"].value > 0.8
    assert figures.refused().value < 0.12
    assert figures.left_out_rates()["int8"].value > 0.8
    assert figures.open_rates()["reference"].value > 0.95
    assert figures.calibration_error < 0.1


def test_p_values_of_fresh_rows_keep_their_promise():
    old, new = (classify.table(made_run(200, ("reference", "int8", "int4"), seed)) for seed in (1, 2))
    estimator = DeploymentClassifier(random_state=0).fit(old.values, np.asarray(old.labels), groups=old.keys)
    own = estimator.p_values(new.values)[np.arange(len(new.labels)), np.searchsorted(estimator.classes_, new.labels)]
    assert 0.01 < (own <= 0.05).mean() < 0.1
    assert 0.2 < (own <= 0.5).mean() < 0.6, "nearer rows than a class has on average are alike, with a p-value of 1"


def test_shuffled_labels_are_learned_by_nobody():
    data = classify.table(made_run(40, ("reference", "int8", "int4")))
    labels = np.random.default_rng(0).permutation(data.labels)
    shuffled = dataclasses.replace(data, labels=tuple(map(str, labels)))
    figures = cross_validate(shuffled, folds=3)
    assert 0.2 < figures.balanced_accuracy < 0.47


def test_a_stranger_of_the_size_of_int8_is_found_by_its_direction(trained):
    rng, strangers = np.random.default_rng(5), []
    for row in made_run(100, seed=7):
        if row.scenario == "int8":
            tokens = rng.standard_normal(BUCKETS) / BUCKETS**0.5
            shape = row.shape | {f"shape_token_{i}": float(v) for i, v in enumerate(tokens)}
            strangers.append(dataclasses.replace(row, shape=shape))
    names = [naming.label for naming in trained.classify_many(strangers)]
    assert names.count("unknown") > 0.5 * len(names)


# use


def test_rows_verdicts_and_fingerprints_are_named_alike(trained):
    row = made_run(1)[1]
    fingerprint = Fingerprint("ctc", tuple(row.statistics), tuple(row.statistics.values()), shape=row.shape)
    made = {"weights": row.weights, "precision": row.precision}
    verdict = Verdict(outcome="FAIL", proves="committed", fingerprint=fingerprint, provenance=made)
    names = [trained.classify(found) for found in (row, fingerprint, verdict, json.loads(verdict.to_json()))]
    assert {naming.label for naming in names} == {"int8"}
    assert len({round(naming.known, 9) for naming in names}) == 1
    assert sum(names[0].probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": "b" * 64}, "classifier knows made-up"),
        ({"precision": "bf16"}, "bf16, ctc; the classifier knows made-up .*fp32, ctc"),
        ({"family": "transducer"}, "transducer; the classifier knows"),
        ({"level": "compact"}, "level compact; the classifier was trained on scores"),
        ({"shape": {}}, "features are missing"),
        ({"statistics": {"other": 1.0}}, "logprob_l1"),
    ],
)
def test_recordings_of_something_else_are_refused(trained, change, reason):
    with pytest.raises(UsageError, match=reason):
        trained.classify(dataclasses.replace(made_run(1)[0], **change))


def test_other_versions_and_missing_replays_are_refused(trained):
    old = Fingerprint("ctc", (), (), version=FINGERPRINT_VERSION + 1)
    with pytest.raises(UsageError, match="train it again"):
        trained.classify(old)
    made = {"weights": "a" * 64, "precision": "fp32"}
    with pytest.raises(UsageError, match="no replay"):
        trained.classify(Verdict(outcome="FAIL", proves="committed", provenance=made))
    with pytest.raises(UsageError, match="family transducer"):
        trained.classify(Fingerprint("transducer", (), ()))


def test_what_would_be_learned_as_if_it_were_the_deployment_is_refused():
    rows = made_run(9)
    mixed = [dataclasses.replace(row, precision="bf16") if row.scenario == "int8" else row for row in rows]
    with pytest.raises(UsageError, match="precisions bf16, fp32"):
        classify.train(Run(mixed))
    called = [dataclasses.replace(row, scenario="unknown") if row.scenario == "int8" else row for row in rows]
    with pytest.raises(UsageError, match="'unknown', which means something else"):
        classify.train(Run(called))


def test_a_sketch_beside_the_scores_changes_nothing(trained):
    row = made_run(1)[1]
    shown = dataclasses.replace(row, level="sketch", statistics={**row.statistics, "sketch_distance": 0.5})
    assert trained.classify(shown) == trained.classify(row)


def test_what_recipes_say_is_no_part_of_one_replay():
    """`along` and `excess` come of a replay with a known alternative; a plain verdict has none of them."""
    more = {"along_int8": 1.0, "excess_int8": 0.5}
    rows = [dataclasses.replace(r, statistics={**r.statistics, **more}) for r in made_run(2)]
    rows = [dataclasses.replace(r, shape={**r.shape, "match_int8_projection": 0.9}) for r in rows]
    replay, matched = (set(classify.table(rows, kind).names) for kind in ("replay", "matched"))
    assert replay == set(classify.table(made_run(2)).names)
    assert matched - replay == {"match_int8_projection"}


@pytest.mark.parametrize("name", ["whisper-nano", "qwen3-asr-nano", "parakeet-ctc-nano", "parakeet-tdt-nano"])
def test_a_classifier_that_ships_names_a_plain_verdict(name, clips):
    """By one replay, as `earmark verify` makes it; honest, and of two cheats."""
    reference = earmark.load(f"embedded:{name}")
    shipped = classify.load(Path(str(files("earmark.data"))) / "classifiers" / name)
    for cheat, label in ((scenario("honest", batch_size=1), "reference"), (scenario("quantise", bits=8), "int8")):
        evidence = cheat.record(reference, clips[:12])
        cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips[:12], strict=True)]
        found = [shipped.classify(verdict).label for verdict in earmark.verify_many(cases, reference)]
        assert found.count(label) >= 8, found  # each is refused in one clip of twenty


def test_a_row_knows_its_versions_by_that_of_the_run():
    """Rows keep one version: whoever changes a statistic or the shape raises that of the run too, and this line."""
    assert (RUN_VERSION, FINGERPRINT_VERSION, SHAPE_VERSION) == (2, 2, 1)


def test_a_run_without_features_is_refused():
    with pytest.raises(UsageError, match="no row holds features"):
        classify.train(Run([dataclasses.replace(row, shape={}) for row in made_run(3)]))
    with pytest.raises(UsageError, match="no row holds features of the kind matched"):
        classify.train(made_run(3), features="matched")
    with pytest.raises(UsageError, match="no rows of nf4"):
        classify.train(made_run(9), exclude=["nf4"])


# files


def test_a_classifier_comes_back_as_it_was(trained, saved):
    again = classify.load(saved)
    assert again.header == msgspec.structs.replace(trained.header, estimator=again.header.estimator)
    rows = made_run(5, seed=3)
    assert again.classify_many(rows) == trained.classify_many(rows)
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "| fp8 |" in card
    assert "what it was called" in card


def put(folder, data: bytes) -> None:
    """Replace the estimator and let the header name its digest, as somebody who made both would."""
    (folder / "classifier.skops").write_bytes(data)
    header = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    header["estimator"] = hashlib.sha256(data).hexdigest()
    (folder / "classifier.json").write_text(json.dumps(header), encoding="utf-8")


class Foreign:
    """A type that does not belong into a classifier."""

    def __init__(self) -> None:
        self.value = 1


def test_a_foreign_type_is_refused(saved, trained):
    put(saved, skops.io.dumps({"names": list(trained.header.names), "estimator": Foreign()}))
    with pytest.raises(RecordError, match=r"foreign types: .*Foreign"):
        classify.load(saved)


def test_another_estimator_is_refused(saved, trained):
    put(saved, skops.io.dumps({"names": list(trained.header.names), "estimator": LogisticRegression()}))
    with pytest.raises(RecordError, match="expected a DeploymentClassifier"):
        classify.load(saved)


def test_a_pickle_is_refused(saved):
    put(saved, pickle.dumps({"names": [], "estimator": 1}))
    with pytest.raises(RecordError, match="no skops file"):
        classify.load(saved)


def test_a_bomb_is_refused(saved, tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"0" * (65 * 1024 * 1024))
    put(saved, bomb.read_bytes())
    with pytest.raises(RecordError, match="are read"):
        classify.load(saved)


def test_a_swapped_estimator_is_refused(saved):
    (saved / "classifier.skops").write_bytes((saved / "classifier.skops").read_bytes() + b"\0")
    with pytest.raises(RecordError, match="SHA-256 differs"):
        classify.load(saved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h.update(names=h["names"][::-1]), "another order"),
        (lambda h: h.update(classes=h["classes"][::-1]), "other deployments"),
        (lambda h: h.update(fingerprint_version=FINGERPRINT_VERSION + 1), "train again"),
        (lambda h: h.update(shape_version=0), "train again"),
        (lambda h: h.update(surprise=1), "surprise"),
        (lambda h: h.update(format="earmark.classifier/9"), "earmark.classifier/9"),
        (lambda h: h["figures"].update(counts=[[1]]), "matrices do not fit"),
        (lambda h: h.pop("classes"), "classes"),
    ],
)
def test_a_changed_header_is_refused(saved, change, reason):
    header = json.loads((saved / "classifier.json").read_text(encoding="utf-8"))
    change(header)
    (saved / "classifier.json").write_text(json.dumps(header), encoding="utf-8")
    with pytest.raises(RecordError, match=reason):
        classify.load(saved)


def test_missing_files_are_named(saved, tmp_path):
    with pytest.raises(UsageError, match=r"classifier\.json"):
        classify.load(tmp_path / "nowhere")
    (saved / "classifier.skops").unlink()
    with pytest.raises(UsageError, match=r"classifier\.skops"):
        classify.load(saved)


# commands


def test_train_and_classify_from_the_command_line(tmp_path, capsys):
    run, out = tmp_path / "run.jsonl", tmp_path / "own"
    made_run(20).write(run)
    assert main(["train", str(run), "--out", str(out), "--exclude", "fp8", "--folds", "3"]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    made_run(2, seed=9).write(run)
    assert main(["classify", str(out), str(run), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows[:3]] == ["reference", "int8", "int4"]
    assert main(["classify", str(out), str(run)]) == 0
    assert "int8" in capsys.readouterr().out
    assert main(["classify", str(out), str(run), "--by-provider", "--json"]) == 0
    counted = {row["provider"]: row["called"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert sum(counted["int8"].values()) == 2
    assert set(counted["int8"]) == set(counted["reference"])
    run.write_text('{"other": 1}\n', encoding="utf-8")
    assert main(["classify", str(out), str(run)]) == 3
    assert "neither a row" in capsys.readouterr().err
    shutil.rmtree(out)
    assert main(["classify", str(out), str(run)]) == 3
