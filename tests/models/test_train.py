"""Training: data depend only on the step's number; exact resume; several processes; its files."""

import copy
import csv
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pocketlic.models.data import Photographs, list_photographs
from pocketlic.models.network import Coded, FloatCodec, rate_weight
from pocketlic.models.perceptual import visual_bits
from pocketlic.models.train import (
    LEAST_COST,
    VISUAL_EMPHASIS,
    Optimizers,
    Step,
    TrainOptions,
    check,
    learning_rate_factor,
    rate_distortion,
    train,
)

torch.set_num_threads(1)

# PYTHONSAFEPATH: from the checkout, `python -m` would import its bare folder pocketlic, not the package.
SINGLE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": "1"}


@pytest.fixture
def options(photo_folder, tmp_path):
    """Six steps, of which the last three are the decay: `stable.pt` is the state after three."""
    return TrainOptions(
        photo_folder, tmp_path / "run", steps=6, batch=2, crop=64, decay=0.5, warmup=2, threads=1, bf16=False
    )


def weights(path):
    return torch.load(path, weights_only=True)


def command(*arguments):
    return [sys.executable, "-m", "pocketlic.cli", *map(str, arguments)]


def test_crops_depend_on_seed_step_and_rank_alone(photo_folder):
    first, second = (Photographs(photo_folder, 64, 3, seed=5) for _ in range(2))
    first(0)  # history must not matter
    crops = first(7, rank=1)
    assert (crops.shape, crops.dtype) == ((3, 3, 64, 64), torch.uint8)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(crops, second(7, rank=1))
    for other in (second(8, rank=1), second(7, rank=0), Photographs(photo_folder, 64, 3, seed=6)(7, rank=1)):
        assert not torch.equal(crops, other)


def test_crops_are_parts_of_the_pictures(photo_folder):
    photographs = Photographs(photo_folder, 64, 4)
    windows = [
        np.lib.stride_tricks.sliding_window_view(image, (64, 64, 3)).reshape(-1, 64, 64, 3)
        for image in photographs.images
    ]
    flips = 0
    for crop in photographs(3).permute(0, 2, 3, 1).numpy():
        views = [t[:, ::s] for t in (crop, crop.transpose(1, 0, 2)[:, ::-1]) for s in (1, -1)]
        views += [crop.transpose(1, 0, 2), crop.transpose(1, 0, 2)[::-1]]
        found = [any((w == v).all((1, 2, 3)).any() for w in windows) for v in views]
        assert any(found)
        flips += not found[0]
    assert flips > 0


