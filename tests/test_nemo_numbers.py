"""`.nemo` archives of an adversary: numbers that no model has, and weights that ask for more than they hold."""

from __future__ import annotations

import io
from pathlib import Path

import nemo_archives
import nemo_canary_archives as canary
import pytest
import torch
import yaml
from nemo_archives import LOADING, repack

import earmark
from earmark.errors import ModelError
from earmark.models._nemo_settings import whole
from earmark.models._torch_file import named_tensors
from earmark.models.nemo import NemoTransducerLoader
from earmark.models.nemo_canary import NemoCanaryLoader

# Numbers


@pytest.mark.parametrize(("written", "meant"), [({}, 0.97), ({"preemph": None}, 0.0), ({"preemph": 0.9}, 0.9)])
def test_no_preemphasis_is_another_thing_than_none_said(tdt_parts, tmp_path, written, meant):
    """NeMo's own default is 0.97, and null leaves it out."""
    config = nemo_archives.nemo_config("tdt")
    config["preprocessor"].pop("preemph", None)
    config["preprocessor"].update(written)
    model = NemoTransducerLoader().load(repack(tmp_path, tdt_parts, config), **LOADING)
    assert model.info.features.preemphasis == pytest.approx(meant)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("preprocessor.features", "abc"),
        ("preprocessor.features", [1]),
        ("preprocessor.features", 10**7),
        ("preprocessor.features", 80.5),
        ("preprocessor.features", True),
        ("preprocessor.features", 0),
        ("preprocessor.window_stride", float("inf")),
        ("preprocessor.window_stride", float("nan")),
        ("preprocessor.window_stride", 0),
        ("preprocessor.window_size", -0.025),
        ("preprocessor.window_size", 1e6),
        ("preprocessor.n_fft", 10**9),
        ("preprocessor.n_fft", 16),
        ("preprocessor.preemph", {}),
        ("encoder.subsampling_factor", "abc"),
        ("encoder.subsampling_factor", 2**40),
        ("encoder.subsampling_factor", 0),
        ("encoder.feat_in", 10**9),
        ("joint.num_extra_outputs", 10**9),
        ("decoding.durations", [0, "a"]),
        ("decoding.durations", [0, 10**9]),
        ("decoding.durations", [0] * 1_000),
        ("decoding.greedy.max_symbols", "abc"),
        ("decoding.greedy.max_symbols", -1),
        ("decoding.greedy.max_symbols", float("inf")),
    ],
)
def test_numbers_that_no_model_has_are_refused_by_name(tdt_parts, tmp_path, place, value):
    config = nemo_archives.nemo_config("tdt")
    *parents, name = place.split(".")
    part = config
    for parent in parents:
        part = part[parent]
    part[name] = value
    words = "number of durations" if isinstance(value, list) and len(value) > 64 else place.replace(".", r"\.")
    with pytest.raises(ModelError, match=rf"the setting {words} of the config is .*; expected a (whole )?number"):
        earmark.load(repack(tmp_path, tdt_parts, config))


def test_a_number_that_python_does_not_print_is_refused():
    """YAML reads hexadecimal digits without a limit."""
    config = yaml.safe_load("features: 0x1" + "0" * 25_000)
    with pytest.raises(
        ModelError, match="is a number of more digits than can be shown; expected a number from 1 to 512"
    ):
        whole(config, "features", 64, least=1, most=512)


def test_a_number_that_yaml_reads_as_text_is_a_number(tdt_parts, tmp_path):
    config = nemo_archives.nemo_config("tdt")
    config["preprocessor"]["window_stride"] = "1e-2"
    assert earmark.load(repack(tmp_path, tdt_parts, config)).info.features.hop == 160


@pytest.mark.parametrize("heads", [0, -1, "abc", 10**9])
def test_heads_of_canary_are_bounded(canary_parts, tmp_path, heads):
    config = canary.nemo_config("v1")
    config["transf_decoder"]["config_dict"]["num_attention_heads"] = heads
    with pytest.raises(ModelError, match=r"config_dict\.num_attention_heads of the config is"):
        NemoCanaryLoader().load(repack(tmp_path, canary_parts, config), **LOADING)


