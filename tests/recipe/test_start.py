"""What a run has to wait for before it looks at an image."""

from __future__ import annotations

import subprocess
import sys


def test_the_recipe_does_not_wait_for_libraries_that_only_some_runs_need() -> None:
    heavy = (
        "timm",
        "torchvision",
        "torch._dynamo",
        "optuna",
        "sqlalchemy",
        "matplotlib",
        "sklearn",
        "pandas",
        "plotly",
    )
    code = f"import sys, wellfit.recipe.steps; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert answer.stdout.strip() == "[]"
