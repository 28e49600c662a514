"""Vision models of `transformers` as backbones: aligned, the same at every call, frozen. Small ones, random weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from como_core.config import with_options
from como_core.errors import ComoError
from como_core.motion import backbone as backbones
from como_core.motion import feature_cache
from como_core.motion.backbone import BackboneError, PretrainedBackbone
from como_core.motion.config import MotionConfig, load_preset
from como_core.motion.losses import motion_loss
from como_core.motion.measure.probe_store import backbone_identity
from como_core.motion.model import MotionModel, load_motion, to_pixels
from como_core.policy.text import TextConfig, make_text
from como_core.training.checkpoint import save_checkpoint

SIZE, PATCH, WIDTH = 32, 8, 24
COMMON = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
          "patch_size": PATCH, "image_size": SIZE}


def make(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    if family == "mae":
        decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
        return transformers.ViTMAEModel(transformers.ViTMAEConfig(**COMMON, **decoder, mask_ratio=0.75))
    if family == "vit":  # saved without its pooler, as vision checkpoints often are
        return transformers.ViTModel(transformers.ViTConfig(**COMMON), add_pooling_layer=False)
    if family == "dinov2":
        return transformers.Dinov2Model(transformers.Dinov2Config(**COMMON, mlp_ratio=2))
    if family == "dinov3":
        return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**COMMON, num_register_tokens=3))
    if family == "siglip":
        return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**COMMON))
    return transformers.VJEPA2Model(transformers.VJEPA2Config(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, patch_size=PATCH, crop_size=SIZE,
        frames_per_clip=4, tubelet_size=2, pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1))


FAMILIES = ("mae", "vit", "dinov2", "dinov3", "siglip", "vjepa2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("backbones")
    for family in FAMILIES:
        make(family).save_pretrained(root / family)
    return {family: str(root / family) for family in FAMILIES}


def pictures(count: int, seed: int = 0, size: int = SIZE) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return to_pixels(torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_a_grid_in_the_order_of_the_picture(folders: dict[str, str], family: str) -> None:
    backbone = PretrainedBackbone(folders[family], SIZE)
    plain = pictures(1)
    changed = plain.clone()
    changed[:, :, PATCH:2 * PATCH, 2 * PATCH:3 * PATCH] *= -1
    first, second = backbone(plain), backbone(changed)
    assert first.shape == (1, WIDTH, SIZE // PATCH, SIZE // PATCH)
    change = (second - first).norm(dim=1)[0]
    assert divmod(int(change.argmax()), SIZE // PATCH) == (1, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_agree_to_the_bit_and_frames_alone_as_in_company(folders: dict[str, str], family: str) -> None:
    backbone = PretrainedBackbone(folders[family], SIZE).train()  # training must not wake dropout or masking
    batch = pictures(3)
    first = backbone(batch)
    torch.rand(5)
    assert torch.equal(first, backbone(batch))
    assert torch.allclose(backbone(batch[1:2]), first[1:2], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_picture_sizes_have_other_grids(folders: dict[str, str], family: str) -> None:
    backbone = PretrainedBackbone(folders[family], 2 * SIZE)
    assert backbone(pictures(1, size=2 * SIZE)).shape[2:] == (8, 8)
    with pytest.raises(BackboneError, match="do not divide into its patches of 8"):
        PretrainedBackbone(folders[family], SIZE + 3)


def test_a_deeper_layer_can_be_chosen(folders: dict[str, str]) -> None:
    last, earlier = (PretrainedBackbone(folders["dinov2"], SIZE, layer) for layer in (-1, 1))
    assert earlier(pictures(1)).shape == last(pictures(1)).shape
    assert not torch.allclose(earlier(pictures(1)), last(pictures(1)), atol=1e-3)


def settings(folder: str, **options: object) -> MotionConfig:
    small = {"image_size": SIZE, "latent_size": 16, "backbone.kind": "pretrained", "backbone.model": folder,
             "inverse.kind": "qformer", "inverse.width": 16, "inverse.hidden": 32, "inverse.queries": 4,
             "inverse.layers": 2, "inverse.heads": 2, "forward.kind": "vit", "forward.width": 16, "forward.layers": 1,
             "forward.heads": 2, "forward.patch": 8, "bottleneck.tokens": 4}
    return with_options(load_preset("como"), **(small | options))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_loss_leaves_the_backbone_as_it_was(folders: dict[str, str], family: str) -> None:
    config = settings(folders[family], **{"loss.feature": 1.0, "loss.perceptual": 1.0,
                                          "loss.perceptual_model": folders["dinov2"]})
    model = MotionModel(config).train()
    before = {name: value.clone() for name, value in model.backbone.network.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    pixels = {name: pictures(4, seed) for seed, name in enumerate(("first", "second", "third"))}
    terms = motion_loss(model(**pixels), pixels["first"], pixels["second"], dataclasses.replace(config.loss))
    terms["loss"].backward()
    optimiser.step()
    assert not any(p.requires_grad or p.grad is not None for p in model.backbone.network.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.backbone.network.state_dict().items())
    assert not [name for name, _ in model.named_parameters() if name.startswith("backbone")]
    assert model.inverse.types.grad.abs().sum() > 0


def test_gradient_passes_through_to_the_picture(folders: dict[str, str]) -> None:
    backbone, picture = PretrainedBackbone(folders["dinov2"], SIZE), pictures(1).requires_grad_()
    backbone(picture).square().mean().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_is_the_same_at_every_load(folders: dict[str, str], family: str) -> None:
    first, again = PretrainedBackbone(folders[family], SIZE), PretrainedBackbone(folders[family], SIZE)
    assert first.sha256 == again.sha256 != ""


def test_a_checkpoint_names_its_backbone_and_refuses_another(folders: dict[str, str], tmp_path: Path) -> None:
    model = MotionModel(settings(folders["mae"])).eval()
    save_checkpoint(tmp_path / "run", model.config, model.state_dict())
    assert not [name for name in model.state_dict() if name.startswith("backbone")]
    a, b = (np.random.default_rng(seed).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8) for seed in range(2))
    assert torch.equal(load_motion(tmp_path / "run").encode(a, b), model.encode(a, b))
    other = make("mae")
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(folders["mae"] + "-other")
    moved = dataclasses.replace(model.config, backbone=dataclasses.replace(
        model.config.backbone, model=folders["mae"] + "-other"))
    save_checkpoint(tmp_path / "moved", moved, model.state_dict())
    with pytest.raises(BackboneError, match="not those that the motion model was trained with"):
        load_motion(tmp_path / "moved")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_in_half_precision_are_computed_with_in_full(
        folders: dict[str, str], tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    make(family).to(dtype).save_pretrained(tmp_path)
    found, whole = (PretrainedBackbone(place, SIZE)(pictures(1)) for place in (str(tmp_path), folders[family]))
    assert found.dtype == torch.float32 and torch.allclose(found, whole, atol=0.1)


def test_z_keeps_the_normalisation_that_it_was_trained_with(folders: dict[str, str], tmp_path: Path) -> None:
    """A folder whose preprocessor is lost, or says something else, gives the features of before."""
    place = tmp_path / "siglip"
    make("siglip").save_pretrained(place)
    said = place / "preprocessor_config.json"
    said.write_text(json.dumps({"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.3, 0.4]}))
    given = settings(str(place))
    model = MotionModel(given).eval()
    save_checkpoint(tmp_path / "run", model.config, model.state_dict())
    seen = pictures(2)
    said.unlink()
    loaded = load_motion(tmp_path / "run")
    assert torch.equal(loaded.backbone(seen), model.backbone(seen))
    fresh = MotionModel(given)
    assert fresh.config.backbone.mean == fresh.config.backbone.std == (0.5, 0.5, 0.5), "what SigLIP has by default"
    assert not torch.equal(fresh.backbone(seen), model.backbone(seen))
    assert backbone_identity(fresh) != backbone_identity(model)
    keys = [feature_cache._key(m.backbone, m.config, torch.device("cpu")) for m in (model, loaded, fresh)]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(ValueError, match=r"backbone.std: expected a number for each of R, G and B, above 0, got \[1"):
        dataclasses.replace(given.backbone, std=(1.0, 0.0, 1.0))


def test_a_backbone_without_all_its_weights_is_refused(tmp_path: Path) -> None:
    make("dinov2").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: values for name, values in load_file(file).items() if ".layer.1." not in name}, file,
              {"format": "pt"})
    with pytest.raises(BackboneError, match=r"its files lack \d+ of the weights that dinov2 has, encoder.layer.1"):
        PretrainedBackbone(str(tmp_path), SIZE)


def test_a_model_that_gives_no_patch_tokens_is_refused(tmp_path: Path) -> None:
    swin = transformers.SwinConfig(image_size=SIZE, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 2],
                                   window_size=4)
    transformers.SwinModel(swin).save_pretrained(tmp_path / "swin")
    with pytest.raises(BackboneError, match="a swin that gives no patch tokens|gives features"):
        PretrainedBackbone(str(tmp_path / "swin"), SIZE)
    transformers.DeiTModel(transformers.DeiTConfig(**COMMON)).save_pretrained(tmp_path / "deit")
    with pytest.raises(BackboneError, match="a deit that gives no patch tokens .* of 64 pixels: .*image_size"):
        PretrainedBackbone(str(tmp_path / "deit"), 2 * SIZE)


def test_what_is_no_vision_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no vision model of `transformers`"):
        PretrainedBackbone(str(tmp_path), SIZE)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(**tiny, vocab_size=10)).save_pretrained(tmp_path / "text")
    with pytest.raises(BackboneError, match="bert has no patches"):
        PretrainedBackbone(str(tmp_path / "text"), SIZE)


def test_a_path_without_a_folder_is_no_name_on_the_hub(
        folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_hub_answers", lambda: False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    (tmp_path / "weights.safetensors").touch()
    for model in ("./vit", "../no/such", "~/vit", str(tmp_path / "none"), "runs/deep/vit", "a/b/c/"):
        with pytest.raises(ComoError, match=rf"{model}: no folder at /.*; expected a folder with config.json and"):
            PretrainedBackbone(model, SIZE)
    for model in ("weights.safetensors", "./weights.safetensors"):
        with pytest.raises(ComoError, match=f"{model}: a file at {tmp_path}/weights.safetensors; expected a folder"):
            PretrainedBackbone(model, SIZE)
    with pytest.raises(BackboneError, match="no folder runs/vit is here, where runs is one; the hub at .* be reached"):
        PretrainedBackbone("runs/vit", SIZE)
    with pytest.raises(BackboneError, match="can be loaded from it: the hub at .* cannot be reached"):
        PretrainedBackbone("facebook/none-such", SIZE)
    with pytest.raises(ComoError, match="no folder at .*; expected a folder with .* and the tokenizer"):
        make_text(TextConfig("./text"), ["push"])
    (tmp_path / "here").symlink_to(folders["dinov2"])
    assert PretrainedBackbone("~/here", SIZE).width == PretrainedBackbone(folders["dinov2"], SIZE).width


def test_a_layer_that_is_not_there_is_refused(folders: dict[str, str]) -> None:
    for layer in (99, -99):
        with pytest.raises(BackboneError, match=f"layer must be from -3 to 2, since it has 2 layers; got {layer}"):
            PretrainedBackbone(folders["dinov2"], SIZE, layer)
    PretrainedBackbone(folders["dinov2"], SIZE, -3)(pictures(1))


def test_the_full_size_has_the_parts_of_the_paper(tmp_path: Path) -> None:
    """Built without memory for its weights; counted by part."""
    config = load_preset("como", size="full")
    vit = transformers.ViTMAEConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                                    intermediate_size=4096, patch_size=16, image_size=224)
    assert (config.backbone.model, config.image_size, config.latent_size) == ("facebook/vit-mae-large", 224, 8 * 16)
    from como_core.motion.bottleneck import Bottleneck
    from como_core.motion.forward_dynamics import ForwardDynamics
    from como_core.motion.inverse import make_inverse

    with torch.device("meta"):
        backbone = transformers.ViTMAEModel(vit)
        inverse = make_inverse(config.inverse, 1024, 14)
        bottleneck = Bottleneck(config.bottleneck, inverse.tokens, inverse.out, config.latent_size, narrow=True)
        forward = ForwardDynamics(config.forward, config.latent_size, 224)
        tokens = inverse(torch.empty(2, 1024, 14, 14), torch.empty(2, 1024, 14, 14))
        assert tokens.shape == (2, 8, 768) and bottleneck.project(tokens).shape == (2, 128)
        assert forward(torch.empty(2, 3, 224, 224), torch.empty(2, 128))["pixels"].shape == (2, 3, 224, 224)
    counts = [sum(p.numel() for p in part.parameters()) for part in (backbone, inverse, bottleneck, forward)]
    layer = 4 * 768 * 768 + 4 * 768 + 2 * 768 * 3072 + 3072 + 768 + 4 * 768  # attention, MLP, two norms
    assert counts[0] == pytest.approx(303e6, rel=0.01)
    assert counts[1] == 4 * layer + 2 * 768 + 2 * (1024 * 768 + 768) + (8 + 1 + 14 * 14 + 2) * 768
    assert counts[2] == 768 * 768 + 768 + 768 * 16 + 16
    assert counts[3] == (12 * layer + 2 * 768 + 3 * 256 * 768 + 768 + 14 * 14 * 768 + 128 * 768 + 768
                         + 768 * 768 + 768)
