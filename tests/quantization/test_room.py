"""Room for flat colours: a channel's grid is enlarged, once, and the codec computes the same but for rounding."""

import pytest
import torch

from pocketlic.models.network import LATENTS
from pocketlic.quantization.convert import from_integer_model, to_integer_model
from pocketlic.quantization.model import IntegerModel
from pocketlic.quantization.prepare import _widen_channel, make_room
from pocketlic.quantization.shipped import MODELS

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def strict():
    return MODELS[-1].load()


def test_a_widened_channel_changes_next_to_nothing(strict):
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    quality = torch.tensor([30.0, 80.0])
    channel = next(c for c in range(LATENTS) if c not in strict.wide)
    codecs = [from_integer_model(strict).eval() for _ in range(2)]
    _widen_channel(codecs[1], channel)
    with torch.no_grad():
        before, after = (codec(image, quality) for codec in codecs)
    errors = [(coded.reconstruction - image).square().mean((1, 2, 3)) for coded in (before, after)]
    assert torch.allclose(errors[1], errors[0], rtol=0.05)
    assert torch.allclose(after.latent_bits, before.latent_bits, rtol=0.02)
    model = to_integer_model(codecs[1], {})
    assert sorted([*strict.wide, channel]) == model.wide.tolist()
    assert IntegerModel.from_bytes(model.to_bytes()).model_id == model.model_id


def test_room_is_made_once_and_where_flat_colours_need_it(strict):
    codec = from_integer_model(strict).eval()
    before = set(codec.synthesis.wide.tolist())
    changed = make_room(codec)
    assert set(codec.synthesis.wide.tolist()) == before | set(changed)
    assert make_room(codec) == []
    # Push another channel out of its grid: it is found.
    narrow = next(c for c in range(LATENTS) if c not in codec.synthesis.wide.tolist())
    codec.latent.projection.bias_gain[narrow] = 1
    with torch.no_grad():
        codec.latent.projection.bias[narrow] = 200
    assert make_room(codec) == [narrow]
