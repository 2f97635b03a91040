"""What needs an extra says so, with the command that installs it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

from zgrid import rl
from zgrid.cli import main
from zgrid.errors import MissingExtraError

EXAMPLES = {"torchrl": "torchrl_mappo.py", "rllib": "mappo_training.py", "sb3": "sb3_ppo.py"}


@pytest.mark.parametrize("extra", EXAMPLES)
def test_a_missing_extra_is_named_with_its_command(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"not installed: torch, .*pip install 'zgrid\[{extra}\]'.*CPU build"):
        rl.needs(extra)


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
@pytest.mark.parametrize("extra", EXAMPLES)
def test_an_example_without_its_extra_says_so(extra: str) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{EXAMPLES[extra]}", "--test"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert f"pip install 'zgrid[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_export_without_torch_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "policy.onnx")]) == 2
    assert "pip install 'zgrid[torchrl]'" in capsys.readouterr().err


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_an_example_explains_itself(example: str) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{example}", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert f"example: python examples/{example}" in done.stdout
