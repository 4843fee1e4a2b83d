"""`.nemo` archives of an adversary: what their configurations name, and how far they are read."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path

import nemo_archives
import nemo_canary_archives as canary
import pytest
from nemo_archives import LOADING, repack

import earmark
from earmark.errors import ModelError
from earmark.models._nemo_archive import read_config
from earmark.models._nemo_targets import refuse_foreign_objects, refuse_foreign_targets
from earmark.models.nemo import NemoCtcLoader, NemoTransducerLoader
from earmark.models.nemo_canary import NemoCanaryLoader

WHERE = Path("m.nemo")
ASR = "nemo.collections.asr"
MODEL = f"{ASR}.models.ctc_bpe_models.EncDecCTCModelBPE"

needs_nemo = pytest.mark.skipif(
    importlib.util.find_spec("nemo") is None, reason='NeMo is not installed: pip install "earmark[nemo]"'
)


def _plain(kind: str) -> dict:
    """Return settings without references, as NeMo saves them."""
    config = nemo_archives.nemo_config(kind)
    config["joint"]["jointnet"]["joint_hidden"] = 24
    config["decoding"].pop("durations", None)
    return config


# What a configuration names


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "nemo.core.Model",
        "nemo.collections",
        "nemo.collections..x",
        f"{ASR}.${{x}}",
        ["a"],
        1,
        f"{ASR}.x y",
    ],
)
@pytest.mark.parametrize("setting", ["_target_", "target", "cls"])
def test_names_outside_nemos_collections_are_refused(name, setting):
    with pytest.raises(ModelError, match="which is not of NeMo"):
        refuse_foreign_targets({"target": MODEL, "a": [{"b": {setting: name}}]}, WHERE)


@pytest.mark.parametrize(
    "text",
    [
        "${oc.create:{_target_: os.system}}",
        "${oc.decode:'{_target_: os.system}'}",
        "${oc.env:HOME}",
        "a ${b.${oc.env:HOME}} c",
        "\\${x}",
        "${b}${b}",
    ],
)
def test_settings_that_nemo_would_replace_are_refused(tdt_parts, tmp_path, text):
    """They turn into mappings that nobody looked at, or into texts that double with every reference."""
    path = repack(tmp_path, tdt_parts, _plain("tdt") | {"extra": [text]})
    with pytest.raises(ModelError, match="which NeMo would replace"):
        NemoTransducerLoader().load(path, **LOADING, engine="nemo")
    assert earmark.load(path).info.family == "transducer"  # the default engine resolves nothing


def test_settings_below_model_are_refused(tdt_parts, tmp_path):
    """NeMo would take them in place of those that were looked at."""
    path = repack(tmp_path, tdt_parts, _plain("tdt") | {"model": {"decoder": {"_target_": "os.system"}}})
    with pytest.raises(ModelError, match="has a setting `model`"):
        earmark.load(path)


def test_the_engine_that_is_not_installed_is_named(tdt_parts, tmp_path):
    if importlib.util.find_spec("nemo") is not None:
        pytest.skip("NeMo is installed")
    with pytest.raises(ModelError, match="pip install"):
        NemoTransducerLoader().load(repack(tmp_path, tdt_parts, _plain("tdt")), **LOADING, engine="nemo")


ALIASES = {
    f"{ASR}.models.ctc_models.os.system": "no module of NeMo",
    f"{ASR}.parts.preprocessing.perturb.subprocess.Popen": "no module of NeMo",
    f"{ASR}.models.ctc_models.os": "no module of NeMo",
    f"{ASR}.modules.conv_asr.nn.Linear": "no module of NeMo",
    f"{ASR}.modules.ConvASRDecoder.__class__": "no module of NeMo",
    f"{ASR}.modules.ConvASRDecoder.from_config_file": "no module of NeMo",
    f"{ASR}.models.ASRModel": "no module of NeMo",
    "nemo.collections.common.tokenizers.huggingface.AutoTokenizer": "no module of NeMo",
    f"{ASR}.modules.NoSuchThing": "this NeMo has not",
}


@needs_nemo
@pytest.mark.parametrize("name", ALIASES)
def test_names_that_lead_elsewhere_are_refused(name):
    """Hydra goes from attribute to attribute; AutoTokenizer would run a repository's code, ASRModel open a file."""
    config = {"target": MODEL, "decoder": {"_target_": name}}
    refuse_foreign_targets(config, WHERE)
    with pytest.raises(ModelError, match=ALIASES[name]):
        refuse_foreign_objects(config, WHERE)


