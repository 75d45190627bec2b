"""Every command once with what it is for: what it prints, its exit code, and its keys with --json."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Command, photos, png
from tests.recipe.plans import small_plan, write_plan
from wellfit.errors import Interrupted
from wellfit.findings import Finding, GateFailed, explanations
from wellfit.recipe import api, gates

FIT_KEYS = {
    "schema",
    "run",
    "model",
    "validation_accuracy",
    "test_accuracy",
    "test_images",
    "seconds",
    "plan",
    "findings",
}
FINDING_KEYS = {"id", "severity", "message", "evidence", "action", "reference"}
NET = """
import torch
from torch import nn

class Deaf(nn.Module):
    '''Its scores do not depend on the image.'''

    def __init__(self, num_classes):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        return self.scores + 0 * x.sum((1, 2, 3))[:, None]
"""


@pytest.fixture
def deaf_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "deaf_nets.py").write_text(NET)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "deaf_nets", raising=False)
    return "deaf_nets:Deaf"


def test_fit_prints_one_object_with_these_keys(wellfit: Command, tmp_path: Path) -> None:
    ended = wellfit("fit", "digits", "--plan", write_plan(tmp_path / "p.toml"), "--out", "runs/a", "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    result = ended.json
    assert result.keys() == FIT_KEYS
    assert result["run"] == str(Path("runs/a"))
    assert result["model"] == "whitened"
    assert 0.1 < result["test_accuracy"] <= 1
    assert 0.1 < result["validation_accuracy"] <= 1
    assert result["test_images"] == 269
    assert [step["name"] for step in result["plan"]] == [
        *("audit", "split", "plan", "checks", "search", "train", "averages", "snapshots", "ensemble", "views"),
        *("save", "evaluate", "neighbours", "probe", "policy", "fine-tune", "report"),
    ]
    assert all(step.keys() == {"name", "status", "seconds", "reason", "gain"} for step in result["plan"])
    assert all(finding.keys() == FINDING_KEYS for finding in result["findings"])
    made = {p.name for p in (tmp_path / "runs" / "a").iterdir()}
    assert {"config.toml", "plan.toml", "record.jsonl", "model.safetensors", "model.json", "report.html"} <= made


def test_fit_without_json_says_where_the_report_is(wellfit: Command, tmp_path: Path) -> None:
    ended = wellfit("fit", "digits", "--plan", write_plan(tmp_path / "p.toml"), "--out", "runs/a")
    assert ended.code == 0
    assert str(Path("runs/a/report.html")) in ended.out
    assert "269 test images" in ended.out.replace("\n", " ")
    assert "✓ train" in ended.err


def test_fit_does_not_write_into_a_run(wellfit: Command, finished_run: Path) -> None:
    ended = wellfit("fit", "digits", "--out", finished_run)
    assert ended.code == 2
    assert f"holds a run already; go on with `wellfit resume {finished_run}`" in ended.sentence


def test_a_dry_run_prints_the_plan_and_leaves_nothing(wellfit: Command, tmp_path: Path) -> None:
    fixed = ("--dtype", "float32", "--threads", "1", "--model", "lenet5", "--image-size", "28", "--budget", "60s")
    ended = wellfit("fit", "digits", "--dry-run", *fixed)
    assert ended.code == 0
    assert "model      lenet5 at 28 px" in ended.out
    assert "nothing was trained" in ended.out
    ended = wellfit("fit", "digits", "--dry-run", *fixed, "--json")
    plan = ended.json["plan"]
    assert plan["model"]["name"] == "lenet5"
    assert plan["engine"]["dtype"] == "float32"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_plan_prints_that_plan(wellfit: Command, finished_run: Path) -> None:
    ended = wellfit("fit", "digits", "--dry-run", "--plan", finished_run / "plan.toml")
    assert "training   60 steps of 32 images" in ended.out
    assert "as long as these steps take; nothing was trained" in ended.out


def test_a_finished_run_is_not_resumed(wellfit: Command, finished_run: Path) -> None:
    ended = wellfit("resume", finished_run)
    assert ended.code == 2
    assert "is finished" in ended.sentence


def test_a_run_of_data_that_are_gone_cannot_be_resumed_and_says_so(wellfit: Command, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    (tmp_path / "photos").rename(tmp_path / "moved")
    (tmp_path / "run").mkdir()
    request = {"data": str(tmp_path / "photos"), "budget": None, "force": False}
    line = {"kind": "run", "schema": 1, "started": 0.0, "spent_before": 0.0, "request": request}
    (tmp_path / "run" / "record.jsonl").write_text(json.dumps(line) + "\n")
    ended = wellfit("resume", "run")
    assert ended.code == 2
    assert "does not exist" in ended.sentence


def test_audit_prints_these_keys(wellfit: Command, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 5)
    (tmp_path / "photos" / "above" / "empty.png").write_bytes(b"")
    result = wellfit("audit", "photos", "--json").json
    assert result.keys() == {"schema", "images", "classes", "left_out", "findings"}
    assert result["left_out"][0].keys() == {"file", "reason"}
    assert all(finding.keys() == FINDING_KEYS for finding in result["findings"])
    ended = wellfit("audit", "photos")
    assert ended.code == 0
    assert "10 usable images in 2 classes" in ended.out
    assert "left out: above/empty.png" in ended.out


def test_check_passes_a_sound_network(wellfit: Command) -> None:
    fixed = ("--dtype", "float32", "--threads", "1", "--model", "lenet5", "--image-size", "28")
    ended = wellfit("check", "digits", *fixed, "--json")
    result = ended.json
    assert result.keys() >= {"schema", "passed", "findings"}
    assert result["passed"] is (ended.code == 0)
    assert {"input-ignored", "initial-loss"} <= {check["check"] for check in result["checks"] if check["passed"]}


def test_the_checks_alone_have_the_whole_time(wellfit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a run's share of it, a slow machine would end `check` before the last gate had judged."""
    seconds: list[float] = []

    def no_gates(*arguments: object, deadline: float, **named: object) -> list[object]:
        seconds.append(deadline - time.monotonic())
        return []

    monkeypatch.setattr(gates, "run_gates", no_gates)
    fixed = ("--dtype", "float32", "--threads", "1", "--model", "lenet5", "--image-size", "28")
    assert wellfit("check", "digits", "--budget", "10m", *fixed).code == 0
    assert seconds[0] > 400


