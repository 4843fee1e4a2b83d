"""From NeMo's names and settings to those of transformers' Parakeet, which is the same network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from earmark.errors import ModelError
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_settings import FEATURES, MOST_MELS, check, setting, whole, whole_of

if TYPE_CHECKING:
    from torch import Tensor

Head = Literal["ctc", "transducer"]

RENAMES = (
    (r"^encoder\.pre_encode\.conv\.", "encoder.subsampling.layers."),
    (r"^encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
    (r"\.self_attn\.linear_([qkv])\.", r".self_attn.\1_proj."),
    (r"\.self_attn\.linear_out\.", ".self_attn.o_proj."),
    (r"\.self_attn\.linear_pos\.", ".self_attn.relative_k_proj."),
    (r"\.self_attn\.pos_bias_([uv])$", r".self_attn.bias_\1"),
    (r"\.conv\.batch_norm\.", ".conv.norm."),
    (r"^(ctc_)?decoder\.decoder_layers\.0\.", "ctc_head."),
    (r"^decoder\.prediction\.embed\.", "decoder.embedding."),
    (r"^decoder\.prediction\.dec_rnn\.lstm\.", "decoder.lstm."),
    (r"^joint\.pred\.", "decoder.decoder_projector."),
    (r"^joint\.enc\.", "encoder_projector."),
    (r"^joint\.joint_net\.\d+\.", "joint.head."),
)
"""NeMo's name to transformers'."""
ONLY_TRANSDUCER = ("decoder.prediction.", "joint.")
ONLY_CTC = ("ctc_decoder.", "decoder.decoder_layers.")

ENCODER: Mapping[str, tuple[Any, ...]] = {
    "subsampling": ("dw_striding",),
    "self_attention_model": ("rel_pos",),
    "conv_norm_type": ("batch_norm",),
    "conv_context_size": (None,),
    "att_context_size": ([-1, -1], None),
    "att_context_style": ("regular",),
    "causal_downsampling": (False,),
    "untie_biases": (True,),
    "reduction": (None,),
    "feat_out": (-1,),
    "global_tokens": (0,),
}
"""What transformers' encoder can do, by setting; most of NeMo's defaults are the first value."""
MOST_LAYERS = 256
"""The largest FastConformer has 42."""
MOST_LSTM_LAYERS = 16
MOST_SUBSAMPLING = 64
MOST_DURATIONS = 64
"""Durations of a TDT checkpoint, and frames of each; the published ones have five, up to four frames."""
MOST_SYMBOLS = 10_000
STRANGE = (LookupError, ArithmeticError, RuntimeError, TypeError, ValueError)
"""What weights of another network raise while the network is built."""
HINT = '. Load it through NeMo itself: engine="nemo"'


def heads(config: Mapping[str, Any]) -> tuple[Head, ...]:
    """Return what a checkpoint can decode with, its own choice first; () where it is no Parakeet.

    Example:
        >>> heads({"target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"})
        ('ctc',)
    """
    target = str(config.get("target", "")).rsplit(".", maxsplit=1)[-1]
    if "Hybrid" in target:
        return ("transducer", "ctc")
    return ("ctc",) if "CTC" in target else ("transducer",) if "RNNT" in target else ()


def parakeet_network(archive: Archive, head: Head, attention: str) -> Any:
    """Return the network of transformers with the weights of an archive, in float32.

    Args:
        archive: The archive.
        head: Which of its heads.
        attention: Attention kernel.

    Raises:
        ModelError: It is a network that transformers does not have.
    """
    import transformers

    check(archive, "encoder", ENCODER, HINT)
    tensors = renamed(archive.tensors, head)
    try:
        encoder = encoder_config(archive, tensors)
        if head == "ctc":
            vocab = len(tensors["ctc_head.bias"])
            config = transformers.ParakeetCTCConfig(vocab_size=vocab, pad_token_id=vocab - 1, encoder_config=encoder)
            kind = transformers.ParakeetForCTC
        else:
            kind, config = _transducer_config(archive, tensors, encoder)
        config._attn_implementation = attention  # noqa: SLF001 - the one way to say it without from_pretrained
        module = filled(lambda: kind(config), tensors)
    except STRANGE as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{archive.path} has other weights than a Parakeet {head} model: {reason}") from error
    return module.float().eval()


def filled(make: Callable[[], Any], tensors: Mapping[str, Tensor]) -> Any:
    """Return a network with weights; it is made without memory first, so that it is never larger than its weights.

    Args:
        make: Makes the network.
        tensors: Every weight by name.

    Raises:
        RuntimeError: Names or shapes are others.
    """
    import torch

    with torch.device("meta"):
        make().load_state_dict({name: tensor.to("meta") for name, tensor in tensors.items()})
    module = make()
    module.load_state_dict(tensors)
    return module


def renamed(tensors: Mapping[str, Tensor], head: Head) -> dict[str, Tensor]:
    """Return the weights of the encoder and one head under transformers' names."""
    other = ONLY_CTC if head == "transducer" else ONLY_TRANSDUCER
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith((FEATURES, *other))}
    return substituted(own, RENAMES)


