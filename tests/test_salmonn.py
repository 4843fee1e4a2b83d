"""SALMONN: its parts equal the published ones, the forced pass equals step-by-step decoding, bad folders are named."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import transformers
from salmonn_checkpoints import BEATS, beats_checkpoint, save_salmonn
from torch.nn import functional

import earmark
from earmark import Clip, record_many
from earmark.audio import from_samples
from earmark.errors import ModelError, UsageError
from earmark.models import _beats
from earmark.models.salmonn import SalmonnLoader, part
from earmark.registry import registry
from earmark.testing import check_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_salmonn(tmp_path_factory.mktemp("salmonn"))


@pytest.fixture(scope="module")
def model(folder):
    return earmark.load(folder, device="cpu")


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    """Return clips of 1.1, 0.3 and 1.2 s; the published code pads the second to 1 s."""
    sizes, options = (17_600, 4_800, 19_200), ({}, {"language": "en"}, {"prompt": "Write down what is said."})
    audio = [from_samples(clip.audio.samples[:size], 16_000) for clip, size in zip(clips, sizes, strict=False)]
    return [Clip(audio=a, request=earmark.request(a, **o)) for a, o in zip(audio, options, strict=True)]


@pytest.fixture(scope="module")
def evidence(model, asked):
    return list(record_many(model, asked, batch_size=3, level="sketch"))


# BEATs

# what the copy of Microsoft's code in speechbrain 1.1.2 (lobes/models/beats.py) gives for these weights and features:
# six numbers at the first and the last position, and the sum of all sizes
REFERENCE = [
    ({}, [-0.61784, -0.24823, 0.01795, -0.727, 0.91676, 0.2682],
     [-0.61748, -0.24625, 0.01658, -0.71699, 0.91659, 0.26767], 294.668),
    ({"deep_norm": False}, [-0.61434, -0.32736, 0.03965, -0.71131, 0.95994, 0.2224],
     [-0.61406, -0.32583, 0.03854, -0.70506, 0.96016, 0.22128], 305.091),
    ({"num_buckets": 320, "max_distance": 800, "conv_pos": 9},
     [-0.30349, -1.1678, -0.23468, 0.66618, -0.08077, 0.11627],
     [-0.3033, -1.18615, -0.23431, 0.65637, -0.08338, 0.11661], 259.079),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "first", "last", "total"), REFERENCE)
def test_beats_gives_the_numbers_of_the_published_code(changes, first, last, total):
    network, _ = _beats.read_beats(beats_checkpoint(**changes), "beats.pt")
    banks = torch.as_tensor(np.random.default_rng(7).normal(0, 1, (1, 100, 128)).astype(np.float32))
    with torch.inference_mode():
        states = network(banks)[0]
    assert states.shape == (6 * 8, 16)  # 100 frames hold 6 patches of 16, each with 8 bands of 16
    assert states[0, :6].tolist() == pytest.approx(first, abs=2e-5)
    assert states[-1, :6].tolist() == pytest.approx(last, abs=2e-5)
    assert float(states.abs().sum()) == pytest.approx(total, abs=2e-3)


def test_beats_biases_are_wavlms():
    """WavLM buckets distances in the same way; its gates differ."""
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    theirs = WavLMAttention(embed_dim=8, num_heads=2, num_buckets=320, max_distance=800)
    distances = torch.arange(-1500, 1501)
    assert torch.equal(_beats.buckets_of(distances, 320, 800), theirs._relative_positions_bucket(distances))


@pytest.mark.filterwarnings("ignore:At least one mel filter")  # that band is the published one
@pytest.mark.parametrize("length", [400, 559, 560, 16_000])
def test_the_filter_bank_of_beats_is_kaldis(length):
    """The library's own is the yardstick: kaldi-native-fbank refuses 128 bands, of which the lowest hears no bin."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    samples = np.random.default_rng(length).normal(0, 3000, length).astype(np.int16)
    scale = {"mel_scale": "kaldi", "norm": None, "triangularize_in_mel_space": True}
    theirs = spectrogram(
        samples.astype(np.float64), window_function(400, "povey", periodic=False), frame_length=400, hop_length=160,
        fft_length=512, power=2.0, center=False, preemphasis=0.97, mel_filters=mel_filter_bank(257, 128, 20.0, 8000.0,
        16_000, **scale), log_mel="log", mel_floor=1.192092955078125e-07, remove_dc_offset=True,
    ).T  # fmt: skip
    own = _beats.features(samples) * (2 * 6.55582) + 15.41663
    assert own.shape == theirs.shape == (1 + (length - 400) // 160, 128)
    assert np.abs(own - theirs).max() < 2e-3


# the whole, by hand


def _linear(state, name, values):
    return functional.linear(values, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _norm(state, name, values, eps):
    weight = state[f"{name}.weight"]
    return functional.layer_norm(values, weight.shape, weight, state[f"{name}.bias"], eps)


def _attend(state, name, states, others, heads=3):
    query, key, value = (
        _linear(state, f"{name}.self.{part}", source).unflatten(-1, (heads, -1)).transpose(1, 2)
        for part, source in (("query", states), ("key", others), ("value", others))
    )
    weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
    mixed = _linear(state, f"{name}.output.dense", (weights @ value).transpose(1, 2).flatten(2))
    return _norm(state, f"{name}.output.LayerNorm", states + mixed, 1e-12)


def _heard(folder, samples):
    """Return the 88 embeddings of one piece as the published code makes them, window by window."""
    state = torch.load(folder / "salmonn_v1.pth", weights_only=True)["model"]
    whisper = transformers.WhisperModel.from_pretrained(folder / "whisper", dtype=torch.float32).encoder.eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder / "whisper")
    samples = np.pad(samples, (0, max(0, 16_000 - len(samples))))
    wave = samples.astype(np.float32) / 32768
    speech = whisper(extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features).last_hidden_state[0]
    beats, _ = _beats.read_beats(torch.load(folder / "beats.pt", weights_only=True), "beats.pt")
    sound = _norm(state, "ln_audio", beats.eval()(torch.as_tensor(_beats.features(samples))[None])[0], 1e-5)
    sound = functional.pad(sound, (0, 0, 0, 1500 - len(sound)))
    both = torch.cat([_norm(state, "ln_speech", speech, 1e-5), sound], dim=1)
    inner = {name.removeprefix("speech_Qformer.bert."): tensor for name, tensor in state.items()}
    found = []
    for number in range(88):
        window = both[None, 17 * number : 17 * number + 17]
        states = _norm(inner, "embeddings.LayerNorm", state["speech_query_tokens"], 1e-12)
        for layer in ("encoder.layer.0", "encoder.layer.1"):
            states = _attend(inner, f"{layer}.attention", states, states)
            states = _attend(inner, f"{layer}.crossattention", states, window)
            wide = functional.gelu(_linear(inner, f"{layer}.intermediate_query.dense", states))
            wide = _linear(inner, f"{layer}.output_query.dense", wide)
            states = _norm(inner, f"{layer}.output_query.LayerNorm", states + wide, 1e-12)
        found.append(_linear(state, "speech_llama_proj", states)[0, 0])
    return torch.stack(found)


def _vicuna(folder):
    """Return the language model with LoRA merged into its weights, alpha / rank = 32 / 8."""
    module = transformers.LlamaForCausalLM.from_pretrained(folder / "vicuna", dtype=torch.float32).eval()
    state = torch.load(folder / "salmonn_v1.pth", weights_only=True)["model"]
    for number, layer in enumerate(module.model.layers):
        for name in ("q_proj", "v_proj"):
            at = f"llama_model.base_model.model.model.layers.{number}.self_attn.{name}.lora_"
            added = 4.0 * state[f"{at}B.default.weight"] @ state[f"{at}A.default.weight"]
            getattr(layer.self_attn, name).weight.data += added
    return module


def test_embeddings_of_audio_are_those_of_the_published_code(folder, model, asked):
    with torch.inference_mode():
        found = model.encode([clip.audio.samples for clip in asked])
        for clip, own in zip(asked, found, strict=True):
            theirs = _heard(folder, clip.audio.samples)
            assert own.shape == theirs.shape == (88, 48)
            assert float((own - theirs).abs().max()) < 1e-4
    assert float((found[0] - found[1]).abs().max()) > 0.01, "embeddings that hear nothing would prove nothing"


def test_the_prompt_is_the_published_one(model, asked):
    prompts = [list(model.prompt_ids(clip.request, clip.request.language)) for clip in asked]
    for ids, words in zip(prompts, ["Recognize the speech and give me the transcription."] * 2 +
                          ["Write down what is said."], strict=True):  # fmt: skip
        at = ids.index(0)
        assert ids[0] == 1
        assert model.tokenizer.decode(ids[1:at]) == "USER: <Speech>"
        assert model.tokenizer.decode(ids[at + 1 :]) == f"</Speech> {words}\nASSISTANT:"
        assert model.detokenise(model.tokenise("turn on 日 <s>")) == "turn on 日 <s>"
    german = earmark.request(asked[0].audio, language="de")
    assert "Hören Sie sich die Rede an" in model.tokenizer.decode(model.prompt_ids(german, "de"))


def test_tokens_and_scores_are_those_of_the_librarys_own_decoding_step_by_step(folder, model, asked, evidence):
    module, family = _vicuna(folder), earmark.loading.family_of(model)
    for clip, item in zip(asked, evidence, strict=True):
        ids = item.segments[0].ids[:30]
        prompt = torch.tensor(model.prompt_ids(clip.request, clip.request.language))
        at, embed = int((prompt == 0).nonzero()[0]), module.get_input_embeddings()
        with torch.inference_mode():
            parts = [embed(prompt[:at]), _heard(folder, clip.audio.samples), embed(prompt[at + 1 :])]
            output = module.generate(
                inputs_embeds=torch.cat(parts)[None], max_new_tokens=len(ids), do_sample=False, eos_token_id=2,
                pad_token_id=2, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        assert output.sequences[0].tolist() == list(ids)
        trace = family.read(item.segments[0], clip.request, model, "sketch")
        inputs = earmark.recording.segment_inputs(clip, model)
        forced = family.replay(model, inputs, [trace], batch_size=1, advance=lambda _: None)[0].scores
        for position, (token, logits) in enumerate(zip(ids, output.logits, strict=True)):
            logprob = float(logits[0].log_softmax(-1)[token])
            assert logprob == pytest.approx(trace.scores.chosen[position], abs=1e-4)
            assert logprob == pytest.approx(forced.chosen[position], abs=1e-4)


def test_record_then_verify_passes_and_one_changed_token_fails(model, asked, evidence):
    for item, clip in zip(evidence, asked, strict=True):
        verdict = earmark.verify(item, clip.request, clip.audio, model, profile="provisional")
        assert (verdict.outcome, verdict.findings) == ("PASS", ())
        assert verdict.fingerprint["sketch_distance"] < 1e-3
    segment = evidence[0].segments[0]
    ids = (*segment.ids[:5], next(i for i in range(60, 250) if i != segment.ids[5]), *segment.ids[6:])
    changed = msgspec.structs.replace(segment, ids=ids, text=model.detokenise(ids))
    forged = msgspec.structs.replace(evidence[0], segments=(changed,), text=changed.text.strip())
    assert earmark.verify(forged, asked[0].request, asked[0].audio, model, profile="provisional").outcome == "FAIL"


def test_the_contracts_of_models_hold(folder, clips):
    audio = [from_samples(clip.audio.samples[8_000:11_200], 16_000) for clip in clips[:2]]
    short = [Clip(audio=own, request=earmark.request(own, language="en")) for own in audio]
    check_model(loader=SalmonnLoader(), folder=folder, clips=short)


def test_what_is_said_of_the_model(folder, model):
    assert registry("model").get("salmonn").name == "salmonn"
    info = model.info
    assert (info.architecture, info.family, info.window_samples) == ("salmonn", "autoregressive", 480_000)
    names = [name for name, _ in model.module.named_parameters() if ".lora_" in name]
    assert len(names) == 2 * 2 * 2
    assert b"".join(model.token_bytes[i] for i in model.tokenise("Größe, 日")).decode() == " Größe, 日"
    half = earmark.load(folder, device="cpu", dtype="bfloat16")
    assert half.info.weights == info.weights
    assert {weight.dtype for weight in half.module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"language": "fr"}, "no language 'fr'"), ({"task": "translate"}, "only transcribes"),
     ({"prompt": "say </s>"}, "special tokens")],
)  # fmt: skip
def test_what_the_model_cannot_do_is_named(model, asked, options, words):
    with pytest.raises(UsageError, match=words):
        earmark.record(model, earmark.request(asked[0].audio, **options), asked[0].audio)