def test_check_fails_a_network_that_ignores_its_input(wellfit: Command, deaf_net: str) -> None:
    ended = wellfit("check", "digits", "--model", deaf_net, "--dtype", "float32", "--threads", "1", "--json")
    assert ended.code == 1
    result = ended.json
    assert result["passed"] is False
    assert "input-ignored" in [finding["id"] for finding in result["findings"]]


def deaf_plan(path: Path, net: str) -> Path:
    from dataclasses import replace

    plan = small_plan()
    model = replace(plan.model, name=net, options={})
    return write_plan(path, model=model, optimizer=replace(plan.optimizer, lr=1e-3), augment=())


def test_a_failed_gate_stops_the_run_with_its_finding_and_force_goes_on(
    wellfit: Command, deaf_net: str, tmp_path: Path
) -> None:
    plan = deaf_plan(tmp_path / "p.toml", deaf_net)
    ended = wellfit("fit", "digits", "--plan", plan, "--out", "a", "--json")
    assert ended.code == 1
    assert ended.json["error"]["kind"] == "gate"
    assert ended.json["error"]["findings"][0]["id"] == "input-ignored"
    assert "input-ignored" in ended.err
    assert not (tmp_path / "a" / "model.safetensors").exists()
    assert (tmp_path / "a" / "report.html").exists()
    ended = wellfit("fit", "digits", "--plan", plan, "--out", "b", "--force", "--json")
    assert ended.code == 0
    assert (tmp_path / "b" / "model.safetensors").exists()
    assert "input-ignored" in [finding["id"] for finding in ended.json["findings"]]


