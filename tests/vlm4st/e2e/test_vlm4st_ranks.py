"""Two processes that share the frozen backbone train as one process does, and say what each of them holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from flow_runs import LORA, SMALL, flow_file, run
from safetensors.torch import load_file

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
SAME = 1e-5
"""Largest difference of losses: sums are taken in another order."""


def test_two_processes_with_a_shared_backbone_train_as_one(tmp_path: Path) -> None:
    flow_file(tmp_path)
    loud = [word for word in (*SMALL, *LORA) if word != "--quiet"]
    words = ["train", *loud, "--data", "flows.npz", "--run", "two", "--backbone.shard"]
    done = subprocess.run([*LAUNCH, "--nproc-per-node", "2", "-m", "--", "vlm4st.cli", *words], cwd=tmp_path, text=True,
                          capture_output=True, timeout=400, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = " ".join(done.stderr.split())
    held = re.findall(r"process (\d): ([\d,]+) of ([\d,]+) bytes of frozen weights stay here; peak memory so far", said)
    sys.stdout.write(f"{said}\n")
    assert sorted(process for process, _, _ in held) == ["0", "1"]
    for _, here, whole in held:
        assert int(here.replace(",", "")) < 0.84 * int(whole.replace(",", ""))
    assert run("train", *SMALL, *LORA, "--data", tmp_path / "flows.npz", "--run", tmp_path / "one") == 0
    one, two = ([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
                for name in ("one", "two"))  # fmt: skip
    assert [line.keys() for line in one] == [line.keys() for line in two]
    losses = [
        (line[name], other[name]) for line, other in zip(one, two, strict=True) for name in line if "loss" in name
    ]
    assert len(losses) == 5
    assert max(abs(ours - theirs) for ours, theirs in losses) < SAME
    best, shared = (load_file(tmp_path / name / "checkpoints/best.safetensors") for name in ("one", "two"))
    assert best.keys() == shared.keys()
    assert max(float((best[name].double() - shared[name].double()).abs().max()) for name in best) < 1e-3
