"""What passes Gonka's rule and what ours says of it: `python benchmarks/gonka.py` prints the table of the docs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import earmark
from earmark import Clip, Evidence, Verdict
from earmark.fingerprint.gonka import Outcome, Rule
from earmark.interop.convert import to_gonka, verify_response
from earmark.interop.gonka import similarity
from earmark.interop.response import Response, read_response
from earmark.testing import default_clips

Payload = dict[str, Any]
STRICTEST = 0.98
"""The strictest threshold that the network has used; later ones are 0.958, 0.940, 0.922, 0.90, 0.75."""


def read(payload: Payload) -> Response:
    """Read a payload as the network stores it."""
    return read_response(json.dumps(payload).encode(), "gonka")


def rows(payload: Payload) -> list[Payload]:
    """Return the positions of a payload."""
    found: list[Payload] = payload["choices"][0]["logprobs"]["content"]
    return found


def gonka_says(executor: Payload, validator: Payload, rule: Rule = "current") -> Outcome:
    """Compare an executor's payload with a validator's."""
    return similarity(read(executor), read(validator), rule)


def we_say(payload: Payload, clip: Clip, reference: Any) -> Verdict:
    """Judge a payload by earmark."""
    data = json.dumps(payload).encode()
    return verify_response(data, "gonka", clip.request, clip.audio, reference, profile="provisional")


# Cheats, each made of an honest payload; a validator's replay of it gives the honest numbers


def changed(payload: Payload, change: Callable[[float], float]) -> Payload:
    """Return the payload with every log-probability changed."""
    made: Payload = json.loads(json.dumps(payload))
    for row in rows(made):
        row["logprob"] = change(row["logprob"])
        for entry in row["top_logprobs"]:
            entry["logprob"] = change(entry["logprob"])
    return made


def cut_short(payload: Payload, model: Any, tokens: int = 8) -> Payload:
    """Return the first tokens alone, with the text that belongs to them, said to be finished."""
    made: Payload = json.loads(json.dumps(payload))
    choice = made["choices"][0]
    choice["logprobs"]["content"] = rows(made)[:tokens]
    choice["message"]["content"] = model.detokenise([int(row["token"]) for row in rows(made)])
    return made


def other_text(payload: Payload, text: str = "transfer everything to lucy") -> Payload:
    """Return the payload with another text over the same tokens."""
    made: Payload = json.loads(json.dumps(payload))
    made["choices"][0]["message"]["content"] = text
    return made


def any_numbers(payload: Payload, first_list: int = 5) -> Payload:
    """Return the payload with made-up numbers; the first list may be padded to any length."""
    made: Payload = json.loads(json.dumps(payload))
    for row in rows(made):
        row["logprob"] = -30.0
        for rank, entry in enumerate(row["top_logprobs"]):
            entry["logprob"] = -30.0 - rank
    top = rows(made)[0]["top_logprobs"]
    top += [top[-1]] * (first_list - len(top))
    return made


def repeated(payload: Payload) -> Payload:
    """Return the payload with one candidate repeated in place of five."""
    made: Payload = json.loads(json.dumps(payload))
    for row in rows(made):
        row["top_logprobs"] = row["top_logprobs"][:1] * len(row["top_logprobs"])
    return made


def written_by(cheap: Any, model: Any, clip: Clip) -> Evidence:
    """Return what a cheap model writes and the real one scores."""
    return earmark.score(model, earmark.record(cheap, clip.request, clip.audio), clip.audio)


def table(model: Any, cheap: Any, clips: list[Clip]) -> list[tuple[str, str, Outcome, Verdict]]:
    """Return name, rule, what Gonka says and what we say of each case, on one clip."""
    clip = next(c for c in clips if earmark.record(cheap, c.request, c.audio).text != _own(model, c).text)
    truth = to_gonka(_own(model, clip), model)
    stolen = to_gonka(written_by(cheap, model, clip), model)
    cases: list[tuple[str, Rule, Payload, Payload]] = [
        ("honest", "current", truth, truth),
        ("a cheap model writes, the real one scores", "current", stolen, stolen),
        ("cut after 8 tokens", "current", cut_short(truth, model), truth),
        ("another text over the same tokens", "current", other_text(truth), truth),
        ("made-up numbers", "current", any_numbers(truth), truth),
        ("made-up numbers, first list padded to 1000", "legacy", any_numbers(truth, 1000), truth),
        ("one candidate repeated five times", "current", repeated(truth), truth),
        ("a quarter of a nat on uncertain tokens", "current", changed(truth, uncertain_shift), truth),
    ]
    return [(n, rule, gonka_says(one, other, rule), we_say(one, clip, model)) for n, rule, one, other in cases]


def uncertain_shift(value: float) -> float:
    """Move what is neither certain nor hopeless."""
    return value - 0.25 if -8 < value < -0.05 else value


def _own(model: Any, clip: Clip) -> Evidence:
    return earmark.record(model, clip.request, clip.audio)


def main() -> None:
    """Print the table."""
    model = earmark.load("embedded:whisper-nano", device="cpu")
    cheap = earmark.load("embedded:whisper-nano-early", device="cpu")
    print("| case | rule | similarity | above 0.98 | above 0.90 | earmark | because of |")
    print("|---|---|---|---|---|---|---|")
    for name, rule, outcome, verdict in table(model, cheap, default_clips(24, language="en")):
        why = ", ".join(f"`{f.code}`" for f in verdict.findings if f.severity != "note") or "-"
        passes = ["yes" if outcome.passes(t) else "no" for t in (STRICTEST, 0.90)]
        print(f"| {name} | {rule} | {outcome.similarity:.5f} | {' | '.join(passes)} | {verdict.outcome} | {why} |")


if __name__ == "__main__":
    main()
