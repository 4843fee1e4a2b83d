"""Providers that run the quantised arithmetic of other libraries (THREATS A2): torchao and bitsandbytes.

These compute in integers where the library has such kernels for the device; `weights` only makes round trips. Neither
library is installed with earmark: `pip install earmark[quant]`. The extra stands alone because transformers imports
torchao, where it is installed, with every model: that costs seconds, and prints warnings.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from earmark.errors import UsageError
from earmark.extras import need
from earmark.protocols import Model
from earmark.scenarios.core import Scenario, running

if TYPE_CHECKING:
    import torch

TORCHAO = {
    "int8": "Int8WeightOnlyConfig",
    "int8-dynamic": "Int8DynamicActivationInt8WeightConfig",
    "int4": "Int4WeightOnlyConfig",
    "fp8": "Float8WeightOnlyConfig",
    "fp8-dynamic": "Float8DynamicActivationFloat8WeightConfig",
}
"""Names of torchao's configurations; `dynamic` quantises the inputs of each layer too, and multiplies integers."""
BITSANDBYTES = ("int8", "nf4", "fp4")
BLOCK, GROUP = 32, 64
"""Outputs that its 4-bit CPU kernel takes at once, inputs that share a scale; layers of other sizes are left alone."""


def torchao(*, kind: Literal["int8", "int8-dynamic", "int4", "fp8", "fp8-dynamic"] = "int8-dynamic") -> Scenario:
    """Return a provider whose linear layers torchao quantised.

    Args:
        kind: Weights alone, or with `dynamic` the inputs of each layer too.

    Raises:
        UsageError: The kind is unknown. Where torchao is not installed, or has no kernel for the device, running the
            scenario says so.

    Example:
        >>> torchao(kind="int8").name
        'torchao-int8'
    """
    if kind not in TORCHAO:
        raise UsageError(f"torchao takes {', '.join(TORCHAO)}; got {kind!r}")

    def make(reference: Model) -> Model:
        library = need("torchao.quantization", what=f"the scenario torchao-{kind}", extra="quant")
        module = _with_linear_layers(reference)
        try:
            library.quantize_(module, getattr(library, TORCHAO[kind])())
        except (ImportError, AssertionError, NotImplementedError, RuntimeError, AttributeError) as error:
            raise UsageError(f"torchao has no {kind} here: {' '.join(str(error).split())[:200]}") from error
        if not _any_replaced(module):  # it leaves out layers whose shape it cannot take, without a word
            raise UsageError(f"torchao has no {kind} for the layers of {reference.info.name}: it left all as they were")
        return reference.with_module(module)

    return running(f"torchao-{kind}", f"linear layers in torchao's {kind}", "memory and time", make)


def bitsandbytes(*, kind: Literal["int8", "nf4", "fp4"] = "int8") -> Scenario:
    """Return a provider whose linear layers are those of bitsandbytes: LLM.int8(), or 4 bits.

    Args:
        kind: `int8`, `nf4` or `fp4`.

    Source: Dettmers et al., LLM.int8(), arXiv 2208.07339; QLoRA, arXiv 2305.14314.

    Example:
        >>> bitsandbytes(kind="nf4").name
        'bitsandbytes-nf4'
    """
    if kind not in BITSANDBYTES:
        raise UsageError(f"bitsandbytes takes {', '.join(BITSANDBYTES)}; got {kind!r}")

    def make(reference: Model) -> Model:
        layers = need("bitsandbytes", what=f"the scenario bitsandbytes-{kind}", extra="quant").nn
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at every layer that it casts
        module = _with_linear_layers(reference)
        if not _replace_linear(module, lambda linear: _bitsandbytes_layer(layers, linear, kind)):
            expected = f"outputs in multiples of {BLOCK} and inputs in multiples of {GROUP}, which 4 bits need"
            raise UsageError(f"no linear layer of {reference.info.name} has {expected}")
        return reference.with_module(module.to(reference.info.device))

    return running(f"bitsandbytes-{kind}", f"linear layers in bitsandbytes' {kind}", "memory and time", make)


def _bitsandbytes_layer(layers: Any, linear: torch.nn.Linear, kind: str) -> Any:
    """Return a layer of bitsandbytes, or None where it has no kernel for the shape."""
    if kind != "int8" and (linear.out_features % BLOCK or linear.in_features % GROUP):
        return None
    shape = {"input_features": linear.in_features, "output_features": linear.out_features}
    bias, dtype = linear.bias is not None, linear.weight.dtype
    if kind == "int8":
        made = layers.Linear8bitLt(**shape, bias=bias, has_fp16_weights=False)
    else:
        made = layers.Linear4bit(**shape, bias=bias, quant_type=kind, compute_dtype=dtype)
    made.load_state_dict(linear.state_dict())
    return made.eval()


def _with_linear_layers(reference: Model) -> torch.nn.Module:
    """Return a copy of the reference's network.

    Raises:
        UsageError: It has no linear layers, as one that runs elsewhere (ONNX).
    """
    import torch

    if not any(isinstance(layer, torch.nn.Linear) for layer in reference.module.modules()):
        raise UsageError(f"{reference.info.name} has no linear layers that a library could quantise")
    return copy.deepcopy(reference.module)


def _any_replaced(module: torch.nn.Module) -> bool:
    import torch

    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    return any(type(layer.weight) is not torch.nn.Parameter for layer in layers)


def _replace_linear(module: torch.nn.Module, make: Callable[[torch.nn.Linear], Any]) -> int:
    """Replace plain linear layers in place where `make` gives another; return how many."""
    import torch

    count = 0
    for name, child in module.named_children():
        made = make(child) if type(child) is torch.nn.Linear else None
        if made is not None:
            setattr(module, name, made)
            count += 1
        count += _replace_linear(child, make)
    return count
