"""What was asked of a run, as data: frozen dataclasses that read and write one TOML file.

`wellfit fit` writes the file back in full, with every "auto" resolved, so that
`wellfit train DATA RUN/config.toml` repeats the run.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wellfit.errors import UserError, nearest, unknown_name

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
PREPROCESSINGS = ("standardise", "channel-mean", "mean-image")
BALANCES = ("auto", "none", "weights", "sampler")
TRANSFERS = ("auto", "probe", "earlier", "top", "all", "scratch")


@dataclass(frozen=True)
class DataConfig:
    """Where labels stand and how the splits are carved."""

    image_column: str = "image"
    label_column: str = "label"
    group_column: str | None = None
    test: str | None = None  # a folder or archive that holds the test split
    validation_share: float = 0.15
    test_share: float = 0.15
    split_seed: int = -1  # of the splits alone; -1: the run's seed


@dataclass(frozen=True)
class ModelConfig:
    """`name` is a zoo name, "package.module:Name", or "auto"; `weights` "auto", "none", "imagenet" or a file."""

    name: str = "auto"
    weights: str = "auto"
    image_size: int = 0  # pixels; 0: decided by the plan
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerConfig:
    """`lr` 0 and `weight_decay` -1 mean "found by the search" (by `train`: the defaults of the optimizer)."""

    name: str = "auto"
    lr: float = 0.0
    weight_decay: float = -1.0
    momentum: float = 0.9


@dataclass(frozen=True)
class TrainingConfig:
    """Counts and regularisation. `epochs` and `batch_size` 0 mean: decided by the plan."""

    epochs: float = 0.0
    batch_size: int = 0
    batch_scale: int = 1  # k: the batch × k, with the learning rate × k behind a warm-up (SPEC O10)
    label_smoothing: float = -1.0  # -1: decided by the plan
    l1: float = 0.0
    l2: float = 0.0
    balance: str = "auto"  # "auto", "none", "weights" or "sampler"
    average: float = 0.995  # decay of the averaged weights a step; 0: none
    patience: int = 0  # epochs without gain before stopping; 0: never stop early
    freeze: int = 0  # stages of a pretrained network, from the input on, that stay as they are
    transfer: str = "auto"  # what is made of a pretrained network: decided by what is measured, or one of TRANSFERS


@dataclass(frozen=True)
class EngineConfig:
    """Each "auto" (0 threads) is settled by the probe."""

    device: str = "auto"
    dtype: str = "auto"
    layout: str = "auto"
    threads: int = 0


@dataclass(frozen=True)
class Config:
    """Everything that can be asked of a run."""

    seed: int = 0
    metric: str = "accuracy"
    loss: str = "cross-entropy"
    schedule: str = "auto"
    activation: str = "auto"  # of wellfit's own nets, such as "gelu"; "auto": the net's own
    augment: tuple[str, ...] = ("auto",)
    views: str = "auto"  # at test time: a name of `inference.views.VIEWS`; "auto": kept where validation gains
    ensemble: str = "auto"  # how many networks from seeds of their own, or "none"; "auto": where the time holds several
    preprocessing: str = "standardise"  # or "channel-mean" (VGG), "mean-image" (AlexNet)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, METRICS)
        if self.preprocessing not in PREPROCESSINGS:
            raise unknown_name("preprocessing", self.preprocessing, PREPROCESSINGS)
        if self.training.balance not in BALANCES:
            raise unknown_name("training.balance", self.training.balance, BALANCES)
        if self.training.transfer not in TRANSFERS:
            raise unknown_name("training.transfer", self.training.transfer, TRANSFERS)
        if self.ensemble not in ("auto", "none") and not (self.ensemble.isdecimal() and 1 <= int(self.ensemble) <= 100):
            raise UserError(
                f"ensemble is auto, none, or a number of networks from 1 to 100, got '{self.ensemble}'; correct it"
            )
        shares = self.data.validation_share, self.data.test_share
        if not (0 < shares[0] < 1 and 0 < shares[1] < 1 and sum(shares) < 1):
            raise UserError(
                f"validation_share and test_share lie between 0 and 1 and leave images to train on, got {shares[0]} "
                f"and {shares[1]}; 0.15 each is usual"
            )
        for name, value, low, high in (
            ("seed", self.seed, 0, float("inf")),
            ("data.split_seed", self.data.split_seed, -1, float("inf")),
            ("optimizer.lr", self.optimizer.lr, 0.0, float("inf")),
            ("optimizer.momentum", self.optimizer.momentum, 0.0, 1.0),
            ("training.average", self.training.average, 0.0, 1.0),
            ("training.epochs", self.training.epochs, 0.0, float("inf")),
            ("training.batch_size", self.training.batch_size, 0, float("inf")),
            ("training.batch_scale", self.training.batch_scale, 1, 1024),
            ("training.label_smoothing", self.training.label_smoothing, -1.0, 1.0),
            ("training.patience", self.training.patience, 0, float("inf")),
            ("training.freeze", self.training.freeze, 0, float("inf")),
            ("training.l1", self.training.l1, 0.0, float("inf")),
            ("training.l2", self.training.l2, 0.0, float("inf")),
            ("model.image_size", self.model.image_size, 0, 4096),
            ("engine.threads", self.engine.threads, 0, 4096),
        ):
            if not (low <= value <= high and math.isfinite(value)):
                raise UserError(f"{name} lies between {low:g} and {high:g}, got {value:g}; correct it")

    def replace(self, **changes: Any) -> Config:
        """A copy with dotted keys changed: `config.replace(**{"optimizer.lr": 0.1})`."""
        config = self
        for key, value in changes.items():
            head, _, rest = key.partition(".")
            value = dataclasses.replace(getattr(config, head), **{rest: value}) if rest else value
            config = dataclasses.replace(config, **{head: value})
        return config


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file; UserError when it is missing or broken."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}'; correct the path to the TOML file") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}; give a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is no valid TOML: {error}; correct that line") from error


def write_toml(values: dict[str, Any]) -> str:
    """TOML text of nested dicts; keys whose value is None are left out, as TOML has no null."""
    import tomli_w

    return tomli_w.dumps(_without_none(values))


def load_config(path: str | Path) -> Config:
    """Read a configuration; an unknown key or a wrong type is a UserError that names the nearest key."""
    return config_from_dict(read_toml(path), where=str(path))


def config_from_dict(values: dict[str, Any], where: str = "configuration") -> Config:
    """Build a Config from nested dicts."""
    return build(Config, values, where)


def config_to_toml(config: Config) -> str:
    return write_toml(dataclasses.asdict(config))


def build(kind: type, values: dict[str, Any], where: str, prefix: str = "") -> Any:
    """A frozen dataclass from nested dicts; unknown keys and wrong types are UserErrors that say where."""
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise UserError(
                f"{where}: unknown key '{prefix}{key}'{nearest(key, hints)}; known here: {', '.join(sorted(hints))}"
            )
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise UserError(f"{where}: '{prefix}{key}' is a table, got {value!r}; write it as [{prefix}{key}]")
            arguments[key] = build(typing.cast(type, hint), value, where, f"{prefix}{key}.")
        else:
            arguments[key] = _convert(value, hint, where, prefix + key)
    return kind(**arguments)


def _convert(value: Any, hint: Any, where: str, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, str):  # one name stands for a list of one
            value = [value]
        item = typing.get_args(hint)[0]
        if isinstance(value, list | tuple) and all(type(v) is item for v in value):
            return tuple(value)
        example = '["a", "b"]' if item is str else "[1, 2]"
        raise UserError(f"{where}: '{key}' is a list such as {example}, got {value!r}; correct it")
    kinds = typing.get_args(hint) if origin is types.UnionType else (origin or hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and bool not in kinds:
        kinds = ()
    if not isinstance(value, tuple(kinds)):
        names = " or ".join(k.__name__ for k in typing.get_args(hint) or (hint,) if hasattr(k, "__name__"))
        raise UserError(f"{where}: '{key}' is of type {names}, got {value!r}; correct it")
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
