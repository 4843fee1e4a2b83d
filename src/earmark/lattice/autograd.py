"""`loss`: -log P as a torch autograd function over the same recursions, with an explicit backward recursion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from earmark.lattice.arcs import Rule
from earmark.lattice.checks import OnError
from earmark.lattice.engine import Backend, use_triton
from earmark.lattice.joint import AdditiveJoint
from earmark.lattice.problem import CtcProblem, Problem, TransducerProblem
from earmark.lattice.sources import ChunkedJoint
from earmark.lattice.types import LatticeError

Reduction = Literal["none", "sum", "mean"]


def loss(
    logits_or_joint: Tensor | ChunkedJoint | AdditiveJoint,
    targets: Any,
    logit_lengths: Any,
    target_lengths: Any,
    blank: int,
    *,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    sigma: float = 0.0,
    rule: Rule = "strict",
    reduction: Reduction = "mean",
    on_error: OnError = "raise",
    threads: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Return -log P(tokens | audio) with gradients; CTC for 3-dimensional logits, else a transducer.

    The gradient of a joint flows into its `tensors`; each chunk is computed again in the backward pass.

    Args:
        logits_or_joint: Logits, (B, T, V) or (B, T, >= U + 1, V + D), or a `ChunkedJoint` or
            `AdditiveJoint`.
        targets: Token ids, (B, >= U).
        logit_lengths: Frames of each item, (B,).
        target_lengths: Tokens of each item, (B,).
        blank: Id of the blank; negative ids count from the end.
        durations: As for `transducer`.
        big_blanks: As for `transducer`.
        sigma: As for `transducer`; training uses values about 0.05.
        rule: As for `transducer`.
        reduction: `none` for (B,), `sum` or `mean` over the items.
        on_error: `raise`, or `keep`: a faulty item costs inf under `none`, does not count under `sum` and `mean`,
            and has no gradient.
        threads: Most threads; None for one per processor.
        backend: As for `transducer`; with Triton logits and gradient stay on the device.

    Returns:
        The cost in nats, float64 for float64 logits, else float32.

    Raises:
        LatticeError: As `ctc` and `transducer`.

    Example:
        >>> logits = torch.zeros(1, 2, 3, requires_grad=True)
        >>> cost = loss(logits, [[1]], [2], [1], blank=0)
        >>> cost.backward()
        >>> round(cost.item(), 4), [round(g, 3) for g in logits.grad[0, 0].tolist()]
        (1.0986, [0.0, -0.333, 0.333])
    """
    if reduction not in ("none", "sum", "mean"):
        raise LatticeError(f"reduction is {reduction!r}; use 'none', 'sum' or 'mean'")
    if isinstance(logits_or_joint, np.ndarray):
        raise LatticeError("loss needs a torch tensor or a joint; for arrays, use ctc or transducer")
    common: dict[str, Any] = {
        "targets": targets,
        "logit_lengths": logit_lengths,
        "target_lengths": target_lengths,
        "blank": blank,
        "on_error": on_error,
        "threads": threads,
    }
    ctc_problem, transducer_problem = _problems(use_triton(backend, logits_or_joint))
    problem: Problem
    if isinstance(logits_or_joint, AdditiveJoint):
        logits_or_joint = logits_or_joint.chunked()
    if not isinstance(logits_or_joint, ChunkedJoint) and len(logits_or_joint.shape) == 3:
        if durations is not None or big_blanks:
            raise LatticeError("durations and big_blanks belong to 4-dimensional logits; these have 3")
        problem = ctc_problem(logits_or_joint, **common)
    else:
        problem = transducer_problem(
            logits_or_joint, durations=durations, big_blanks=big_blanks, sigma=sigma, rule=rule, **common
        )
    joint = logits_or_joint if isinstance(logits_or_joint, ChunkedJoint) else None
    tensors = joint.tensors if joint is not None else (logits_or_joint,)
    costs: Tensor = _Cost.apply(problem, *tensors)  # type: ignore[no-untyped-call]
    if reduction == "none":
        return costs
    counted = costs[torch.isfinite(costs)]
    return counted.sum() / (max(len(counted), 1) if reduction == "mean" else 1)


def _problems(on_device: bool) -> tuple[type[CtcProblem], type[TransducerProblem]]:
    """Return the problems solved by Triton kernels, or by the compiled ones."""
    if not on_device:
        return CtcProblem, TransducerProblem
    from earmark.lattice.triton_problem import TritonCtcProblem, TritonTransducerProblem

    return TritonCtcProblem, TritonTransducerProblem


class _Cost(torch.autograd.Function):
    """Costs of the items of a problem, (B,); the tensors it depends on come second."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, *tensors: Tensor) -> Tensor:
        """Solve the lattices."""
        ctx.problem = problem
        ctx.save_for_backward(*tensors)
        return problem.costs()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Turn posteriors into gradients, block by block."""
        tensors = ctx.saved_tensors
        weights = outputs[0].detach().double().cpu().tolist()
        joint = ctx.problem.source
        if not isinstance(joint, ChunkedJoint):
            gradient = _empty_like(tensors[0])
            ctx.problem.clear_padding(gradient)
            ctx.problem.write_gradient(tensors[0].detach(), 0, weights, gradient)
            return None, gradient
        wanted = [t for t, needed in zip(tensors, ctx.needs_input_grad[1:], strict=True) if needed]
        sums = [torch.zeros_like(t) for t in wanted]
        for start, stop in joint.spans():
            with torch.enable_grad():
                part = joint.compute(start, stop)
            gradient = torch.zeros(part.shape, dtype=part.dtype, device=part.device)
            ctx.problem.write_gradient(part.detach(), start, weights, gradient)
            found = torch.autograd.grad(part, wanted, gradient, allow_unused=True)
            for place, piece in enumerate(found):
                if piece is not None:
                    sums[place] += piece
        given = iter(sums)
        return None, *(next(given) if needed else None for needed in ctx.needs_input_grad[1:])


def _empty_like(tensor: Tensor) -> Tensor:
    """Return contiguous room for a gradient; numpy's asks for huge pages, and so is written at half the cost."""
    if tensor.device.type != "cpu":
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    room = torch.from_numpy(np.empty(tensor.numel() * tensor.element_size(), np.uint8))
    return room.view(tensor.dtype).view(tensor.shape)
