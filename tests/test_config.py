from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellfit.config import Config, config_from_dict, config_to_toml, load_config
from wellfit.errors import UserError

# One value other than the default for every key there is.
CHANGED = {
    "seed": 7,
    "metric": "macro_f1",
    "loss": "hinge",
    "schedule": "cosine",
    "activation": "gelu",
    "augment": ("flip", "crop"),
    "views": "ten",
    "ensemble": "3",
    "preprocessing": "channel-mean",
    "data.image_column": "file",
    "data.label_column": "species",
    "data.group_column": "nest",
    "data.test": "held out",
    "data.validation_share": 0.2,
    "data.test_share": 0.25,
    "data.split_seed": 7,
    "model.name": "resnet18",
    "model.weights": "none",
    "model.image_size": 64,
    "model.options": {"widths": [16, 32], "small_stem": True},
    "optimizer.name": "sgd",
    "optimizer.lr": 0.05,
    "optimizer.weight_decay": 0.0,
    "optimizer.momentum": 0.95,
    "training.epochs": 2.5,
    "training.batch_scale": 4,
    "training.batch_size": 16,
    "training.label_smoothing": 0.1,
    "training.l1": 1e-5,
    "training.l2": 1e-4,
    "training.balance": "sampler",
    "training.average": 0.99,
    "training.patience": 3,
    "training.freeze": 2,
    "training.transfer": "all",
    "engine.device": "cpu",
    "engine.dtype": "float32",
    "engine.layout": "contiguous",
    "engine.threads": 2,
}


def leaves(config: Config) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{f.name}": getattr(value, f.name) for f in dataclasses.fields(value)}
        else:
            found[field.name] = value
    return found


def written(config: Config, folder: Path) -> Config:
    path = folder / "config.toml"
    path.write_text(config_to_toml(config), encoding="utf-8")
    return load_config(path)


def test_every_key_is_covered_here() -> None:
    defaults = leaves(Config())
    assert CHANGED.keys() == defaults.keys()
    assert all(CHANGED[key] != value for key, value in defaults.items())


def test_the_defaults_come_back(tmp_path: Path) -> None:
    assert written(Config(), tmp_path) == Config()


@pytest.mark.parametrize("key", CHANGED)
def test_each_changed_key_comes_back(key: str, tmp_path: Path) -> None:
    config = Config().replace(**{key: CHANGED[key]})
    assert leaves(config) == {**leaves(Config()), key: CHANGED[key]}
    assert written(config, tmp_path) == config


@given(
    seed=st.integers(0, 2**31),
    lr=st.floats(1e-12, 1e3),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)
def test_any_number_and_text_come_back(seed: int, lr: float, name: str) -> None:
    config = Config().replace(seed=seed, **{"optimizer.lr": lr, "data.test": name})
    assert config_from_dict(tomllib.loads(config_to_toml(config))) == config


def test_replace_leaves_the_original_alone() -> None:
    config = Config()
    config.replace(**{"optimizer.lr": 0.1})
    assert config == Config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sede = 1", r"unknown key 'sede' \(did you mean 'seed'\?\)"),
        ("[optimiser]\nlr = 1.0", r"unknown key 'optimiser' \(did you mean 'optimizer'\?\)"),
        ("[optimizer]\nlearning_rate = 1.0", r"unknown key 'optimizer.learning_rate'.*known here: lr, momentum, name"),
        ("[training]\nepoch = 3", r"unknown key 'training.epoch' \(did you mean 'epochs'\?\)"),
        ('seed = "one"', "'seed' is of type int, got 'one'"),
        ("seed = true", "'seed' is of type int, got True"),
        ("seed = 1.5", "'seed' is of type int, got 1.5"),
        ("optimizer = 3", r"'optimizer' is a table, got 3; write it as \[optimizer\]"),
        ('[optimizer]\nlr = "high"', "'optimizer.lr' is of type float, got 'high'"),
        ("augment = 3", r"'augment' is a list such as"),
        ("[data]\ngroup_column = 4", "'data.group_column' is of type str or NoneType, got 4"),
        ("seed = ", "is no valid TOML"),
        ('metric = "acuracy"', r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"),
        ("[data]\ntest_share = 0.9\nvalidation_share = 0.2", "leave images to train on, got 0.2 and 0.9"),
        ("[optimizer]\nlr = -0.1", "optimizer.lr lies between 0 and inf, got -0.1"),
        ("[optimizer]\nlr = inf", "optimizer.lr lies between 0 and inf, got inf"),
        ("[optimizer]\nlr = nan", "optimizer.lr lies between 0 and inf, got nan"),
        ("[optimizer]\nmomentum = 1.5", "optimizer.momentum lies between 0 and 1, got 1.5"),
        ("[model]\nimage_size = 100000", "model.image_size lies between 0 and 4096, got 100000"),
        ("[training]\nbatch_size = -4", "training.batch_size lies between 0 and inf, got -4"),
        ('[training]\nbalance = "wieghts"', r"unknown training.balance 'wieghts' \(did you mean 'weights'\?\)"),
        ("[training]\nlabel_smoothing = 1.5", "training.label_smoothing"),
        ("[training]\npatience = -1", "training.patience"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_whole_number_serves_where_a_real_one_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[optimizer]\nlr = 1\n[training]\nepochs = 3")
    config = load_config(path)
    assert (config.optimizer.lr, config.training.epochs) == (1.0, 3.0)
    assert isinstance(config.training.epochs, float)


def test_one_name_serves_where_a_list_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('augment = "flip"')
    assert load_config(path).augment == ("flip",)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path)


def test_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(UserError, match="is no valid TOML"):
        load_config(path)