def test_flat_crops_are_thinned_out(tmp_path, picture):
    Image.fromarray(np.full((96, 96, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    Image.fromarray(picture(96, 96)).save(tmp_path / "rich.png")
    photographs = Photographs(tmp_path, 64, 400)
    flat = (photographs(0).flatten(1).float().std(1) < 1).float().mean()
    assert 0.1 < flat < 0.3  # a quarter of 1/2, of 5/8 that are kept


def test_only_pictures_are_listed_and_small_ones_left_out(photo_folder):
    assert [p.name for p in list_photographs(photo_folder)] == ["a.png", "b.PNG", "c.jpg"]
    assert [len(i) for i in Photographs(photo_folder, 96, 1).images] == [96, 112]


def test_folders_without_use(photo_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        list_photographs(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list_photographs(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="at least 128 pixels"):
        Photographs(photo_folder, 128, 1)


def test_learning_rates_warm_up_stay_and_decay():
    options = TrainOptions(None, None, steps=1000, warmup=10, decay=0.4)
    factor = [learning_rate_factor(step, options) for step in range(1001)]
    assert factor[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert set(factor[10:601]) == {1.0}
    assert factor[800] == pytest.approx(0.5)
    assert factor[1000] == 0
    # A longer run is the same until the shorter one's rates decay, so `stable.pt` continues either.
    longer = replace(options, steps=2000)
    assert [learning_rate_factor(step, longer) for step in range(601)] == factor[:601]


def test_loss_is_rate_and_distortion():
    image = torch.zeros(2, 3, 64, 64)
    coded = Coded(image + 2 / 255, torch.tensor([4096.0, 0.0]), torch.tensor([4096.0, 0.0]))
    quality = torch.tensor([20.0, 80.0])
    loss, bpp, mse = rate_distortion(coded, image, quality)
    assert bpp.tolist() == [2, 0]
    assert mse.tolist() == pytest.approx([4, 4])
    weight = rate_weight(quality)
    assert loss == pytest.approx(float(((bpp + weight * mse) * (0.013 / weight) ** 0.5).mean()))


def test_the_visual_loss_is_rate_and_what_errors_are_worth_to_the_eye(picture):
    image = torch.from_numpy(picture(192, 192).copy()).permute(2, 0, 1)[None].float() / 255
    coded = Coded(image + 0.02, torch.tensor([4096.0]), torch.tensor([4096.0]))
    quality = torch.tensor([50.0])
    loss, bpp, distortion = rate_distortion(coded, image, quality, "visual")
    bits = visual_bits(255 * image, 255 * image + 255 * 0.02, quality)
    assert (rate_weight(quality) * distortion).item() == pytest.approx(bits.item(), rel=1e-3)
    scale = float((0.013 / rate_weight(quality)) ** 0.5) * VISUAL_EMPHASIS**0.5
    assert loss.item() == pytest.approx(math.log(scale * (bpp + bits).item() + LEAST_COST), rel=1e-3)


def test_the_leak_of_the_relus_ends_where_the_decay_begins(photo_folder, tmp_path):
    """Two runs that differ in the leak alone are equal when they start at a step where it is off."""
    options = TrainOptions(
        photo_folder, tmp_path, steps=6, batch=2, crop=64, decay=0.5, warmup=2, threads=1, bf16=False
    )
    image = Photographs(photo_folder, 64, 2)(0)

    def gradient(leak, step):
        torch.manual_seed(0)
        codec = FloatCodec()
        with torch.no_grad():
            codec.analysis.fine.expand.bias.fill_(-0.2)  # units to be switched on
            codec.analysis.fine.project.weight.normal_()
        chosen = replace(options, relu_leak=leak)
        run = Step(codec, codec, copy.deepcopy(codec), Optimizers(codec, chosen), chosen)
        run(step, 0, image)
        return codec.analysis.fine.expand.weight.grad.clone()

    assert not torch.equal(gradient(0.1, 2), gradient(0.0, 2))
    assert torch.equal(gradient(0.1, 3), gradient(0.0, 3))


def test_training_may_keep_to_a_part_of_the_qualities(options, photo_folder):
    seen = []

    class Spy(FloatCodec):
        def forward(self, image, quality):
            seen.extend(quality.tolist())
            return super().forward(image, quality)

    chosen, codec = replace(options, qualities=(20.0, 30.0), batch=2), Spy()
    run = Step(codec, codec, copy.deepcopy(codec), Optimizers(codec, chosen), chosen)
    for step in range(3):
        run(step, 0, Photographs(photo_folder, 64, 2)(step))
    assert all(20 <= min(pair) < 25 <= max(pair) <= 30 for pair in zip(seen[::2], seen[1::2], strict=True))


def test_resuming_is_exact(options):
    """Six steps at once, and three plus three in a new run, end in the same bits."""
    whole = weights(train(options))
    assert whole["step"] == 6
    rest = replace(options, out=options.out.with_name("rest"))
    rest.out.mkdir()
    shutil.copy(options.out / "stable.pt", rest.out / "last.pt")
    assert weights(rest.out / "last.pt")["step"] == 3
    resumed = weights(train(rest))
    for part in ("codec", "average"):
        assert all(torch.equal(whole[part][k], resumed[part][k]) for k in whole[part])
    other = weights(train(replace(options, out=options.out.with_name("other"), seed=1)))
    assert not torch.equal(whole["codec"]["latent.weight"], other["codec"]["latent.weight"])
    assert not torch.equal(whole["codec"]["latent.weight"], whole["average"]["latent.weight"])


def test_without_averaging_the_weights_themselves_are_saved(options):
    averaged = weights(train(options))
    plain = weights(train(replace(options, ema=0.0, out=options.out.with_name("plain"))))
    for part in ("codec", "average"):
        assert all(torch.equal(averaged["codec"][k], plain[part][k]) for k in averaged["codec"])
    # The average in an old checkpoint does not replace the weights.
    rest = replace(options, ema=0.0, out=options.out.with_name("rest"))
    rest.out.mkdir()
    shutil.copy(options.out / "stable.pt", rest.out / "last.pt")
    resumed = weights(train(rest))["codec"]
    assert all(torch.equal(averaged["codec"][k], resumed[k]) for k in resumed)


def test_the_codec_is_tended_between_steps(options, monkeypatch):
    monkeypatch.setattr("pocketlic.models.train.LOG_EVERY", 2)
    told = []

    def tend(codec, step):
        told.append(step)
        with torch.no_grad():
            codec.latent.bias.fill_(step)

    trained = weights(train(options, tend=tend))["codec"]
    assert told == [2, 4, 6]
    assert (trained["latent.bias"] == 6).all()


def test_training_lowers_the_loss_and_leaves_logs(options, monkeypatch):
    monkeypatch.setattr("pocketlic.models.train.LOG_EVERY", 20)
    options = replace(options, steps=40, bf16=True)
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    last = train(options)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    rows = list(csv.DictReader((options.out / "log.csv").open()))
    assert [row["step"] for row in rows] == ["20", "40"]
    assert float(rows[1]["loss"]) < 0.8 * float(rows[0]["loss"])
    assert list((options.out / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(options.out.glob("*.part"))
    # The average follows the weights; it is what is evaluated and saved.
    codec = FloatCodec()
    codec.load_state_dict(weights(last)["average"])
    (low, high) = check(codec, options.data, (10, 90))
    assert low[0] == 10
    assert low[1] < high[1]
    assert 5 < low[2] < 60


def test_bfloat16_changes_numbers_but_not_types(options):
    exact, fast = (
        weights(train(replace(options, steps=2, out=options.out.with_name(f"b{b}"), bf16=b)))["codec"]
        for b in (False, True)
    )
    assert all(v.dtype == torch.float32 for v in fast.values())
    assert not torch.equal(exact["analysis.enter.weight"], fast["analysis.enter.weight"])
    torch.testing.assert_close(exact["analysis.enter.weight"], fast["analysis.enter.weight"], atol=0.05, rtol=0)


def test_a_checkpoint_that_cannot_be_resumed(options):
    options.out.mkdir()
    for content in (b"", b"not a checkpoint"):
        (options.out / "last.pt").write_bytes(content)
        with pytest.raises(OSError, match="cannot resume"):
            train(options)
    torch.save({"codec": {}, "step": 1}, options.out / "last.pt")
    with pytest.raises(OSError, match="cannot resume"):
        train(options)


def test_a_terminated_run_saves_and_can_go_on(options):
    run = command("train", "--data", options.data, "--out", options.out, "--batch", 1, "--crop", 64)
    run += ["--threads", "1", "--save-minutes", "0"]  # saves after every step
    with subprocess.Popen(run, env=SINGLE, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 90
        while not (options.out / "last.pt").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "stopped" in output
    state = weights(options.out / "last.pt")
    assert state["step"] >= 1
    done = replace(options, steps=state["step"] + 1, batch=1)
    assert weights(train(done))["step"] == state["step"] + 1


def test_two_processes_train_one_codec(options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(port),
    ]
    arguments = ["--steps", 4, "--batch", 1, "--crop", 64, "--threads", 1, "--decay", 0.5, "--no-bf16"]
    run = [*command("train", "--data", options.data, "--out", options.out, *arguments)[1:]]
    done = subprocess.run([*launcher, *run], env=SINGLE, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    state = weights(options.out / "last.pt")
    assert state["step"] == 4
    assert (options.out / "log.csv").read_text().count("step,") == 1
    assert len(list((options.out / "tensorboard").iterdir())) == 1
    alone = weights(train(replace(options, steps=4, batch=1, warmup=200, out=options.out.with_name("one"))))
    key = "latent.weight"
    assert not torch.equal(state["codec"][key], alone["codec"][key])  # the other process contributed
    assert torch.isfinite(state["codec"][key]).all()


def test_the_process_has_its_small_numbers_again(options):
    train(replace(options, steps=1))
    assert float(np.float32(1e-40) * np.float32(1)) > 0
