"""Our families and models keep their contracts, and broken ones are told by the right one."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from tiny_models import parakeet

import earmark
from earmark.checkpoint import embedded_names, resolve
from earmark.errors import TraceError, UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.registry import registry
from earmark.testing import FAMILY_CONTRACTS, LOADER_CONTRACTS, MODEL_CONTRACTS, check_family, check_model
from earmark.testing.bench import default_clips, require
from earmark.verifiers.autoregressive import AutoregressiveFamily

#: Models of each family: those that ship, which really transcribe, and small random ones of the real classes.
MODELS = {
    "autoregressive": ("whisper-nano",),
    "ctc": ("parakeet-ctc-nano", "random-ctc"),
    "transducer": ("parakeet-tdt-nano", "random-tdt", "random-rnnt"),
}
PAIRS = [(family, name) for family, names in MODELS.items() for name in names]


@cache
def _folder(name: str) -> Path:
    if name.startswith("random-"):
        return parakeet(Path(tempfile.mkdtemp(prefix="earmark-")) / name, name.removeprefix("random-"))
    if name not in embedded_names():
        pytest.skip(f"{name} does not ship yet")
    return resolve(f"embedded:{name}")[0]


@cache
def _model(name: str):
    return earmark.load(_folder(name), device="cpu")


def _loader(name: str):
    plugins = [plugin.value for plugin in registry("model").inspect_all() if plugin.error is None]
    return next(loader for loader in plugins if _recognises(loader, _folder(name))), _folder(name)


def _recognises(loader, folder: Path) -> bool:
    try:
        return loader.recognises(folder)
    except earmark.errors.ModelError:
        return False


@pytest.mark.parametrize("contract", FAMILY_CONTRACTS)
@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_families_keep_their_contracts(family, name, contract):
    check_family(registry("family").get(family), _model(name), contracts=[contract])


@pytest.mark.parametrize("contract", [*MODEL_CONTRACTS, *LOADER_CONTRACTS])
@pytest.mark.parametrize("name", [name for _, name in PAIRS])
def test_models_keep_their_contracts(name, contract):
    model = _model(name)
    loader, folder = _loader(name)
    check_model(model, loader=loader, folder=folder, contracts=[contract])


@pytest.mark.parametrize(
    ("dtype", "contract"),
    [
        ("float16", "round trip"),
        ("bfloat16", "round trip"),
        ("bfloat16", "bound to ids"),
        ("float16", "grows with noise"),
    ],
)
def test_contracts_hold_at_16_bits(dtype, contract):
    model = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype)
    check_family(AutoregressiveFamily(), model, contracts=[contract])
    check_model(model, contracts=["float32"])


def test_every_registered_family_is_checked():
    assert set(registry("family").names()) <= set(MODELS)


# Negative controls: broken families


class Ascending(AutoregressiveFamily):
    """Lists its candidates from the worst to the best."""

    def record(self, *arguments, **options):
        outputs = super().record(*arguments, **options)
        return [dataclasses.replace(o, trace=_reversed(o.trace, options["k"])) for o in outputs]


def _reversed(trace: bytes, k: int) -> bytes:
    opened = msgspec.msgpack.decode(trace)
    for name, kind in (("ids", "<i4"), ("logprobs", "<f4")):
        opened[name] = np.frombuffer(opened[name], kind).reshape(-1, k)[:, ::-1].tobytes()
    return msgspec.msgpack.encode(opened)


class Deaf(AutoregressiveFamily):
    """Hears the same noise whatever it is given."""

    def _deaf(self, inputs):
        noise = (np.random.default_rng(0).normal(size=16_000) * 3000).astype(np.int16)
        return [dataclasses.replace(item, samples=noise) for item in inputs]

    def record(self, model, inputs, **options):
        return super().record(model, self._deaf(inputs), **options)

    def replay(self, model, inputs, traces, **options):
        return super().replay(model, self._deaf(inputs), traces, **options)


def _compared(change):
    """Return a family whose statistics are changed after the comparison."""

    class Changed(AutoregressiveFamily):
        def compare(self, *arguments, **options):
            made = super().compare(*arguments, **options)
            values = change(dict(made.fingerprint))
            changed = Fingerprint(self.name, made.fingerprint.names, tuple(values.values()))
            return dataclasses.replace(made, fingerprint=changed)

    return Changed


Shrinking = _compared(lambda values: {**values, "rank_distance": 1 - values["rank_distance"]})
Infinite = _compared(lambda values: {**values, "margin_max": float("inf")})
Blind = _compared(lambda values: dict.fromkeys(values, 0.0))
Empty = _compared(lambda values: dict.fromkeys(values, float("nan")))


class Crashing(AutoregressiveFamily):
    """Opens a trace before it has looked at it."""

    def read(self, segment, request, model, level):
        msgspec.msgpack.decode(segment.trace)["k"]
        return super().read(segment, request, model, level)


class Trusting(AutoregressiveFamily):
    """Reads a trace with a byte too many."""

    def read(self, segment, request, model, level):
        try:
            return super().read(segment, request, model, level)
        except TraceError:
            return super().read(msgspec.structs.replace(segment, trace=segment.trace[:-1]), request, model, level)


class Lenient(AutoregressiveFamily):
    """Says nothing about the emitted tokens."""

    def compare(self, *arguments, **options):
        return dataclasses.replace(super().compare(*arguments, **options), findings=())


class Forgetful(AutoregressiveFamily):
    """Returns its outputs in the order of their length."""

    def record(self, model, inputs, **options):
        if options["batch_size"] > 1:
            inputs = sorted(inputs, key=lambda item: len(item.samples))
        return super().record(model, inputs, **options)


class Undemanding(AutoregressiveFamily):
    """Takes any number of candidates."""

    def review(self, *_):
        return []


class Stale(AutoregressiveFamily):
    """Probes the same places whatever the nonce."""

    def _fixed(self, inputs):
        return [
            dataclasses.replace(item, request=msgspec.structs.replace(item.request, nonce="0" * 32)) for item in inputs
        ]

    def record(self, model, inputs, **options):
        return super().record(model, self._fixed(inputs), **options)

    def replay(self, model, inputs, traces, **options):
        return super().replay(model, self._fixed(inputs), traces, **options)


class Bulky(AutoregressiveFamily):
    """Writes a megabyte of nothing behind every trace."""

    def record(self, *arguments, **options):
        return [
            dataclasses.replace(output, trace=output.trace + bytes(1_000_000))
            for output in super().record(*arguments, **options)
        ]


class Moody(AutoregressiveFamily):
    """Writes another trace each time."""

    calls = 0

    def record(self, *arguments, **options):
        Moody.calls += 1
        extra = msgspec.msgpack.encode(Moody.calls)
        return [dataclasses.replace(o, trace=o.trace + extra) for o in super().record(*arguments, **options)]


class Unnamed(AutoregressiveFamily):
    """Declares one statistic twice."""

    statistics = AutoregressiveFamily.statistics[:1] * 2


class Unbounded(AutoregressiveFamily):
    """Bounds what it does not compute."""

    def provisional_bounds(self, *_):
        return {"similarity": 1.0}


class Untidy(AutoregressiveFamily):
    """Falls over an empty transcript."""

    def compare(self, traces, *arguments, **options):
        if sum(len(trace.emitted) for trace in traces) < 3:
            raise IndexError("no words")
        return super().compare(traces, *arguments, **options)


class Short(AutoregressiveFamily):
    """Compares the first segment alone."""

    def record(self, model, inputs, **options):
        return super().record(model, inputs[:1] * len(inputs), **options)


BROKEN = {
    "describes itself": [(Unnamed, "distinct names"), (Unbounded, r"'similarity'.*names of `statistics`")],
    "round trip": [
        (Ascending, r"FAIL \(trace\.order.*honest evidence of clip 0 at level scores"),
        (Infinite, r"'margin_max': inf"),
        (Empty, "a number behind every PASS"),
    ],
    "repeatable": [(Moody, "other evidence of clip 0 the second time.*remove the chance")],
    "batch invariance": [(Forgetful, "recorded in batches of 4.*order of the inputs")],
    "segments": [(Short, "a clip in two segments")],
    "silence": [(Untidy, r"replay\.failed.*no words.*handle empty transcripts")],
    "bounded traces": [(Bulky, "a trace of 100.* bytes")],
    "strict reading": [
        (Crashing, "from `read` on a damaged trace.*expected TraceError"),
        (Trusting, "read as a trace.*refuse what is cut, padded"),
    ],
    "bound to ids": [(Lenient, r"PASS for .* in clip \d, the trace written anew")],
    "bound to audio": [(Deaf, "different ones; make model and replay depend on the audio")],
    "bound to values": [(Blind, "PASS for field .* filled with")],
    "bound to nonce": [(Stale, "the same trace under another nonce.*choose the probes by the nonce")],
    "least k": [(Undemanding, "PASS for k = 1 under a policy of 5")],
    "grows with noise": [(Shrinking, "rank_distance falls with noise"), (Blind, "clip 0 scored by weights with noise")],
}


@pytest.mark.parametrize(
    ("contract", "family", "message"), [(name, *row) for name, rows in BROKEN.items() for row in rows]
)
def test_broken_families_are_told(contract, family, message):
    with pytest.raises(
        AssertionError, match=rf"(?s)contract '{contract}' of family 'autoregressive' with whisper-nano: .*{message}"
    ):
        check_family(family(), _model("whisper-nano"), contracts=[contract])


@pytest.mark.parametrize("family", [Crashing, Deaf])
def test_the_whole_suite_finds_a_broken_family(family):
    with pytest.raises(AssertionError, match="contract"):
        check_family(family(), _model("whisper-nano"))


def test_every_family_contract_has_a_negative_control():
    assert set(FAMILY_CONTRACTS) - set(BROKEN) == {"damaged records"}, "ids and text are bound by the core"


# Negative controls: broken models


def _altered(**changes):
    """Return a model of which some members are replaced."""
    model = _model("whisper-nano")
    kind = type("Altered", (type(model),), changes)
    return kind(model.info, model.module, model.extractor, model.tokenizer, model.settings)


def _info(**changes):
    model = _altered()
    model.info = dataclasses.replace(model.info, **changes)
    return model


def _chatty():
    texts = iter(range(10**6))
    return _altered(detokenise=lambda _self, _ids: f"text {next(texts)}")


def _unrounded():
    model = _info(precision="bf16")
    model.in_float32 = lambda: model
    return model


BROKEN_MODELS = {
    "family nobody knows": ("describes itself", lambda: _info(family="telepathy"), "telepathy.*register it"),
    "digest cut off": ("describes itself", lambda: _info(weights="abc"), "64 hex digits"),
    "no window": ("describes itself", lambda: _info(window_samples=0), "16000 or more"),
    "chatty detokeniser": ("text", _chatty, "detokenise from the ids alone"),
    "no words": ("words", lambda: _altered(word_index=lambda _self, _ids: [0]), "one per id"),
    "words from 1": (
        "words",
        lambda: _altered(word_index=lambda _self, ids: list(range(1, len(ids) + 1))),
        "count words from 0",
    ),
    "positions of another hop": (
        "positions",
        lambda: _altered(encoder_positions=lambda _self, samples: max(1, samples // 640)),
        "as the encoder gives",
    ),
    "with_module that ignores it": (
        "copies",
        lambda: _altered(with_module=lambda self, _module: self),
        "use the network",
    ),
    "weights not rounded": ("float32", _unrounded, "not rounded to torch.bfloat16"),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_broken_models_are_told(name):
    contract, make, message = BROKEN_MODELS[name]
    with pytest.raises(AssertionError, match=rf"(?s)contract '{contract}' of model.*{message}"):
        check_model(make(), contracts=[contract])


def test_a_model_that_fails_its_own_evidence_is_told():
    model = _altered(forced_states=lambda *_: 1 / 0)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        check_model(model, contracts=["verifies itself"])


def _loader_with(**changes):
    loader, folder = _loader("whisper-nano")
    return type("Broken", (type(loader),), changes)(), folder


def _unpickles(_, folder: Path) -> bool:
    import pickle

    pickle.loads((folder / "pytorch_model.bin").read_bytes())  # noqa: S301 - what a careless loader would do
    return False


def _executes(_self, folder, **_):
    exec((folder / "modeling.py").read_text(), {})  # noqa: S102 - what a careless loader would do
    raise earmark.errors.ModelError("no weights")


@pytest.mark.parametrize(
    ("contract", "changes", "message"),
    [
        ("knows its own", {"recognises": lambda _self, _folder: False}, "not recognised"),
        ("leaves others", {"recognises": lambda _self, _folder: True}, "'bert'.*recognised"),
        ("leaves others", {"recognises": lambda _self, folder: (folder / "setup.py").exists()}, "recognised"),
        ("leaves others", {"recognises": _unpickles}, "code of a folder with"),
        ("runs nothing", {"load": _executes}, "code of the checkpoint run"),
    ],
)
def test_broken_loaders_are_told(contract, changes, message):
    loader, folder = _loader_with(**changes)
    with pytest.raises(AssertionError, match=rf"(?s)contract '{contract}' of loader.*{message}"):
        check_model(_model("whisper-nano"), loader=loader, folder=folder, contracts=[contract])


# The tools


def test_a_family_under_test_leaves_the_registry_as_it_was():
    before = registry("family").get("autoregressive")
    with pytest.raises(AssertionError):
        check_family(Blind(), _model("whisper-nano"), contracts=["grows with noise"])
    assert registry("family").get("autoregressive") is before
    with registry("family").standing_in("brand-new", before):
        assert "brand-new" in registry("family").names()
    assert "brand-new" not in registry("family").names()


def test_unknown_contracts_are_refused():
    with pytest.raises(UsageError, match="unknown contract 'speed'; known: describes itself"):
        check_family(AutoregressiveFamily(), _model("whisper-nano"), contracts=["speed"])
    with pytest.raises(UsageError, match="unknown contract 'speed'"):
        check_model(_model("whisper-nano"), contracts=["speed"])


def test_nothing_to_check_is_told():
    with pytest.raises(AssertionError, match="neither a model nor a loader"):
        check_model()


def test_contracts_need_no_test_tool():
    import subprocess
    import sys

    code = "import sys, earmark.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_default_clips_have_different_words():
    assert len({clip.request.nonce for clip in default_clips(6)}) == 6
    require(holds=True, found=SimpleNamespace(), expected=None, advice="")


def test_noise_leaves_the_network_as_it_was():
    model = _model("whisper-nano")
    before = copy.deepcopy(model.module.state_dict())
    check_family(AutoregressiveFamily(), model, contracts=["grows with noise"])
    assert all((before[name] == tensor).all() for name, tensor in model.module.state_dict().items())
