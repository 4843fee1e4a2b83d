"""From NeMo's names and settings to those of transformers' Canary, which is the same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from earmark.errors import ModelError
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_settings import FEATURES, check, setting, whole, whole_of
from earmark.models._nemo_weights import (
    ENCODER,
    HINT,
    MOST_LAYERS,
    RENAMES,
    STRANGE,
    encoder_config,
    filled,
    substituted,
)

if TYPE_CHECKING:
    from torch import Tensor

TARGET = "EncDecMultiTaskModel"
DECODER_RENAMES = (
    (r"^transf_decoder\._embedding\.token_embedding\.", "model.decoder.embed_tokens."),
    (r"^transf_decoder\._embedding\.layer_norm\.", "model.decoder.embedding_layernorm."),
    (r"^transf_decoder\._decoder\.final_layer_norm\.", "model.decoder.norm."),
    (r"^transf_decoder\._decoder\.layers\.", "model.decoder.layers."),
    (r"\.layer_norm_1\.", ".input_layernorm."),
    (r"\.layer_norm_2\.", ".post_attention_layernorm."),
    (r"\.layer_norm_3\.", ".final_layernorm."),
    (r"\.first_sub_layer\.", ".self_attn."),
    (r"\.second_sub_layer\.", ".encoder_attn."),
    (r"\.query_net\.", ".q_proj."),
    (r"\.key_net\.", ".k_proj."),
    (r"\.value_net\.", ".v_proj."),
    (r"\.out_projection\.", ".o_proj."),
    (r"\.third_sub_layer\.dense_in\.", ".mlp.fc1."),
    (r"\.third_sub_layer\.dense_out\.", ".mlp.fc2."),
    (r"^log_softmax\.mlp\.layer0\.", "proj_out."),
    (r"^encoder_decoder_proj\.", "bridge."),
    (r"^encoder\.", "model.encoder."),
)
"""NeMo's name to transformers', behind the renames of the encoder; the bridge is ours."""
EMBEDDING, HEAD = "transf_decoder._embedding.token_embedding.weight", "log_softmax.mlp.layer0.weight"
SECOND_LAYER = "log_softmax.mlp.layer2.weight"
POSITIONS = "transf_decoder._embedding.position_embedding.pos_enc"
UNUSED = ("transf_decoder._embedding.token_type_embedding.", POSITIONS, FEATURES)
"""Weights that decoding does not use, the table of positions, and the features."""
DECODER: Mapping[str, tuple[Any, ...]] = {
    "learn_positional_encodings": (False,),
    "pre_ln": (True,),
    "hidden_act": ("relu", "gelu"),
}
"""What transformers' decoder can do, by setting."""


def is_canary(config: Mapping[str, Any]) -> bool:
    """Tell whether an archive's config names NeMo's encoder-decoder.

    Example:
        >>> is_canary({"target": "nemo.collections.asr.models.aed_multitask_models.EncDecMultiTaskModel"})
        True
    """
    return str(config.get("target", "")).rpartition(".")[2] == TARGET


def check_head(archive: Archive) -> int:
    """Return the size of the vocabulary; the layer that gives it must be one, and tied to the embedding as in NeMo.

    Raises:
        ModelError: It is not.
    """
    import torch

    table, head = archive.tensors.get(EMBEDDING), archive.tensors.get(HEAD)
    if table is None or head is None or head.ndim != 2 or SECOND_LAYER in archive.tensors:
        raise ModelError(f"{archive.path} has no embedding of tokens, or a head of more than one layer")
    if not torch.equal(table, head):
        raise ModelError(f"{archive.path}: the head and the embedding of tokens differ; in NeMo they are one")
    return len(head)


def renamed_canary(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of network, head and bridge under transformers' names."""
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    return substituted(own, (*RENAMES, *DECODER_RENAMES))


def canary_network(archive: Archive, attention: str, *, end_id: int) -> Any:
    """Return the network of transformers with the weights of an archive, in float32.

    Args:
        archive: The archive.
        attention: Attention kernel.
        end_id: The token that ends a transcript.

    Raises:
        ModelError: It is a network that transformers does not have.
    """
    import transformers

    check(archive, "encoder", ENCODER, HINT)
    check(archive, "transf_decoder.config_dict", DECODER, HINT)
    if any(name.startswith("transf_encoder.") for name in archive.tensors):
        raise ModelError(f"{archive.path} has a second encoder, transf_encoder; transformers has none{HINT}")
    tensors = renamed_canary(archive.tensors)
    try:
        positions = archive.tensors[POSITIONS]
        config = _config(archive, tensors, attention, end_id=end_id)
        module = filled(lambda: _network(config, tensors.get("bridge.weight")), tensors)
    except STRANGE as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{archive.path} has other weights than a Canary: {reason}") from error
    # the same sines and cosines, which NeMo puts in turns and transformers in two halves; transformers divides by this
    module.model.decoder.pos_emb.positional_embedding = positions.float() * positions.shape[1] ** 0.5
    module.generation_config = transformers.GenerationConfig()
    return module.float().eval()


def _network(config: Any, bridge: Tensor | None) -> Any:
    """Return the network of a config, with a bridge between encoder and decoder where the weights have one."""
    import torch
    import transformers

    module = transformers.CanaryForConditionalGeneration(config)
    if bridge is not None:
        outward, inward = bridge.shape
        module.bridge = torch.nn.Linear(inward, outward)
    return module


def _config(archive: Archive, tensors: Mapping[str, Tensor], attention: str, *, end_id: int) -> Any:
    import transformers

    prefix, first = "model.", "model.decoder.layers.0."
    encoder = encoder_config(archive, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    vocab, width = tensors["model.decoder.embed_tokens.weight"].shape
    positions, columns = archive.tensors[POSITIONS].shape
    if columns != width:
        raise ModelError(f"{archive.path} has a table of positions of width {columns}; the decoder has {width}")
    heads = whole(archive.config, "transf_decoder.config_dict.num_attention_heads", 1, least=1, most=width)
    layers = {name.split(".")[3] for name in tensors if name.startswith("model.decoder.layers.")}
    decoder = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": len(tensors[first + "mlp.fc1.weight"]),
        "num_hidden_layers": whole_of(len(layers), "transf_decoder.num_layers", least=1, most=MOST_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "hidden_act": setting(archive.config, "transf_decoder.config_dict.hidden_act", "relu"),
        "max_position_embeddings": positions,
    }
    ids = {"pad_token_id": end_id, "bos_token_id": end_id, "eos_token_id": end_id}
    config = transformers.CanaryConfig(
        encoder_config=encoder.to_dict(),
        decoder_config=decoder | ids,
        vocab_size=vocab,
        decoder_start_token_id=end_id,
        tie_word_embeddings=True,
        **ids,
    )
    config._attn_implementation = attention  # noqa: SLF001 - the one way to say it without from_pretrained
    return config
