"""NeMo itself as the engine of a `.nemo` checkpoint: an honest second one, and the only one of some encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.greedy import Memory
from earmark.lattice import AdditiveJoint
from earmark.models import _transformers as shared
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_restore import count_frames, features_of, least_deviation_of, own_extractor, restore
from earmark.models._nemo_settings import setting
from earmark.models._nemo_weights import durations_of, max_symbols_of
from earmark.models._parakeet_parts import Encoded, Parakeet, ParakeetCtc, ParakeetTransducer, Text
from earmark.protocols import ModelInfo

if TYPE_CHECKING:
    import torch


def load_with_nemo(info: ModelInfo, archive: Archive, text: Text, options: dict[str, str]) -> Parakeet:
    """Restore a checkpoint through NeMo.

    Args:
        info: Facts about it; the engine is replaced.
        archive: The archive, already read and checked.
        text: Turns ids into words.
        options: Device, dtype and arithmetic among others.

    Raises:
        ModelError: NeMo is not installed, or cannot restore it, or the config names classes from elsewhere.
    """
    module, version = restore(archive)
    extractor = own_extractor(module, options["device"])
    network = shared.rounded(module, **{key: options[key] for key in ("device", "dtype", "arithmetic")})
    info = dataclasses.replace(info, engine=f"nemo {version}")
    if info.family == "ctc":
        return NemoCtc(info, network, extractor, text)
    model = NemoTransducer(info, network, extractor, text)
    model.durations, model.max_symbols = durations_of(archive.config), max_symbols_of(archive.config)
    if setting(archive.config, "joint.jointnet.activation", "relu") not in ("relu", "tanh"):
        raise ModelError(f"{archive.path}: the joint's activation is not relu or tanh, the only ones known here")
    return model


class _ByNemo(Parakeet):
    """Encoder and features of NeMo."""

    def encoder_positions(self, samples: int) -> int:
        """Return the frames after subsampling, counted as NeMo counts them."""
        return count_frames(self.module, self.extractor, samples)

    def least_deviation(self, samples: NDArray[np.int16]) -> float:
        """Return by how much the band that varies least does, before it is normalised."""
        return least_deviation_of(self.module, self.extractor, samples)

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoder's states, padding masked."""
        features, counts = features_of(self.module, self.extractor, samples)
        states, lengths = self.module.encoder(audio_signal=features, length=counts)
        return Encoded(states.transpose(1, 2), lengths.tolist())


class NemoCtc(_ByNemo, ParakeetCtc):
    """A CTC head of NeMo."""

    @property
    def blank_id(self) -> int:
        """The blank, NeMo's last id."""
        return self.info.vocab_size - 1

    def logits(self, encoded: Encoded) -> torch.Tensor:
        """Return log-probabilities (batch, frames, vocab): NeMo's decoder normalises by itself."""
        head = getattr(self.module, "ctc_decoder", None) or self.module.decoder
        logits: torch.Tensor = head(encoder_output=encoded.states.transpose(1, 2))
        return logits


class NemoTransducer(_ByNemo, ParakeetTransducer):
    """A prediction network and joint of NeMo; `durations` and `max_symbols` are set from the config."""

    @property
    def blank_id(self) -> int:
        """The blank, NeMo's last token."""
        return self.info.vocab_size - 1

    def frames(self, encoded: Encoded, row: int) -> torch.Tensor:
        """Return projected encoder states (frames, width)."""
        states: torch.Tensor = self.module.joint.project_encoder(encoded.states[row, : encoded.lengths[row]])
        return states

    def predict(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return projected states of the prediction network (batch, tokens + 1, width); NeMo begins with zeros."""
        import torch

        fed = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long, device=self.info.device)
        for row, sequence in enumerate(ids):
            fed[row, : len(sequence)] = torch.as_tensor(sequence)
        output, _ = self.module.decoder.predict(fed, add_sos=True)
        states: torch.Tensor = self.module.joint.project_prednet(output)
        return states

    def joint(self, frames: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return logits of tokens, then of durations, before NeMo normalises both together."""
        logits: torch.Tensor = self.module.joint.joint_net(frames + states)
        return logits

    def lattice_joint(self, frames: torch.Tensor, states: torch.Tensor) -> AdditiveJoint:
        """Return the joint over all pairs of frames and states."""
        activation, *_, head = self.module.joint.joint_net
        name: Any = type(activation).__name__.lower()
        return AdditiveJoint(encoder=frames, predictor=states, weight=head.weight, bias=head.bias, activation=name)

    def _predictor(self, tokens: torch.Tensor, memory: Memory | None) -> tuple[torch.Tensor, Memory]:
        """Take one step of the LSTM; its memory has layers first, ours rows."""
        before = None if memory is None else [part.transpose(0, 1).contiguous() for part in memory]
        fed = None if memory is None else tokens[:, None]
        output, after = self.module.decoder.predict(fed, before, add_sos=False, batch_size=len(tokens))
        states = self.module.joint.project_prednet(output)[:, 0]
        return states, tuple(part.transpose(0, 1) for part in after)
