"""Compile every Triton kernel for a Hopper GPU, without one: python compile_kernels.py (no TRITON_INTERPRET)."""

from __future__ import annotations

import sys

from earmark.lattice import triton_ctc, triton_gradients, triton_joint, triton_rows, triton_transducer

INTS, DOUBLES = "*i32", "*fp64"
ROWS = {"frames": INTS, "tokens": INTS, "orders": DOUBLES, "norms": DOUBLES, "entropies": DOUBLES}
WAVE = {"frames": INTS, "tokens": INTS, "alpha": DOUBLES, "beta": DOUBLES, "total": DOUBLES, "expected": DOUBLES}
ARCS = {**WAVE, "arcs": DOUBLES, "steps": INTS, "came": "*i16", "end": INTS}
CTC = {**WAVE, "scores": DOUBLES, "labels": INTS, "moves": "*i8", "end": INTS}
GRAD = {**ROWS, "picks": INTS, "posteriors": DOUBLES, "weights": DOUBLES}
TDT = {"BLANKS": 4, "N": 9, "BLOCK": 64}


def joint(kind: str) -> dict[str, str]:
    """Return the pointer types of the fused joint."""
    parts = dict.fromkeys(("encoder", "predictor", "weight", "bias"), kind)
    return {**ROWS, **parts, "labels": "*i64", "picks": "*i64", "picked": "*fp32"}


def variants():
    """Yield kernel, pointer types and constants."""
    for kind, wide in (("*fp32", False), ("*bf16", False), ("*fp16", False), ("*fp64", True)):
        yield triton_rows._row_stats, {**ROWS, "logits": kind}, {"K": 1, "WIDE": wide, "BLOCK": 512}
        yield triton_gradients._grad_rows, {**GRAD, "logits": kind, "out": kind}, {"WIDE": wide, "BLOCK": 512}
    for rule in (False, True):
        for best in (False, True):
            yield triton_transducer._forward, ARCS, {**TDT, "OPEN": rule, "BEST": best, "REACH": 4}
        yield triton_transducer._backward, ARCS, {**TDT, "OPEN": rule}
    for best in (False, True):
        yield triton_ctc._forward, CTC, {"BEST": best, "BLOCK": 128}
    yield triton_ctc._backward, CTC, {"BLOCK": 128}
    for kind, tanh in (("*fp32", True), ("*bf16", False)):
        sizes = {"K": 1, "KP": 1, "PP": 8, "BM": 32, "BN": 64, "BH": 32}
        yield triton_joint._joint_stats, joint(kind), {**sizes, "TANH": tanh, "BIAS": True}


def main() -> None:
    """Compile them all; print names and sizes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kernel, pointers, constants in variants():
        types = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=types, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        sys.stdout.write(f"{kernel.__name__} {len(compiled.asm['cubin'])}\n")


if __name__ == "__main__":
    main()