@pytest.mark.parametrize("setting", ["prompt_format", "target"])
def test_lists_in_place_of_names_are_refused(canary_parts, tmp_path, setting):
    with pytest.raises(ModelError):
        NemoCanaryLoader().load(
            repack(tmp_path, canary_parts, canary.nemo_config("v1") | {setting: [["a"]]}),
            **LOADING,
        )


# Sizes of weights


def _with_weights(folder: Path, parts: dict[str, bytes], change) -> Path:
    tensors = torch.load(io.BytesIO(parts["model_weights.ckpt"]), weights_only=True)
    change(tensors)
    data = io.BytesIO()
    torch.save(tensors, data)
    return nemo_archives.pack(folder / "m.nemo", parts | {"model_weights.ckpt": data.getvalue()})


def _many_layers(tensors) -> None:
    tensors |= {f"encoder.layers.{i}.norm_out.bias": torch.zeros(1) for i in range(2, 100_000, 97)}


def _no_heads(tensors) -> None:
    tensors["encoder.layers.0.self_attn.pos_bias_u"] = torch.zeros(0, 16)


def _one_large_layer(tensors) -> None:
    """The first layer is the yardstick of the others, which would be made as large."""
    tensors["encoder.layers.0.feed_forward1.linear1.weight"] = torch.zeros(640, 32)


def _many_lstm_layers(tensors) -> None:
    tensors |= {f"decoder.prediction.dec_rnn.lstm.weight_ih_l{i}": torch.zeros(1) for i in range(2, 1_000)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_many_layers, r"encoder\.n_layers of the config is \d+; expected a number from 1 to 256"),
        (_no_heads, r"encoder\.n_heads of the config is 0"),
        (_one_large_layer, "other weights than a Parakeet transducer model"),
        (_many_lstm_layers, r"pred_rnn_layers of the config is 1000"),
    ],
)
def test_a_network_is_never_larger_than_its_weights(tdt_parts, tmp_path, monkeypatch, change, message):
    made: list[str] = []
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda own: made.append(own.weight.device.type))
    with pytest.raises(ModelError, match=message):
        earmark.load(_with_weights(tmp_path, tdt_parts, change))
    assert "cpu" not in made  # refused before any memory was taken


def _wide_positions(tensors) -> None:
    tensors["transf_decoder._embedding.position_embedding.pos_enc"] = torch.zeros(1_000, 1)


def _flat_positions(tensors) -> None:
    tensors["transf_decoder._embedding.position_embedding.pos_enc"] = torch.zeros(1_000)


def _scalar_head(tensors) -> None:
    for name in ("transf_decoder._embedding.token_embedding.weight", "log_softmax.mlp.layer0.weight"):
        tensors[name] = torch.zeros(())


@pytest.mark.parametrize("change", [_wide_positions, _flat_positions, _scalar_head])
def test_tables_of_canary_fit_its_decoder(canary_parts, tmp_path, change):
    with pytest.raises(ModelError, match=r"table of positions|other weights than a Canary|no embedding of tokens"):
        NemoCanaryLoader().load(_with_weights(tmp_path, canary_parts, change), **LOADING)


def test_tensors_are_no_larger_than_what_is_stored():
    tied = torch.zeros(100)
    assert len(named_tensors({"a": tied, "b": tied, "c": tied[:50]}, "m")) == 3
    bomb = io.BytesIO()
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, bomb)
    assert len(bomb.getvalue()) < 5_000
    bomb.seek(0)
    with pytest.raises(ModelError, match="stores 4 bytes and claims tensors of 4000000000000"):
        named_tensors(torch.load(bomb, weights_only=True), "m")
    with pytest.raises(ModelError, match="claims"):
        named_tensors({str(i): tied for i in range(100)}, "m")


@pytest.mark.parametrize("tensor", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")])
def test_tensors_without_plain_numbers_are_refused(tensor):
    with pytest.raises(ModelError, match="is no plain tensor"):
        named_tensors({"a": tensor}, "m")
