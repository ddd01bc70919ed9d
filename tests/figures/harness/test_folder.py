"""One folder holds one run: what would be mixed or lost is refused, and what is safe is not."""

import json
from contextlib import nullcontext

import pytest

from figures.harness.folder import refuse_mixture
from tests.envs.refusals import refused


def verdicts(out, *claims, seed=0, preset="quick", device="cpu"):
    known = [{"claim": claim, "run": {"seed": seed, "preset": preset, "device": device}} for claim in claims]
    (out / "verdicts.json").write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("preset", "seed", "device", "claims", "taken"),
    [
        ("quick", 0, "cpu", ["a"], True),
        ("quick", 0, "cpu", ["c"], True),
        ("full", 0, "cpu", ["a", "b", "c"], True),  # every verdict is replaced by a better one
        ("full", 0, "cpu", ["a"], False),
        ("tiny", 0, "cpu", ["a", "b"], False),
        ("quick", 1, "cpu", ["a", "b"], False),
        ("full", 1, "cpu", ["a", "b"], False),
        ("quick", 0, "cuda", ["a", "b"], False),
    ],
)
def test_another_seed_preset_or_device_is_refused_with_the_remedy(tmp_path, preset, seed, device, claims, taken):
    verdicts(tmp_path, "a", "b")
    with nullcontext() if taken else refused("--out"):
        refuse_mixture(tmp_path, claims, preset, seed, device)


def test_the_refusal_says_what_is_there_and_names_a_free_folder(tmp_path):
    verdicts(tmp_path, "a")
    with pytest.raises(
        ValueError, match=f"holds verdicts of seed 0, preset quick, on cpu; .*--out {tmp_path}-seed3 for"
    ):
        refuse_mixture(tmp_path, ["a"], "quick", 3, "cpu")
    (tmp_path / "verdicts.json").unlink()
    refuse_mixture(tmp_path, ["a"], "quick", 3, "cpu")


@pytest.mark.parametrize("text", ["[{", "7", "[1]", '[{"run": 3}]'])
def test_damaged_verdicts_are_left_to_those_who_set_them_aside(tmp_path, text):
    (tmp_path / "verdicts.json").write_text(text)
    refuse_mixture(tmp_path, ["a"], "quick", 3, "cpu")


@pytest.mark.parametrize(
    ("preset", "seed", "device", "free"),
    [
        ("quick", 3, "cpu", "{out}-seed3"),
        ("tiny", 0, "cpu", "{out}-tiny-cpu"),
        ("quick", 0, "cuda", "{out}-quick-cuda"),
    ],
)
def test_the_folder_that_is_named_says_what_is_other_about_the_run(tmp_path, preset, seed, device, free):
    verdicts(tmp_path, "a", "b")
    with pytest.raises(ValueError, match="for instance") as error:
        refuse_mixture(tmp_path, ["a"], preset, seed, device)
    assert f"--out {free.format(out=tmp_path)} for instance" in str(error.value)
    assert f"this run has seed {seed}, preset {preset}, on {device}" in str(error.value)
