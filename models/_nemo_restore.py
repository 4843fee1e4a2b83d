"""NeMo's own network out of a `.nemo` archive, and its own features."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.models import _transformers as shared
from earmark.models._bands import least_deviation
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_targets import refuse_foreign_objects, refuse_foreign_targets

if TYPE_CHECKING:
    import torch


def restore(archive: Archive, **settings: Any) -> tuple[Any, str]:
    """Return the network as NeMo restores it, and NeMo's version.

    Args:
        archive: The archive, already read and checked.
        **settings: Settings of the config that are replaced.

    Raises:
        ModelError: NeMo is not installed, or cannot restore it; or the config asks for something else than NeMo's own.
    """
    refuse_foreign_targets(archive.config, archive.path)
    try:
        import nemo
        from nemo.collections.asr.models import ASRModel
        from nemo.utils import AppState, logging
        from omegaconf import OmegaConf
    except (ImportError, OSError) as error:
        raise ModelError(f'engine="nemo" needs NeMo: pip install "earmark[nemo]" ({error})') from error
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        config = ASRModel.restore_from(str(archive.path), return_config=True)
        read: Any = OmegaConf.to_container(config, resolve=False)
        refuse_foreign_targets(read, archive.path)
        refuse_foreign_objects(read, archive.path)
        config.update(settings)
        module = ASRModel.restore_from(str(archive.path), override_config_path=config, map_location="cpu")
        return module.eval(), str(nemo.__version__)
    except ModelError:
        raise
    except Exception as error:
        # restoring runs most of NeMo, hydra and lightning; each error means that the checkpoint cannot be used
        raise ModelError(f"NeMo cannot restore {archive.path}: {' '.join(str(error).split())[:300]}") from error
    finally:
        logging.set_verbosity(before)
        AppState().model_restore_path = None  # else NeMo looks into this archive for parts of every later model


def own_extractor(module: Any, device: str) -> Any:
    """Return a copy of a network's features in float32, without dither and padding."""
    extractor = copy.deepcopy(module.preprocessor).to(device)
    extractor.featurizer.dither, extractor.featurizer.pad_to = 0.0, 0
    return extractor


def features_of(module: Any, extractor: Any, samples: Sequence[NDArray[np.int16]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features (batch, mels, frames) of pieces of audio in the encoder's dtype, and the frames of each."""
    weight = next(module.encoder.parameters())
    features, counts = _extracted(extractor, samples, weight.device)
    return features.to(weight.dtype), counts


def least_deviation_of(module: Any, extractor: Any, samples: NDArray[np.int16]) -> float:
    """Return by how much the band of a piece of audio that varies least does, before it is normalised."""
    features, counts = _extracted(extractor, [samples], next(module.encoder.parameters()).device)
    return least_deviation(features[0, :, : int(counts[0])].T.cpu())


def _extracted(
    extractor: Any, samples: Sequence[NDArray[np.int16]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    pieces = [torch.from_numpy(piece) for piece in shared.waveforms(samples)]
    signal = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True).to(device)
    length = torch.tensor([len(piece) for piece in pieces], device=device)
    found: tuple[torch.Tensor, torch.Tensor] = extractor(input_signal=signal, length=length)
    return found


def count_frames(module: Any, extractor: Any, samples: int) -> int:
    """Return the frames of a piece of that many samples after subsampling, counted as NeMo counts them."""
    import torch
    from nemo.collections.asr.parts.submodules.subsampling import calc_length

    mels = extractor.featurizer.get_seq_len(torch.tensor([samples]))
    pre = module.encoder.pre_encode
    paddings = pre._left_padding + pre._right_padding  # noqa: SLF001 - NeMo's own encoder reads them like this
    frames = calc_length(mels, paddings, pre._kernel_size, pre._stride, pre._ceil_mode, pre._sampling_num)  # noqa: SLF001
    return int(frames[0])