def test_train_repeats_a_runs_training_from_its_config(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    ended = wellfit("train", "digits", finished_run / "config.toml", "--out", "again", "--budget", "60s", "--json")
    assert ended.code == 0
    assert ended.json.keys() == FIT_KEYS
    skipped = {step["name"]: step["status"] for step in ended.json["plan"]}
    assert skipped["search"] == "skipped"


def test_predict_writes_one_line_a_file_and_goes_on_past_a_bad_one(
    wellfit: Command, finished_run: Path, tmp_path: Path
) -> None:
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    files = ("0.png", "bad.jpg", "missing.png", "1.png")
    ended = wellfit("predict", finished_run, *files)
    assert ended.code == 0
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["file"] for line in lines] == list(files)
    for i in (0, 3):
        assert lines[i].keys() == {"file", "label", "probabilities"}
        assert lines[i]["label"] == max(lines[i]["probabilities"], key=lines[i]["probabilities"].get)
        assert sum(lines[i]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert set(lines[i]["probabilities"]) == set("0123456789")
    assert lines[1].keys() == lines[2].keys() == {"file", "error"}
    assert wellfit("predict", finished_run, *files, "--json").out == ended.out


def test_predict_in_csv_says_the_same(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    line = json.loads(wellfit("predict", finished_run, "0.png").out)
    rows = list(csv.DictReader(io.StringIO(wellfit("predict", finished_run, "0.png", "bad.jpg", "--csv").out)))
    assert [row["file"] for row in rows] == ["0.png", "bad.jpg"]
    assert rows[0]["label"] == line["label"]
    assert {name: float(rows[0][name]) for name in line["probabilities"]} == line["probabilities"]
    assert rows[1]["label"] == ""
    assert rows[1]["error"]


def test_predict_takes_a_folder(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 2)
    names = [json.loads(line)["file"] for line in wellfit("predict", finished_run, "photos").out.splitlines()]
    assert names == [str(Path("photos", c, f"{i:02d}.png")) for c in ("above", "below") for i in range(2)]
    (tmp_path / "empty").mkdir()
    assert "holds no files to predict" in wellfit("predict", finished_run, "empty").sentence


def test_predict_fails_where_not_one_file_could_be_judged(wellfit: Command, finished_run: Path) -> None:
    assert wellfit("predict", finished_run, "missing.png").code == 2


def test_predict_can_abstain(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(0))  # no digit at all
    line = json.loads(wellfit("predict", finished_run, "0.png", "--abstain", "0.01").out)
    threshold = json.loads((finished_run / "model.json").read_text())["abstention_thresholds"]["0.01"]
    surest = max(line["probabilities"].values())
    assert line["abstained"] is (threshold is None or surest < threshold)
    assert (line["label"] is None) is line["abstained"]
    ended = wellfit("predict", finished_run, "0.png", "--abstain", "0.03")
    assert ended.code == 2
    assert "(0.01, 0.02, 0.05, 0.1, 0.2), got 0.03" in ended.sentence


def test_evaluate_judges_labelled_images(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 3, ("3", "8"))
    (tmp_path / "photos" / "3" / "bad.png").write_bytes(b"")
    result = wellfit("evaluate", finished_run, "photos", "--json").json
    keys = {"images", "accuracy", "interval", "balanced_accuracy", "macro_f1", "loss", "per_class", "left_out", "run"}
    assert keys <= result.keys()
    assert result["images"] == 6
    assert [item["file"] for item in result["left_out"]] == ["3/bad.png"]
    ended = wellfit("evaluate", finished_run, "photos")
    assert ended.code == 0
    assert "on 6 images" in ended.out


def test_evaluate_refuses_a_class_the_model_does_not_know(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 3, ("3", "cat"))
    assert "has 'cat'" in wellfit("evaluate", finished_run, "photos").sentence


def test_report_and_show(wellfit: Command, finished_run: Path) -> None:
    ended = wellfit("report", finished_run)
    assert ended.code == 0
    assert Path(ended.out.strip()) == finished_run / "report.html"
    assert wellfit("report", finished_run, "--json").json["report"] == str(finished_run / "report.html")
    ended = wellfit("show", finished_run)
    assert ended.code == 0
    assert "269 test images" in ended.out.replace("\n", " ")
    assert wellfit("show", finished_run, "--json").json.keys() == FIT_KEYS


@pytest.mark.parametrize("finding", explanations())
def test_every_finding_is_explained(finding: str, wellfit: Command) -> None:
    ended = wellfit("explain", finding)
    assert ended.code == 0
    assert ended.out.startswith(f"{finding}: ")
    assert wellfit("explain", finding, "--json").json.keys() >= {"id", "title", "text", "action", "reference"}


def test_an_unknown_finding_names_the_nearest(wellfit: Command) -> None:
    ended = wellfit("explain", "lr-to-high", "--json")
    assert ended.code == 2
    assert "did you mean 'lr-too-high'?" in ended.json["error"]["message"]


def test_help_and_version(wellfit: Command) -> None:
    for command in ("fit", "resume", "train", "check", "audit", "evaluate", "predict", "report", "show", "explain"):
        ended = wellfit(command, "--help")
        assert ended.code == 0
        assert f"Usage: wellfit {command}" in ended.out
    assert wellfit("--help").out.startswith("Usage: wellfit [OPTIONS] COMMAND")
    assert wellfit("--version").out.startswith("wellfit 0.")
    assert wellfit().code == 0


@pytest.mark.parametrize(
    ("raised", "code", "kind", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted", "stopped by Ctrl-C"),
        (Interrupted("stopped as asked, evaluated and saved in runs/a"), 130, "interrupted", "saved in runs/a"),
        (OSError(28, "No space left on device"), 2, "user", "No space left on device"),
        (PermissionError(13, "Permission denied", "/locked/file"), 2, "user", "'/locked/file': Permission denied"),
        (
            GateFailed([Finding("lr-too-high", "error", "at lr 1 the loss became no number")]),
            1,
            "gate",
            "a check failed, so the run stopped; --force goes on all the same",
        ),
    ],
)
def test_how_a_command_ends_gives_its_exit_code(
    raised: BaseException, code: int, kind: str, said: str, wellfit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **named: object) -> None:
        raise raised

    monkeypatch.setattr(api, "audit", stop)
    ended = wellfit("audit", "digits", "--json")
    assert ended.code == code
    assert ended.json["error"]["kind"] == kind
    assert said in ended.json["error"]["message"]
    assert f"wellfit: {ended.json['error']['message']}" in ended.err


def test_a_defect_of_ours_says_so_and_keeps_the_traceback_in_a_file(
    wellfit: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("two plus two is five")

    monkeypatch.setattr(api, "audit", broken)
    with pytest.raises(AssertionError, match="two plus two is five"):  # the fixture's own guard finds the file
        wellfit("audit", "digits", "--json")
    details = (tmp_path / "wellfit-defect.txt").read_text()
    assert "RuntimeError: two plus two is five" in details
