"""`wellfit models` as a person and as a program see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command

LAYER_KEYS = {
    *("name", "type", "output_shape", "weights", "biases", "parameters", "activations", "flops", "receptive_field"),
}


def test_the_list_as_json(wellfit: Command) -> None:
    result = wellfit("models", "--sort", "flops", "--json").json
    flops = [model["flops"] for model in result["models"]]
    assert flops == sorted(flops)
    vgg16 = next(model for model in result["models"] if model["name"] == "vgg16")
    assert (vgg16["parameters"], vgg16["input_size"], vgg16["accuracy"]) == (138357544, 224, 0.71592)
    assert vgg16["licence"].startswith("BSD-3")
    assert result["not_computed"] == []


def test_the_list_in_words(wellfit: Command) -> None:
    ended = wellfit("models")
    assert ended.code == 0
    (line,) = (line for line in ended.out.splitlines() if line.split()[:1] == ["vgg16"])
    for cell in ("224 px", "138 M", "30.9 G", "61 MB", "71.6%", "ImageNet-1K", "BSD-3-Clause"):
        assert cell in line
    assert "timm" in ended.out.splitlines()[-1]


def test_a_layer_table_as_json(wellfit: Command) -> None:
    result = wellfit("models", "vgg16", "--input", "224", "--json").json
    assert (result["parameters"], result["activations"]) == (138357544, 15237608)
    assert result["flops"] == sum(layer["flops"] for layer in result["layers"])
    assert all(layer.keys() == LAYER_KEYS for layer in result["layers"])
    assert result["layers"][1]["output_shape"] == [64, 224, 224]


def test_a_layer_table_in_words(wellfit: Command) -> None:
    out = wellfit("models", "vgg16", "--input", "224").out
    for text in ("features.30", "212 px", "102,760,448", "15,237,608", "138,357,544", "72%", "89%", "not shown: 18"):
        assert text in out


def test_alexnet_says_what_is_no_longer_advised(wellfit: Command) -> None:
    out = wellfit("models", "alexnet2012").out
    assert "still advised" in out
    assert "local response normalisation" in out
    choices = wellfit("models", "alexnet2012", "--json").json["historical_choices"]
    assert {True, False} == {choice["advised"] for choice in choices}


def test_classes_and_input_change_the_net(wellfit: Command) -> None:
    result = wellfit("models", "resnet18", "--input", "32", "--classes", "10", "--json").json
    assert result["layers"][-1]["output_shape"] == [10]
    assert result["layers"][1]["output_shape"] == [64, 32, 32]


def test_winners_by_year(wellfit: Command) -> None:
    assert "3.57%" in wellfit("models", "--history").out
    assert wellfit("models", "--history", "--json").json["winners"][2]["name"] == "AlexNet"


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_chart(wellfit: Command, tmp_path: Path, ending: str) -> None:
    ended = wellfit("models", "--filter", "vgg1?_bn", "--chart", f"nets.{ending}")
    assert ended.code == 0
    assert "4 nets" in ended.out
    content = (tmp_path / f"nets.{ending}").read_bytes()
    assert content.startswith(b"<svg" if ending == "svg" else b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vgg15"], "did you mean 'vgg1"),
        (["vgg16", "--input", "16"], "16×16"),
        (["--sort", "parameter"], "did you mean 'parameters'"),
        (["--filter", "resnte"], "did you mean 'resnet"),
        (["vgg16", "--sort", "flops"], "--sort"),
        (["--input", "32"], "add its name"),
        (["--history", "--filter", "vgg"], "--filter"),
        (["--chart", "nets.pdf"], "nets.pdf"),
        (["--chart", "none/nets.svg"], "no folder 'none'"),
        (["--filter", "plain", "--chart", "nets.svg"], "no"),
    ],
)
def test_mistakes_are_one_sentence(wellfit: Command, arguments: list[str], said: str) -> None:
    ended = wellfit("models", *arguments, "--json")
    assert ended.code == 2
    assert said in ended.sentence
    assert json.loads(ended.out.splitlines()[-1])["error"]["kind"] == "user"


def test_published_weights_as_json_and_in_words(wellfit: Command) -> None:
    result = wellfit("models", "squeezenet1_1", "--pretrained", "--json").json
    (entry,) = result["pretrained"]
    assert (entry["classes"], entry["input_size"], entry["parameters"]) == (1000, 224, 1235496)
    assert entry["source"].endswith("squeezenet1_1-b8a52dc0.pth")
    assert entry["file"] is None
    out = wellfit("models", "resnet20", "--pretrained").out
    (line,) = (line for line in out.splitlines() if line.split()[:1] == ["resnet20"])
    for cell in ("cifar10", "10", "32 px", "270 k", "BSD-2-Clause", "github.com"):
        assert cell in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["squeezenet1_1", "--pretrained", "--sort", "flops"], "--sort"),
        (["squeezenet1_1", "--pretrained", "--input", "64"], "--input"),
        (["vgg", "--pretrained", "--filter", "resnet"], "one pattern"),
        (["squeezenetti", "--pretrained"], "did you mean 'squeezenet"),
    ],
)
def test_mistakes_with_weights_are_one_sentence(wellfit: Command, arguments: list[str], said: str) -> None:
    ended = wellfit("models", *arguments, "--json")
    assert ended.code == 2
    assert said in ended.sentence
