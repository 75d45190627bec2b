from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.saved import card_of, load_model, save_model
from wellfit.models.zoo import build
from wellfit.record import RunFolder

PREPROCESSING = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "image_size": 48}

FRESH = """
import hashlib, sys, torch
from pathlib import Path
from wellfit.models.saved import load_model
from wellfit.record import RunFolder
for folder in sys.argv[1:]:
    module, card = load_model(RunFolder(Path(folder)))
    assert not module.training
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    print(digest.hexdigest(), ",".join(card["classes"]))
"""


def digest(module: nn.Module) -> str:
    sha = hashlib.sha256()
    for key, value in module.state_dict().items():
        sha.update(key.encode() + value.numpy().tobytes())
    return sha.hexdigest()


def saved(path: Path, name: str, **options: object) -> nn.Module:
    built = build(name, 3, image_size=48, seed=4, **options)
    module = built.module.train()
    module(torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    save_model(RunFolder(path), module, card_of(built, ["ant", "bee", "wasp"], 48, PREPROCESSING))
    return module


def test_a_fresh_process_gets_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_saved_nets.py").write_text(
        "from torch import nn\n"
        "def net(classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    named = ["resnet18", "lenet5", "squeezenet1_1", "timm:test_vit", "my_saved_nets:net"]
    modules = [saved(tmp_path / str(i), name) for i, name in enumerate(named)]
    folders = [str(tmp_path / str(i)) for i in range(len(named))]
    answer = subprocess.run(
        [sys.executable, "-c", FRESH, *folders], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert answer.stdout.split() == [part for m in modules for part in (digest(m), "ant,bee,wasp")]


def test_the_same_net_gives_the_same_bytes_whatever_its_memory_layout(tmp_path: Path) -> None:
    built = build("resnet20", 3, image_size=32)
    card = card_of(built, ["a", "b", "c"], 32, PREPROCESSING)
    first, second = RunFolder(tmp_path / "1"), RunFolder(tmp_path / "2")
    save_model(first, built.module, card)
    save_model(second, built.module.to(memory_format=torch.channels_last), card)
    assert first.model_weights.read_bytes() == second.model_weights.read_bytes()
    assert first.model_card.read_bytes() == second.model_card.read_bytes()
    assert sorted(p.name for p in first.path.iterdir()) == ["model.json", "model.safetensors"]


def test_the_card_says_what_it_takes_to_use_the_model(tmp_path: Path) -> None:
    module = saved(tmp_path, "resnet18", small_stem=False)
    card = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert card["schema"] == 1
    assert card["architecture"] == {"name": "resnet18", "options": {"small_stem": False}, "image_size": 48}
    assert card["weights"] == dict.fromkeys(("from", "source", "licence", "classes", "preprocessing"))
    assert card["classes"] == ["ant", "bee", "wasp"]
    assert card["preprocessing"] == PREPROCESSING
    assert card["parameters"] == sum(p.numel() for p in module.parameters())
    assert card["versions"]["torch"].startswith(torch.__version__.partition("+")[0])


def test_shared_tensors_and_wrappers_are_written_plainly(tmp_path: Path) -> None:
    built = build("lenet5", 3, image_size=32)
    net = built.module
    net.fc2.bias = nn.Parameter(torch.zeros(84))
    net.twin = net.fc2
    wrapped = torch.optim.swa_utils.AveragedModel(net)
    save_model(RunFolder(tmp_path), wrapped, card_of(built, ["a", "b", "c"], 32, {}))
    with pytest.raises(UserError, match="unknown to the model"):  # lenet5 itself has no `twin`
        load_model(RunFolder(tmp_path))
    del net.twin
    save_model(RunFolder(tmp_path), torch.optim.swa_utils.AveragedModel(net), card_of(built, ["a", "b", "c"], 32, {}))
    assert digest(load_model(RunFolder(tmp_path))[0]) == digest(net)


@pytest.mark.parametrize("where", [20, -100])
def test_damage_is_noticed(tmp_path: Path, where: int) -> None:
    saved(tmp_path, "lenet5")
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|does not fit"):
        load_model(RunFolder(tmp_path))
    path.write_bytes(content[:1000])
    with pytest.raises(UserError, match="is damaged"):
        load_model(RunFolder(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match="not there"):
        load_model(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: {**card, "schema": 2}, "newer wellfit"),
        (lambda card: {**card, "classes": ["a", "b"]}, "does not fit"),
        (lambda card: {**card, "architecture": {**card["architecture"], "name": "resnet20"}}, "does not fit"),
        (lambda card: {**card, "architecture": {**card["architecture"], "name": "lenet6"}}, "did you mean 'lenet5'"),
        (lambda card: {"schema": 1}, "architecture or classes are missing"),
        (lambda card: [1], "no model card"),
    ],
)
def test_a_card_that_does_not_fit_is_one_sentence(tmp_path: Path, change, message: str) -> None:
    saved(tmp_path, "lenet5")
    path = tmp_path / "model.json"
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_model(RunFolder(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_or_torn_card(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trained model"):
        load_model(RunFolder(tmp_path))
    (tmp_path / "model.json").write_text('{"schema": 1, "archi', encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        load_model(RunFolder(tmp_path))


def test_values_that_json_cannot_hold_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    built = build("lenet5", 3, image_size=32)
    for value in (object(), float("nan")):
        with pytest.raises(UserError, match="plain JSON"):
            save_model(RunFolder(tmp_path), built.module, card_of(built, ["a", "b", "c"], 32, {"mean": value}))
    assert list(tmp_path.iterdir()) == []
