from __future__ import annotations

import hashlib
import io
import urllib.request
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from wellfit.errors import UserError
from wellfit.models import pretrained, published
from wellfit.models.zoo import build, weights_at_hand


@pytest.fixture
def torch_cache(no_network: Path) -> Path:
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def put_in_hub_cache(root: Path, repository: str, state: dict[str, torch.Tensor]) -> Path:
    folder = root / "hf" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc", encoding="utf-8")
    safetensors.torch.save_file(state, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "timm:test_resnet"])
@pytest.mark.parametrize("word", ["imagenet", "pretrained", "default"])
def test_without_weights_and_network_the_error_names_file_and_way_out(no_network: Path, name: str, word: str) -> None:
    assert weights_at_hand(name) is None
    with pytest.raises(UserError, match=r"no route to host.*put that file into .*--weights FILE") as caught:
        build(name, 2, image_size=64, weights=word)
    assert "\n" not in str(caught.value)


def test_nets_without_published_weights_say_so(no_network: Path) -> None:
    assert weights_at_hand("lenet5") is None
    with pytest.raises(UserError, match="no published weights for 'lenet5'"):
        build("lenet5", 2, image_size=64, weights="imagenet")


def test_torchvisions_file_loads_into_our_resnet(torch_cache: Path) -> None:
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), torch_cache / "resnet18-f37072fd.pth")
    assert weights_at_hand("resnet18") == torch_cache / "resnet18-f37072fd.pth"
    built = build("resnet18", 1000, image_size=32, weights="imagenet")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(built.module.eval()(x), theirs(x))
    assert built.options["small_stem"] is False
    assert built.mean == [0.485, 0.456, 0.406]
    assert built.std == [0.229, 0.224, 0.225]
    assert (built.image_size, built.interpolation, built.crop_pct) == (224, "bilinear", 224 / 256)
    assert built.source == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert built.licence is not None


def test_an_older_cached_file_is_used_with_its_own_preprocessing(torch_cache: Path) -> None:
    torch.save(torchvision.models.mobilenet_v2().state_dict(), torch_cache / "mobilenet_v2-b0353104.pth")
    built = build("mobilenet_v2", 3, image_size=32, weights="imagenet")
    assert built.crop_pct == 224 / 256  # the newer weights were made for 232
    assert any("IMAGENET1K_V1 is used" in note for note in built.notes)


def test_densenets_older_key_names_are_understood(torch_cache: Path) -> None:
    theirs = torchvision.models.densenet121().state_dict()
    old = {
        k.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): v
        for k, v in theirs.items()
    }
    assert old.keys() != theirs.keys()
    torch.save(old, torch_cache / "densenet121-a639ec97.pth")
    module = build("densenet121", 1000, image_size=32, weights="imagenet").module
    assert all(torch.equal(v, theirs[k]) for k, v in module.state_dict().items())


def test_auxiliary_heads_in_the_file_are_left_out(torch_cache: Path) -> None:
    theirs = torchvision.models.googlenet(aux_logits=True, init_weights=False).state_dict()
    torch.save(theirs, torch_cache / "googlenet-1378be20.pth")
    built = build("googlenet", 4, image_size=64, weights="imagenet")
    assert built.module.aux1 is None
    assert built.options["transform_input"] is True
    assert torch.equal(built.module.conv1.conv.weight, theirs["conv1.conv.weight"])


def test_a_vision_transformers_positions_are_resized_to_the_images() -> None:
    sizes = {"patch_size": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16}
    theirs = torchvision.models.VisionTransformer(image_size=224, **sizes).state_dict()
    net = torchvision.models.VisionTransformer(image_size=96, **sizes)
    resized = pretrained._positions_resized(net, theirs, 96)
    assert resized["encoder.pos_embedding"].shape == (1, 1 + 3 * 3, 16)
    assert torch.equal(resized["encoder.pos_embedding"][:, 0], theirs["encoder.pos_embedding"][:, 0])
    assert pretrained._positions_resized(net, net.state_dict(), 96).keys() == net.state_dict().keys()


def test_timms_cached_weights_load_with_their_own_preprocessing(no_network: Path) -> None:
    import timm

    theirs = timm.create_model("test_resnet")
    path = put_in_hub_cache(no_network, "timm/test_resnet.r160_in1k", theirs.state_dict())
    assert weights_at_hand("test_resnet") == path
    built = build("test_resnet", 6, image_size=64, weights="imagenet")
    assert torch.equal(built.module.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    assert built.module.fc.out_features == 6
    assert built.mean == [0.5, 0.5, 0.5]
    assert (built.image_size, built.interpolation, built.crop_pct) == (160, "bilinear", 0.95)
    assert built.licence == "apache-2.0"
    assert built.source == "https://huggingface.co/timm/test_resnet.r160_in1k"


def test_timms_transformer_positions_are_resized(no_network: Path) -> None:
    import timm

    theirs = timm.create_model("test_vit")
    put_in_hub_cache(no_network, "timm/test_vit.r160_in1k", theirs.state_dict())
    built = build("test_vit", 6, image_size=64, weights="imagenet")
    assert torch.equal(built.module.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)
    assert built.module.pos_embed.shape[1] < theirs.pos_embed.shape[1]
    copy = no_network / "copy.pth"
    torch.save(theirs.state_dict(), copy)
    again = build("test_vit", 6, image_size=64, weights=copy)
    assert torch.equal(again.module.pos_embed, built.module.pos_embed)
    assert again.licence is None
    torch.save({"conv1.weight": torch.zeros(2, 2)}, copy)
    with pytest.raises(UserError, match="choose the model that wrote it"):
        build("test_vit", 6, image_size=64, weights=copy)


def test_a_cached_file_of_another_net_is_refused(no_network: Path) -> None:
    put_in_hub_cache(no_network, "timm/test_resnet.r160_in1k", {"conv1.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="does not fit"):
        build("test_resnet", 6, image_size=64, weights="imagenet")


def test_a_download_is_checked_against_the_digits_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights" * 1000
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(content))
    digits = hashlib.sha256(content).hexdigest()[:8]
    path = published.fetch_url(f"https://example.org/net-{digits}.pth")
    assert path.read_bytes() == content
    with pytest.raises(OSError, match="damaged"):
        published.fetch_url("https://example.org/net-00000000.pth")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_weights_by_address(no_network: Path) -> None:
    with pytest.raises(UserError, match=r"could not be fetched from https://example\.org/w\.pth"):
        build("resnet20", 10, image_size=32, weights="https://example.org/w.pth")


def test_every_torchvision_classifier_has_readable_metadata() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        first = published.torchvision_weights(name)[0]
        assert len(first.mean) == len(first.std) == 3
        assert 0.5 < first.crop_pct <= 1
        assert first.image_size >= 224


def test_real_squeezenet_from_the_cache(real_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(real_weights))
    path = weights_at_hand("squeezenet1_1")
    assert path == real_weights / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    built = build("squeezenet1_1", 2, image_size=128, weights="imagenet")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    assert torch.equal(built.module.features[0].weight, stored["features.0.weight"])
    assert built.module.classifier[1].out_channels == 2
    assert built.image_size == 224
