"""A profile: the calibrated honest behaviour of one model at one precision and decoding, and what follows from it."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.decision.betting import Bets, place_bets
from earmark.decision.conformal import conformal_p, promised_rate
from earmark.decision.score import Scale
from earmark.errors import OutputError, RecordError, UsageError
from earmark.fingerprint.types import FINGERPRINT_VERSION, Fingerprint
from earmark.protocols import ModelInfo
from earmark.records import codec
from earmark.records.profile import Header

SCORES_FILE = "scores.safetensors"
PROFILE_FILE = "profile.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a profile says about one clip.

    Attributes:
        score: S, the largest channel score; NaN where no channel applied.
        p_value: Conformal p-value of S; NaN where S is.
        leading: The channel that gave S.
    """

    score: float
    p_value: float
    leading: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A header and the scores of the honest calibration clips.

    Attributes:
        header: Everything but the scores.
        scores: S of each calibration clip, (clips,).
    """

    header: Header
    scores: NDArray[np.float64]

    @property
    def name(self) -> str:
        """A short name for people."""
        header = self.header
        return f"{header.model} {header.precision} {header.strategy} {header.level} (a = {header.rate:.2g})"

    @property
    def scale(self) -> Scale:
        """The scale of the channels."""
        header = self.header
        return Scale(
            channels=header.channels,
            floor=header.floor,
            median=header.median,
            width=header.width,
            linear=frozenset(header.along),
            least=header.least,
        )

    def judge(self, fingerprint: Mapping[str, float]) -> Judgement:
        """Return score and p-value of one clip.

        Raises:
            UsageError: The fingerprint is of another family or version.
        """
        version = fingerprint.version if isinstance(fingerprint, Fingerprint) else self.header.fingerprint_version
        if version != self.header.fingerprint_version:
            expected = self.header.fingerprint_version
            raise UsageError(
                f"fingerprint version {version}; the profile was calibrated on {expected}: calibrate again"
            )
        row = self.scale.row(fingerprint)
        each = self.scale.channel_scores(row)[0]
        if np.isnan(each).all():
            return Judgement(score=math.nan, p_value=math.nan, leading="none")
        score = float(np.nanmax(each))
        p_value = float(conformal_p([score], self.scores)[0])
        return Judgement(score=score, p_value=p_value, leading=self.header.channels[int(np.nanargmax(each))])

    def limits(self) -> dict[str, float]:
        """Return the value of each channel beyond which it alone makes a clip FAIL.

        p <= a asks that at most a (n + 1) - 1 calibration scores are as large, so the next smaller score is the limit.
        """
        allowed = math.floor(self.header.rate * (len(self.scores) + 1) + 1e-9) - 1
        limit = float(np.sort(self.scores)[::-1][max(0, allowed)])
        return dict(zip(self.header.channels, self.scale.values_at(limit), strict=True))

    def bets(self, *, rate: float | None = None, tolerance: float | None = None) -> Bets:
        """Return what an audit bets on; by default at the profile's own rate and tolerance.

        Raises:
            UsageError: See `place_bets`.
        """
        rate = self.header.rate if rate is None else rate
        tolerance = self.header.tolerance if tolerance is None else tolerance
        return place_bets(self.scores, rate=rate, tolerance=tolerance)

    def check_fits(self, info: ModelInfo) -> None:
        """Check that the profile is of a model at its precision.

        Raises:
            UsageError: It belongs to other weights or another precision.
        """
        own = (self.header.weights, self.header.precision, self.header.family)
        if own != (info.weights, info.precision, info.family):
            found = f"{self.header.model} ({self.header.precision}, weights {self.header.weights[:12]})"
            expected = f"{info.name} ({info.precision}, weights {info.weights[:12]})"
            raise UsageError(f"the profile is of {found}; expected one of {expected}: run `earmark calibrate`")
        version = self.header.fingerprint_version
        if version != FINGERPRINT_VERSION:
            found = f"statistics of version {version}; this earmark computes version {FINGERPRINT_VERSION}"
            raise UsageError(f"the profile was calibrated on {found}: run `earmark calibrate` again")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the profile into a folder: `profile.json` and `scores.safetensors`.

        Raises:
            OutputError: A file cannot be written.
        """
        from safetensors.numpy import save

        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{target} cannot be made: {error}") from error
        codec.write_atomically(target / SCORES_FILE, save({"scores": self.scores}))
        self.header.save(target / PROFILE_FILE)


