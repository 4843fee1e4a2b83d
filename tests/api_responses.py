"""Responses as servers write them, made from evidence of the embedded model."""

from __future__ import annotations

import json

from earmark.loading import family_of


def report_of(model, evidence):
    """Return what an API would report of evidence with one segment."""
    segment, family = evidence.segments[0], family_of(model)
    return family.report(family.read(segment, evidence.request, model, evidence.level))


def chat(model, evidence, *, tokens="text", k=5, end=True, token_ids=False, finish="stop") -> dict:
    """Return a chat completion; `tokens` is text (with bytes), bare (without), numeric, or prefixed (`token_id:`)."""
    report = report_of(model, evidence)
    rows = list(zip(report.ids, report.logprobs, report.top, strict=True))
    rows = rows if end or rows[-1][0] not in model.stop_ids else rows[:-1]
    content = []
    for i, value, top in rows:
        listed = [_entry(model, *pair, tokens) for pair in top[:k]]
        content.append(_entry(model, i, value, tokens) | {"top_logprobs": listed})
    choice = {"index": 0, "message": {"role": "assistant", "content": evidence.text}, "finish_reason": finish}
    choice["logprobs"] = {"content": content}
    if token_ids:
        choice["token_ids"] = [i for i, _, _ in rows]
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "served", "choices": [choice]}


def _entry(model, i, value, tokens):
    data = model.token_bytes[i]
    names = {"numeric": str(i), "prefixed": f"token_id:{i}"}
    entry = {"token": names.get(tokens, data.decode("utf-8", "replace")), "logprob": value}
    return entry | ({"bytes": list(data)} if tokens == "text" else {})


def events(completion: dict, *, done=True, size=3) -> bytes:
    """Return the same completion as a stream of server-sent events."""
    choice = completion["choices"][0]
    rows = choice["logprobs"]["content"]
    parts = [{"delta": {"role": "assistant", "content": ""}}]
    parts += [{"delta": {}, "logprobs": {"content": rows[at : at + size]}} for at in range(0, len(rows), size)]
    parts.append({"delta": {"content": choice["message"]["content"]}, "finish_reason": choice["finish_reason"]})
    lines = [json.dumps({"model": "served", "choices": [{"index": 0} | part]}) for part in parts]
    lines.append(json.dumps({"choices": [], "usage": {"total_tokens": 1}}))
    lines += ["[DONE]"] if done else []
    return ("".join(f"data: {line}\n\n" for line in lines)).encode()
