"""NeMo itself as the engine of a `.nemo` Canary: its encoder, its decoder and its greedy search."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.models import _transformers as shared
from earmark.models._canary_parts import Canary, Encoded, Text
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_restore import count_frames, features_of, least_deviation_of, own_extractor, restore
from earmark.protocols import ModelInfo

if TYPE_CHECKING:
    import torch


def load_canary_with_nemo(info: ModelInfo, archive: Archive, text: Text, options: dict[str, str]) -> Canary:
    """Restore a checkpoint through NeMo; a second model that it may hold for time stamps stays where it is.

    Args:
        info: Facts about it; the engine is replaced.
        archive: The archive, already read and checked.
        text: Its tokenizer and prompts.
        options: Device, dtype and arithmetic among others.

    Raises:
        ModelError: NeMo is not installed, or cannot restore it, or the config names classes from elsewhere.
    """
    module, version = restore(archive, restore_timestamps_model=False)
    extractor = own_extractor(module, options["device"])
    network = shared.rounded(module, **{key: options[key] for key in ("device", "dtype", "arithmetic")})
    info = dataclasses.replace(info, engine=f"nemo {version}")
    return CanaryByNemo(info, network, extractor, text, positions=int(network.transf_decoder.max_sequence_length))


class CanaryByNemo(Canary):
    """`EncDecMultiTaskModel`."""

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the FastConformer."""
        return list(self.module.encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the frames after subsampling, counted as NeMo counts them."""
        return count_frames(self.module, self.extractor, samples)

    def least_deviation(self, samples: NDArray[np.int16]) -> float:
        """Return by how much the band that varies least does, before it is normalised."""
        return least_deviation_of(self.module, self.extractor, samples)

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the states that the decoder looks at, padding masked."""
        features, counts = features_of(self.module, self.extractor, samples)
        _, _, states, mask = self.module(processed_signal=features, processed_signal_length=counts)
        return Encoded(states, mask)

    def generate(
        self,
        encoded: Encoded,
        rows: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        *,
        max_new_tokens: int,
        beams: int,
        processor: Any,
    ) -> list[list[int]]:
        """Decode with NeMo's own greedy search."""
        import torch

        if beams != 1:
            raise UsageError(f'{self.info.name}: engine="nemo" searches no beams; use engine="transformers"')
        begin, chosen = torch.as_tensor(prompts, device=self.info.device), list(rows)
        search = _search(self, begin.shape[1] + max_new_tokens, processor)
        ids = search(
            decoder_input_ids=begin,
            encoder_hidden_states=encoded.states[chosen],
            encoder_input_mask=encoded.mask[chosen],
        )[0]
        return [shared.until(row, self.stop_ids) for row in ids[:, begin.shape[1] :].tolist()]

    def forced_states(self, encoded: Encoded, ids: torch.Tensor) -> torch.Tensor:
        """Return decoder states (batch, length, width) with the decoder forced to `ids`."""
        import torch

        # NeMo's search with a cache sees all earlier tokens, padding among them, so nothing is masked here either
        states: torch.Tensor = self.module.transf_decoder(
            input_ids=ids,
            decoder_mask=torch.ones_like(ids),
            encoder_embeddings=encoded.states,
            encoder_mask=encoded.mask,
        )
        return states

    def head(self) -> torch.nn.Module:
        """Return the module that maps last hidden states to logits."""
        head: torch.nn.Module = self.module.log_softmax.mlp.last_linear_layer
        return head


def _search(model: CanaryByNemo, positions: int, processor: Any) -> Any:
    """Return NeMo's greedy search over scores that went through `processor`."""
    import torch
    from nemo.collections.asr.modules.transformer.transformer_generators import GreedySequenceGenerator

    class Search(GreedySequenceGenerator):  # type: ignore[misc] # NeMo has no types
        """Keeps the ids so far, which NeMo's step is not told."""

        written: torch.Tensor | None = None

        def _one_step_forward(self, decoder_input_ids: torch.Tensor, *args: Any, **options: Any) -> tuple[Any, ...]:
            before = [] if self.written is None else [self.written]
            self.written = torch.cat([*before, decoder_input_ids], dim=1)
            logits, *rest = super()._one_step_forward(decoder_input_ids, *args, **options)
            return processor(self.written, logits[:, -1].float())[:, None], *rest

    decoder = model.module.transf_decoder
    return Search(
        embedding=decoder.embedding,
        decoder=decoder.decoder,
        classifier=model.module.log_softmax,
        pad=model.module.tokenizer.pad_id,
        eos=model.end_id,
        max_sequence_length=positions,
        max_delta_length=-1,
    )
