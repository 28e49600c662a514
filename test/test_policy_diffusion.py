"""Samplers, denoiser, encoder, normaliser: the arithmetic of the diffusion policy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from policy_data import SPACE, demonstrations

from como_core.errors import ComoError
from como_core.policy.denoiser import Denoiser
from como_core.policy.diffusion import SamplerName, make_sampler
from como_core.policy.network import NetworkConfig
from como_core.policy.normaliser import Affine, Normaliser
from como_core.policy.observation import ObservationConfig, ObservationEncoder

SAMPLERS: tuple[SamplerName, ...] = ("flow", "ddim")


@pytest.mark.parametrize("steps", [1, 3, 8, 29, 51, 60, 97, 100])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_network_brings_any_noise_to_the_clean_chunk(name: SamplerName, steps: int) -> None:
    """The target that `noised` gives, fed back as the prediction, must lead `sample` to the chunk it was made from."""
    sampler = make_sampler(name, steps)
    clean, noise = (torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))

    def perfect(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return sampler.noised(clean, noise, time - 1e-4).target

    torch.testing.assert_close(sampler.sample(perfect, noise), clean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("steps", [1, 6, 8, 51, 60, 99])
def test_ddim_samples_lie_where_the_clean_values_do(steps: int) -> None:
    """The best network for values around 1.5: told another noise level than that of its input, it misses them."""
    sampler, middle, spread = make_sampler("ddim", steps), 1.5, 0.5

    def best(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        # add_noise of 1 alone, and of noise 1 alone, tells the shares of both at this time.
        one, none = torch.ones_like(noisy[:1]), torch.zeros_like(noisy[:1])
        clean = float(sampler.noised(one, none, time[:1] - 1e-4).noisy.mean())
        noise = float(sampler.noised(none, one, time[:1] - 1e-4).noisy.mean())
        variance = (clean * spread) ** 2 + noise**2
        guess = middle + clean * spread**2 / variance * (noisy - clean * middle)
        return clean * (noisy - clean * guess) / noise - noise * guess

    found = sampler.sample(best, torch.randn(5000, 1, 1, generator=torch.Generator().manual_seed(0)))
    assert float(found.mean()) == pytest.approx(middle, abs=0.01)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 10, 20, 25, 50, 100])
def test_ddim_is_diffusers_own_where_its_steps_are_even(steps: int) -> None:
    scheduler = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False,
                              rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = noise
    for step in scheduler.timesteps:
        expected = scheduler.step(torch.sin(3 * expected), int(step), expected, return_dict=False)[0]
    assert torch.equal(make_sampler("ddim", steps).sample(lambda noisy, time: torch.sin(3 * noisy), noise), expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_time_one_is_pure_noise_and_zero_is_clean(name: SamplerName) -> None:
    sampler = make_sampler(name, steps=4)
    clean, noise = torch.ones(2, 3, 1), torch.full((2, 3, 1), -5.0)
    example = sampler.noised(clean, noise, torch.tensor([0.0, 0.99999]))
    assert (example.noisy[0] - clean[0]).abs().max() < 0.2
    torch.testing.assert_close(example.noisy[1], noise[1], atol=1e-3, rtol=0)
    assert example.time[0] <= 0.01 and example.time[1] > 0.999


@pytest.mark.parametrize("steps", [5, *range(29, 100, 17), 31, 58, 62])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_asked_as_often_as_configured_at_falling_times(name: SamplerName, steps: int) -> None:
    times: list[float] = []

    def network(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(float(time[0]))
        return torch.zeros_like(noisy)

    make_sampler(name, steps).sample(network, torch.randn(1, 4, 2))
    assert len(times) == steps and times == sorted(times, reverse=True) and times[0] == pytest.approx(1.0)
    assert times[-1] > 0


@pytest.mark.parametrize("kind", ["transformer", "mlp"])
def test_denoiser_depends_on_time_and_context_once_trained(kind: Literal["transformer", "mlp"]) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(NetworkConfig(kind, 16, 2, 2), 4, {"action": 3}, 8)
    torch.nn.init.normal_(denoiser.out["action"].weight)  # it starts at zero
    for name, weight in denoiser.named_parameters():
        if "modulate" in name:
            torch.nn.init.normal_(weight)
    noisy, context, time = torch.randn(2, 4, 3), torch.randn(2, 8), torch.tensor([0.2, 0.2])
    first = denoiser(noisy, time, context)
    assert first.shape == (2, 4, 3)
    assert not torch.allclose(first, denoiser(noisy, time + 0.5, context))
    assert not torch.allclose(first, denoiser(noisy, time, context + 1))


def test_encoder_tells_absent_state_from_a_state_of_zeros() -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder(ObservationConfig(16, (8, 8, 8), 4, 16, state=True), 2, 3, 2)
    images = torch.randint(0, 255, (1, 2, 16, 16, 3), dtype=torch.uint8)
    index = torch.tensor([[0.0, 1.0, 0.0]])

    def encode(state: float, known: bool) -> torch.Tensor:
        return encoder(images, index, torch.full((1, 2), state), torch.tensor([known]))

    assert not torch.allclose(encode(0.0, True), encode(0.0, False))
    assert torch.equal(encode(0.0, False), encode(5.0, False)), "an absent state must not be read"


def test_encoder_sees_every_camera_and_the_instruction() -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder(ObservationConfig(16, (8, 8, 8), 4, 16), 2, 3, 0)
    images = torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8)
    base = encoder(images, torch.eye(3)[:1])
    for camera in range(2):
        changed = images.clone()
        changed[:, camera, 4:8, 4:8] = 255
        assert not torch.allclose(base, encoder(changed, torch.eye(3)[:1]))
    assert not torch.allclose(base, encoder(images, torch.eye(3)[2:]))


def test_normaliser_survives_json_and_leaves_constant_values_alone() -> None:
    found = Normaliser.fit(demonstrations(), SPACE)
    again = Normaliser.from_dict(found.to_dict())
    np.testing.assert_array_equal(found.action.scale, again.action.scale)
    assert found.state is not None and again.state is not None
    values = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_allclose(again.action.denormalise(again.action.normalise(values)), values, atol=1e-5)
    assert Affine.fit(np.full((9, 1), 3.0)).scale[0] == 1.0


@pytest.mark.parametrize("broken", [{}, {"action": {"mean": [0.0], "scale": [0.0]}},
                                    {"action": {"mean": [0.0, 1.0], "scale": [1.0]}}])
def test_broken_normaliser_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ComoError, match="normaliser.json"):
        Normaliser.from_dict(broken)