def substituted(tensors: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Return weights under other names.

    Args:
        tensors: Weights by name.
        renames: Patterns and what stands in their place, used one after the other.

    Example:
        >>> substituted({"encoder.a": 1}, [("^encoder", "network"), ("a$", "b")])
        {'network.b': 1}
    """
    own = {}
    for name, tensor in tensors.items():
        target = name
        for pattern, replacement in renames:
            target = re.sub(pattern, replacement, target)
        own[target] = tensor
    return own


def encoder_config(archive: Archive, tensors: Mapping[str, Tensor]) -> Any:
    """Return the config of the encoder whose weights have transformers' names already."""
    import transformers

    config, first = archive.config, "encoder.layers.0."
    feed_forward, width = tensors[first + "feed_forward1.linear1.weight"].shape
    layers = {int(match[1]) for match in (re.match(r"encoder\.layers\.(\d+)\.", name) for name in tensors) if match}
    return transformers.ParakeetEncoderConfig(
        hidden_size=width,
        num_hidden_layers=whole_of(len(layers), "encoder.n_layers", least=1, most=MOST_LAYERS),
        num_attention_heads=whole_of(len(tensors[first + "self_attn.bias_u"]), "encoder.n_heads", least=1, most=width),
        intermediate_size=feed_forward,
        attention_bias=first + "self_attn.q_proj.bias" in tensors,
        convolution_bias=first + "conv.pointwise_conv1.bias" in tensors,
        conv_kernel_size=tensors[first + "conv.depthwise_conv.weight"].shape[-1],
        subsampling_factor=whole(config, "encoder.subsampling_factor", 4, least=2, most=MOST_SUBSAMPLING),
        subsampling_conv_channels=len(tensors["encoder.subsampling.layers.0.weight"]),
        num_mel_bins=whole(config, "encoder.feat_in", 80, least=1, most=MOST_MELS),
        scale_input=bool(setting(config, "encoder.xscaling", default=True)),
    )


def _transducer_config(archive: Archive, tensors: dict[str, Tensor], encoder: Any) -> tuple[Any, Any]:
    """Return class and config; a blank's embedding is 0, as NeMo has it at the start."""
    import torch
    import transformers

    activation = setting(archive.config, "joint.jointnet.activation", "relu")
    if activation not in ("relu", "tanh", "sigmoid"):
        raise ModelError(f"{archive.path}: the joint's activation is {activation!r}; known: relu, tanh, sigmoid")
    durations = durations_of(archive.config)
    blank = len(tensors["joint.head.bias"]) - len(durations) - 1
    embedding = tensors["decoder.embedding.weight"][:blank]
    tensors["decoder.embedding.weight"] = torch.cat([embedding, torch.zeros_like(embedding[:1])])
    layers = sum(name.startswith("decoder.lstm.weight_ih") for name in tensors)
    fields: dict[str, Any] = {
        "vocab_size": blank + 1,
        "blank_token_id": blank,
        "pad_token_id": blank,
        "decoder_hidden_size": embedding.shape[1],
        "num_decoder_layers": whole_of(layers, "decoder.prednet.pred_rnn_layers", least=1, most=MOST_LSTM_LAYERS),
        "hidden_act": activation,
        "encoder_config": encoder,
    }
    if durations:
        return transformers.ParakeetForTDT, transformers.ParakeetTDTConfig(durations=list(durations), **fields)
    return transformers.ParakeetForRNNT, transformers.ParakeetRNNTConfig(**fields)


def durations_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the durations of a TDT checkpoint, () of RNN-T.

    Raises:
        ModelError: They are no durations.

    Example:
        >>> durations_of({"joint": {"num_extra_outputs": 2}, "decoding": {"durations": [0, 4]}})
        (0, 4)
    """
    if not whole(config, "joint.num_extra_outputs", 0, least=0, most=MOST_DURATIONS):
        return ()
    places = ("decoding.durations", "model_defaults.tdt_durations", "loss.tdt_kwargs.durations")
    found = next((value for place in places if isinstance(value := setting(config, place), list)), [])
    whole_of(len(found), "number of durations", least=0, most=MOST_DURATIONS)
    return tuple(whole_of(value, "decoding.durations", least=0, most=MOST_DURATIONS) for value in found)


def max_symbols_of(config: Mapping[str, Any]) -> int:
    """Return the most tokens that greedy decoding writes at one frame, 0 without a limit.

    Raises:
        ModelError: It is no such number.
    """
    names = ("decoding.greedy.max_symbols", "decoding.greedy.max_symbols_per_step")
    found = (whole(config, name, 0, least=0, most=MOST_SYMBOLS) for name in names)
    return next((value for value in found if value), 0)
