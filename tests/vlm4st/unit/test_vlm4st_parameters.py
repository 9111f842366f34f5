"""Numbers of parameters at full size, counted without making them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from vlm4st.models import ModelConfig, counting
from vlm4st.models.counting import count_reference

FULL = ModelConfig()
count = cache(counting.count)
MODULES = {"dix_attention": 3_959_424, "prompt_forge": 507_648, "gate_fusion": 859_396,
           "format_transformer": 2_405_363, "prediction_head": 72_849_280, "vlm_module": 232_740_608}  # fmt: skip


def test_the_original_at_full_size():
    found = count_reference(FULL)
    assert (found.total, found.trainable, found.frozen) == (313_321_719, 82_792_951, 230_528_768)
    assert found.modules == MODULES
    scratch = count_reference(replace(FULL, vlm=replace(FULL.vlm, use_lora=False)))
    assert (scratch.total, scratch.frozen, scratch.adapters) == (289_848_567, 0, 0)


@pytest.mark.parametrize(("kind", "adapters"), [
    ("standard", 2_211_840), ("mtl", 10_066_140), ("moe", 13_300_200), ("task_adaptive", 8_862_120),
])  # fmt: skip
def test_adapters_at_full_size(kind, adapters):
    assert count_reference(replace(FULL, vlm=replace(FULL.vlm, lora_type=kind))).adapters == adapters


def test_ours_lacks_what_nothing_reads():
    ours = count(FULL)
    unread_layers, their_adapters = 42_527_232, 442_368
    dead = 21_261_312 + 23_837_184 + 393_728 + unread_layers + their_adapters
    assert ours.total == 313_321_719 - dead
    assert ours.trainable == 82_792_951 - their_adapters
    assert {name: size for name, size in ours.modules.items() if name != "vlm_module"} == {
        name: size for name, size in MODULES.items() if name != "vlm_module"
    }


@pytest.mark.parametrize(("ablation", "lacks"), [
    ("no_dix", {"dix_attention"}), ("no_prompt", {"prompt_forge"}), ("no_visual", {"vlm_module"}),
    ("no_seq", {"vlm_module"}),
])  # fmt: skip
def test_an_ablation_does_not_build_what_it_leaves_out(ablation, lacks):
    whole, part = count(FULL), count(FULL, ablation)
    smaller = {name for name, size in whole.modules.items() if part.modules.get(name, 0) < size}
    assert smaller == lacks
