"""Which precision ``auto`` is. For single runs alone: a study's runs must mean the same on every machine."""

import torch

from optstudy.config import RunConfig
from optstudy.size import SMALL, parameter_count


def choose(config: RunConfig, device: torch.device) -> tuple[str, str]:
    """Return ``bfloat16`` or ``float32`` for a model on a device, and why.

    The rule depends on the machine and the model alone, so that asking again gives the same run.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return ("bfloat16", f"{name} has it") if native else ("float32", f"{name} has no bfloat16")
    if not cpu_has_bfloat16():
        return "float32", "this CPU has no bfloat16 instructions"
    count = parameter_count(config.model)
    if count < SMALL:
        return "float32", f"{count:,} parameters are too few to gain by bfloat16"
    return "bfloat16", "this CPU has bfloat16 instructions"


def cpu_has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 by itself (AVX512-BF16, AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
