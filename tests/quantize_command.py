"""``edge-quantize`` as users run it, and samples for the small networks of ``quantize_models``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("edge-quantize")
DIGITS = ROOT / "examples" / "digits" / "digits-fp32.onnx"
IMAGES = ROOT / "examples" / "digits" / "test.npz"


def quantize(
    *arguments: object, cwd: Path, timeout_s: float = 150
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout_s,
        env=environment(cwd),
    )


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(home / "cache")}


def few(tmp_path: Path, **more: Any) -> Path:  # noqa: ANN401 - any arrays
    """Samples for ``quantize_models.mlp``."""
    path = tmp_path / "few.npz"
    arrays = {"x": np.random.default_rng(1).normal(size=(60, 16)).astype(np.float32)}
    np.savez(path, **(arrays | more))
    return path


def report(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "report.json").read_text())
    return found