# bad folders


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def _configure(copy: Path, **changes) -> None:
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beats_path": "../beats.pt"}, "outside of the folder"),
        ({"llama_path": "/etc"}, "outside of the folder"),
        ({"whisper_path": ""}, "outside of the folder"),
        ({"ckpt": "nothing.pth"}, "has no 'nothing.pth'"),
        ({"beats_path": 3}, "does not describe SALMONN"),
        ({"low_resource": True}, "does not describe SALMONN"),
        ({"num_attention_heads": 5}, "no Q-Former of 5 heads"),
        ({"num_attention_heads": 0}, "does not describe SALMONN"),
        ({"second_per_window": 99.0}, "do not fit 1500 positions"),
        ({"ckpt": "beats.pt"}, "lacks LoRA weights"),
        ({"beats_path": "salmonn_v1.pth"}, "no checkpoint of BEATs"),
    ],
)
def test_a_config_that_names_other_things_is_refused(copy, changes, words):
    _configure(copy, **changes)
    with pytest.raises(ModelError, match=words):
        earmark.load(copy)


def _without(name):
    return lambda state: {key: tensor for key, tensor in state.items() if name not in key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("lora_B"), "lacks LoRA weights"),
        (_without("ln_audio.bias"), "lacks 1 weights"),
        (_without("speech_query_tokens"), "no speech_query_tokens"),
        (_without("crossattention"), "no Q-Former"),
        (lambda state: state | {"other.weight": torch.zeros(2)}, "has others, first other.weight"),
        (lambda state: state | {"ln_speech.weight": torch.zeros(3)}, "does not fit the other parts"),
        (lambda state: state | {"a": 3}, "else than named tensors"),
        (
            lambda state: {key.replace("layers.1.", "layers.7."): t for key, t in state.items()},
            "the language model lacks",
        ),
    ],
)
def test_weights_that_do_not_belong_are_refused(copy, change, words):
    path = copy / "salmonn_v1.pth"
    torch.save({"model": change(torch.load(path, weights_only=True)["model"])}, path)
    with pytest.raises(ModelError, match=words):
        earmark.load(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"gru_rel_pos": False}, "of another kind"), ({"layer_norm_first": True}, "of another kind"),
     ({"encoder_layers": 3}, "other weights than its cfg"), ({"num_buckets": 0}, "its cfg is none of BEATs")],
)  # fmt: skip
def test_another_kind_of_beats_is_refused(changes, words):
    made = beats_checkpoint()
    with pytest.raises(ModelError, match=words):
        _beats.read_beats({"cfg": BEATS | changes, "model": made["model"]}, "beats.pt")


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_files_that_would_run_code_are_refused(copy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": _Trap()}}, copy / "salmonn_v1.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        earmark.load(copy)
    assert not (tmp_path / "harm-was-done").exists()
    for name in ("beats.pt", "salmonn_v1.pth"):
        (copy / name).write_bytes(b"\x80\x02}q\x00.")
        with pytest.raises(ModelError, match="not in torch's format"):
            earmark.load(copy)


def test_compressed_files_are_refused(copy):
    plain, packed = zipfile.ZipFile(copy / "beats.pt"), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name in plain.namelist():
            out.writestr(name, plain.read(name))
    (copy / "beats.pt").write_bytes(packed.getvalue())
    with pytest.raises(ModelError, match="compressed"):
        earmark.load(copy)


def test_the_setting_that_lets_code_run_is_refused(folder, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ModelError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        earmark.load(folder)


def test_parts_lie_in_the_folder(folder):
    assert part(folder, "whisper") == folder / "whisper"
    for place in ("a/../../b", "..", "/", "whisper/../../x"):
        with pytest.raises(ModelError, match="outside of the folder"):
            part(folder, place)