def load_profile(folder: str | os.PathLike[str]) -> Profile:
    """Read a profile from its folder.

    Raises:
        RecordError: A file is damaged or of a newer version.
        UsageError: A file is missing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    header = codec.decode(codec.read_bytes(Path(folder) / PROFILE_FILE), Header)
    data = codec.read_bytes(Path(folder) / SCORES_FILE)
    try:
        scores = load(data)["scores"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise RecordError(f"{Path(folder) / SCORES_FILE} holds no scores: {error}") from error
    if scores.dtype != np.float64 or scores.ndim != 1 or not len(scores) or np.isnan(scores).any():
        raise RecordError(f"{Path(folder) / SCORES_FILE} holds no row of float64 scores without NaN")
    if header.rate < (promise := promised_rate(scores)) * (1 - 1e-9):
        clips = f"{len(scores)} clips, {np.isposinf(scores).sum()} of which broke a rule,"
        raise RecordError(f"the profile promises a rate of {header.rate:g}; its {clips} allow {promise:.2g}")
    return Profile(header=header, scores=np.sort(scores))


def find_profile(info: ModelInfo, strategy: str, level: str) -> Profile | None:
    """Return the profile of a model at its precision, of one decoding and level; None where there is none.

    Looked through are the folders in `EARMARK_PROFILES` (separated as in PATH) and those that ship with earmark; one of
    the same level comes before one that merely covers it, see `covers`.

    Args:
        info: The reference.
        strategy: Decoding of the request.
        level: Level of the evidence.
    """
    wanted, covering = (info.weights, info.precision, strategy), None
    for folder in _places():
        try:
            header = codec.decode(codec.read_bytes(folder / PROFILE_FILE), Header)
        except (RecordError, UsageError) as error:
            warnings.warn(f"the profile {folder} is left out: {error}", stacklevel=2)
            continue
        if (header.weights, header.precision, header.strategy) == wanted:
            if header.level == level:
                return load_profile(folder)
            covering = covering or (folder if covers(header.level, level) else None)
    return load_profile(covering) if covering else None


def covers(calibrated: str, level: str) -> bool:
    """Say whether a profile of one level may judge evidence of another.

    Where a profile of sketches judges scores, the channels of the sketch do not apply: S is the largest of fewer
    channels, so it is at most what it would have been, and the rate holds. A profile of scores judges no sketch: nobody
    would look at the hidden states, which alone depend on the nonce.

    Example:
        >>> covers("sketch", "scores"), covers("scores", "sketch")
        (True, False)
    """
    return level in (calibrated, {"sketch": "scores"}.get(calibrated))


def _places() -> Iterator[Path]:
    roots = [Path(p) for p in os.environ.get("EARMARK_PROFILES", "").split(os.pathsep) if p]
    roots.append(Path(str(files("earmark.data"))) / "profiles")
    for root in roots:
        yield from sorted(path.parent for path in root.rglob(PROFILE_FILE)) if root.is_dir() else ()


def provenance(**facts: Any) -> dict[str, str]:
    """Return facts about a calibration as short strings, with the versions that made it.

    Example:
        >>> provenance(seed=1)["seed"]
        '1'
    """
    from importlib.metadata import version

    versions = {name: version(name) for name in ("earmark", "torch", "transformers", "numpy")}
    return {name: str(value)[:500] for name, value in {**facts, **versions}.items()}
