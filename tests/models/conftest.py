"""Real weights for the tests of models, and a wall around the network."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest


@pytest.fixture
def real_weights() -> Path:
    """The folder `weights/` of the test data; skips, saying so, where it is not set."""
    root = os.environ.get("WELLFIT_TEST_DATA")
    if not root:
        pytest.skip("WELLFIT_TEST_DATA is not set: no real weights")
    folder = Path(root) / "weights"
    if not folder.is_dir():
        pytest.skip(f"WELLFIT_TEST_DATA has no folder weights/ ({folder})")
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches and a network that refuses; returns the folder that TORCH_HOME names."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path
