"""Weights of the original, of ALBEF and of peft under our names, and back."""

from __future__ import annotations

from vlm4st.convert.albef import Row, import_albef, table_text
from vlm4st.convert.backbone import backbone_tensors, load_backbone, read_backbone, write_backbone
from vlm4st.convert.peft_layout import from_peft, peft_config, to_peft
from vlm4st.convert.reference import Converted, convert_reference_state_dict, load_reference, to_reference_state_dict

__all__ = [
    "Converted",
    "Row",
    "backbone_tensors",
    "convert_reference_state_dict",
    "from_peft",
    "import_albef",
    "load_backbone",
    "load_reference",
    "peft_config",
    "read_backbone",
    "table_text",
    "to_peft",
    "to_reference_state_dict",
    "write_backbone",
]