@needs_nemo
def test_the_names_of_honest_archives_are_known():
    for config in (*(_plain(kind) for kind in nemo_archives.TARGETS), *(canary.nemo_config(k) for k in canary.KINDS)):
        refuse_foreign_targets(config, WHERE)
        refuse_foreign_objects(config, WHERE)


@needs_nemo
def test_a_whole_that_is_no_model_for_speech_is_refused():
    for name in (f"{ASR}.modules.ConvASRDecoder", f"{ASR}.modules.transformer.get_nemo_transformer"):
        with pytest.raises(ModelError, match="no module of NeMo"):
            refuse_foreign_objects({"target": name}, WHERE)


@needs_nemo
def test_an_alias_is_refused_before_nemo_makes_anything(tmp_path):
    config = _plain("ctc")
    config["decoder"] = {"_target_": f"{ASR}.models.ctc_models.os.system", "command": "touch harm"}
    with pytest.raises(ModelError, match="which is no module of NeMo for speech"):
        NemoCtcLoader().load(repack(tmp_path, nemo_archives.members("ctc"), config), **LOADING, engine="nemo")


# Sizes of archives


def _damaged(path: Path, kept: float) -> Path:
    """Cut a file: who reads all of it before it checks anything runs into the cut."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    return path


def test_members_are_counted_as_they_come(tmp_path):
    path = nemo_archives.pack(tmp_path / "m.nemo", {f"{i}": b"" for i in range(3_000)})
    with pytest.raises(ModelError, match="more than 1000 members"):
        read_config(_damaged(path, 0.5).rename(tmp_path / "cut.nemo"))


def test_a_bomb_is_not_read_to_its_end(tmp_path):
    path = nemo_archives.pack(tmp_path / "m.nemo", {"zeros": bytes(20_000_000), "model_config.yaml": b"a: 1"}, "w:gz")
    with pytest.raises(ModelError, match="would grow to"):
        read_config(_damaged(path, 0.5))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_headers_ask_for_no_more_than_there_can_be(tmp_path, kind, mode):
    """A long name, or a list of fields, is read at once, before the archive says that it has a member."""
    path = tmp_path / "m.nemo"
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 1 << 40
    with tarfile.open(path, mode) as archive:
        archive.fileobj.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))
    with pytest.raises(ModelError, match="would grow to"):
        read_config(path)


def test_headers_of_headers_are_an_error(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    path = tmp_path / "m.nemo"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 5_000)
    with pytest.raises(ModelError, match=r"no \.nemo archive"):
        read_config(path)


def test_aliases_of_aliases_are_refused(tdt_parts, tmp_path):
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 40))]
    with pytest.raises(ModelError, match="comes to more than 4194304 settings"):
        read_config(repack(tmp_path, tdt_parts, "\n".join(lines).encode()))
    with pytest.raises(ModelError, match="comes to more than 4194304 settings"):
        read_config(repack(tmp_path, tdt_parts, b"a: &a [*a]"))
    hidden = "\n".join(["x: &a0 [x]", *(f"x: &a{i} [*a{i - 1}]" for i in range(1, 3_000))])
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(repack(tmp_path, tdt_parts, hidden.encode()))
    with pytest.raises(ModelError, match="mappings are merged"):
        read_config(repack(tmp_path, tdt_parts, b"a: &a {b: 1}\nc: {<<: [*a, *a]}"))


def test_an_aggregate_has_few_tokenizers(canary_parts, tmp_path):
    config = canary.nemo_config("v1")
    part = next(iter(config["tokenizer"]["langs"].values()))
    config["tokenizer"]["langs"] |= {f"x{i}": part for i in range(1_000)}
    with pytest.raises(ModelError, match="tokenizers; expected at most 64"):
        NemoCanaryLoader().load(repack(tmp_path, canary_parts, config), **LOADING)
