"""A run in other people's tools: thin adapters on its record, for `--log tensorboard`, `--log wandb`, `--log mlflow`.

feed         hands the record's lines to an adapter, in a thread of its own; whatever breaks there ends no training
figures      which numbers of a line are logged, and what they are called
tensorboard, wandb, mlflow    one adapter each; each imports its library when a run begins
"""

from wellfit.trackers.feed import TRACKERS, Feeds, check_trackers, feeds

__all__ = ["TRACKERS", "Feeds", "check_trackers", "feeds"]
