"""Files of the original as ours: denoisers, diffusion checkpoints, tables of rows, samples, prompts, networks.

| file of the original | read by | becomes |
|---|---|---|
| `model-<step>.pt` | `import_diffusion` | a run to generate from |
| `ModelParams_*.npy` | `read_rows` | a `RowTable` |
| `sampleRes_*.npy`, `sampleSeq_*.npy` | `read_samples` | a `RowTable` of one city |
| `KGEmb.npy`, `CrowdTimeEmb.npy`, `trafficTimeEmb.npy` | `read_prompts` | `Prompts` |
| `task4_<i>.pt`, or a folder of them | `read_networks` | a `RowTable` of one city |
"""

from __future__ import annotations

from gpd.convert.arrays import read_prompts, read_rows, read_samples
from gpd.convert.checkpoints import convert_diffusion, import_diffusion
from gpd.convert.denoisers import LegacyDenoiser, from_legacy_state_dict, to_legacy_state_dict
from gpd.convert.families import FAMILIES, Family
from gpd.convert.networks import read_network, read_networks
from gpd.convert.recognising import Kind, kind_of

__all__ = [
    "FAMILIES",
    "Family",
    "Kind",
    "LegacyDenoiser",
    "convert_diffusion",
    "from_legacy_state_dict",
    "import_diffusion",
    "kind_of",
    "read_network",
    "read_networks",
    "read_prompts",
    "read_rows",
    "read_samples",
    "to_legacy_state_dict",
]
