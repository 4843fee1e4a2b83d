"""NeMo itself as the engine of a `.nemo` checkpoint: an honest second one, and the only one of some encoders."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.greedy import Memory
from earmark.lattice import AdditiveJoint
from earmark.models import _transformers as shared
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_weights import durations_of, max_symbols_of, setting
from earmark.models._parakeet_parts import Encoded, Parakeet, ParakeetCtc, ParakeetTransducer, Text
from earmark.protocols import ModelInfo

if TYPE_CHECKING:
    import torch

TARGETS = ("_target_", "target", "cls")
TRUSTED = "nemo.collections."
"""NeMo makes an object of every class that a config names; only its own collections may be named."""


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
    refuse_foreign_targets(archive)
    module, version = _restore(archive)
    extractor = copy.deepcopy(module.preprocessor).to(options["device"])
    extractor.featurizer.dither, extractor.featurizer.pad_to = 0.0, 0
    network = shared.rounded(module, **{key: options[key] for key in ("device", "dtype", "arithmetic")})
    info = dataclasses.replace(info, engine=f"nemo {version}")
    if info.family == "ctc":
        return NemoCtc(info, network, extractor, text)
    model = NemoTransducer(info, network, extractor, text)
    model.durations, model.max_symbols = durations_of(archive.config), max_symbols_of(archive.config)
    if setting(archive.config, "joint.jointnet.activation", "relu") not in ("relu", "tanh"):
        raise ModelError(f"{archive.path}: the joint's activation is not relu or tanh, the only ones known here")
    return model


def refuse_foreign_targets(archive: Archive) -> None:
    """Refuse a config that names classes or functions from outside NeMo's collections.

    Raises:
        ModelError: It does.
    """
    for value in _targets(archive.config):
        if not (isinstance(value, str) and value.startswith(TRUSTED)):
            raise ModelError(
                f"{archive.path}: the config names {str(value)[:80]!r}, which is not of NeMo; do not use it"
            )


def _targets(config: Any) -> Iterator[Any]:
    """Yield whatever the config asks to be made; a part that it refers to twice is looked at once."""
    seen: set[int] = set()
    left = [config]
    while left:
        part = left.pop()
        if id(part) in seen or not isinstance(part, dict | list):
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            yield from (part[name] for name in TARGETS if name in part)
        left += part.values() if isinstance(part, dict) else part


def _restore(archive: Archive) -> tuple[Any, str]:
    try:
        import nemo
        from nemo.collections.asr.models import ASRModel
        from nemo.utils import logging
    except (ImportError, OSError) as error:
        raise ModelError(f'engine="nemo" needs NeMo: pip install "earmark[nemo]" ({error})') from error
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return ASRModel.restore_from(str(archive.path), map_location="cpu").eval(), str(nemo.__version__)
    except Exception as error:
        # restoring runs most of NeMo, hydra and lightning; each error means that the checkpoint cannot be used
        raise ModelError(f"NeMo cannot restore {archive.path}: {' '.join(str(error).split())[:300]}") from error
    finally:
        logging.set_verbosity(before)


class _ByNemo(Parakeet):
    """Encoder and features of NeMo."""

    def encoder_positions(self, samples: int) -> int:
        """Return the frames after subsampling, counted as NeMo counts them."""
        import torch
        from nemo.collections.asr.parts.submodules.subsampling import calc_length

        mels = self.extractor.featurizer.get_seq_len(torch.tensor([samples]))
        pre = self.module.encoder.pre_encode
        paddings = pre._left_padding + pre._right_padding  # noqa: SLF001 - NeMo's own encoder reads them like this
        frames = calc_length(mels, paddings, pre._kernel_size, pre._stride, pre._ceil_mode, pre._sampling_num)  # noqa: SLF001
        return int(frames[0])

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoder's states, padding masked."""
        import torch

        pieces = [torch.from_numpy(piece) for piece in shared.waveforms(samples)]
        signal = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True).to(self.info.device)
        length = torch.tensor([len(piece) for piece in pieces], device=self.info.device)
        features, counts = self.extractor(input_signal=signal, length=length)
        dtype = next(self.module.encoder.parameters()).dtype
        states, lengths = self.module.encoder(audio_signal=features.to(dtype), length=counts)
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
