"""A provider that cheats now and then (THREATS A18)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, clip_numbers, run_record


def mixed(*, cheat: Scenario, share: float = 0.25, seed: int = 0) -> Scenario:
    """Return a provider that cheats on a share of the requests and is honest on the others.

    Args:
        cheat: What it does when it cheats.
        share: Share of the requests, between 0 and 1; which ones follows from the request and the seed.
        seed: Another number gives other requests.

    Raises:
        UsageError: The share is not between 0 and 1, or the scenario does not cheat.

    Example:
        >>> from earmark.scenarios.weights import quantise
        >>> mixed(cheat=quantise(bits=4, group=64), share=0.1).name
        'int4-g64-on-0.1'
    """
    if not 0 < share < 1 or cheat.honest:
        raise UsageError(f"mixed takes a cheat and a share between 0 and 1; got {cheat.name} on {share:g}")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        numbers = clip_numbers(inputs)
        chosen = {n for n, item in zip(numbers, inputs, strict=True) if draws(item.request.digest(), share, seed)}
        parts = {False: run_record, True: cheat.produce}
        outputs: dict[int, SegmentOutput] = {}
        for cheating, run in parts.items():
            places = [i for i, number in enumerate(numbers) if (number in chosen) is cheating]
            if places:
                made = run(reference, [inputs[i] for i in places], settings)
                outputs.update(zip(places, made, strict=True))
        return [outputs[i] for i in range(len(inputs))]

    name, summary = f"{cheat.name}-on-{share:g}", f"on {share:.0%} of the requests: {cheat.summary}"
    saves = f"{share:.0%} of: {cheat.saves}"
    return Scenario(name=name, honest=False, summary=summary, saves=saves, produce=produce, asked=cheat.asked)


def draws(digest: str, share: float, seed: int) -> bool:
    """Tell whether the provider cheats on a request of that digest.

    Example:
        >>> sum(draws(str(i), 0.25, 0) for i in range(4000))
        1018
    """
    drawn = hashlib.sha256(f"{seed}/{digest}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < share * 2**64
