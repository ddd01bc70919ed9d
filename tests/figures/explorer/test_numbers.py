"""The page's arithmetic against the library's: fifty positions of the sliders, every number by the line of Python beside it."""

import functools
import math
import re
from typing import NamedTuple

import pytest
import torch

from agents.policies.linear import ClosedPath, ConstantPolicy, LinearPolicy
from agents.sampling.pathwise import pathwise_gradient
from agents.sampling.rollout import rollout
from agents.sampling.score_function import score_function_gradient
from envs.linear_quadratic import LinearQuadratic
from envs.lq_variants import ChaoticMap
from envs.noise import Noise
from figures.explorer.page import PANELS, explorer_page
from tests.figures.explorer.browser import needs_browser, probe

pytestmark = needs_browser
EACH = 10  # positions of each panel
# for every panel a sign or factor that is planted in its script
PLANTED = {
    "groups": ("k * won * (1 - P) -", "k * won * (1 - P) +"),
    "tokens": ("    weigh(Q, first.dpi),\n", "    scaled(-1, weigh(Q, first.dpi)),\n"),
    "linear": ("-2 + phi * cut[0]", "-2 - phi * cut[0]"),
    "chaos": ("2 * slope[i] * p[i] + d[i]", "slope[i] * p[i] + d[i]"),
    "checkpoints": ("of: m => m.study.gain[m.at],", "of: m => -m.study.gain[m.at],"),
}


def drawn(rng, low, high, step):
    """A position of a slider: low, low + step ... high."""
    steps = round((high - low) / step)
    return round(low + step * int(torch.randint(steps + 1, (1,), generator=rng)), 4)


def positions(rng):
    """Ten positions of each panel's sliders, as addresses; ends and special values of alpha come among them."""
    out = []
    for i in range(EACH):
        rewards = ",".join(f"{drawn(rng, -2, 2, 0.5):g}" for _ in range(9))
        alpha = (0, 1)[i] if i < 2 else drawn(rng, 0, 1, 0.01)
        out += [
            f"g={(2, 64)[i] if i < 2 else drawn(rng, 2, 64, 1)}&p={drawn(rng, 0.01, 0.99, 0.01)}",
            f"tau={drawn(rng, 0.15, 5, 0.01)}&offset={drawn(rng, -4, 4, 0.1)}&alpha={alpha}&r={rewards}",
            f"k={drawn(rng, 0, 1.8, 0.05)}&noise={drawn(rng, 0, 2, 0.05)}&t={drawn(rng, 0, 7, 1)}&cut={i % 2}&again={i + 1}",
            f"beta={drawn(rng, 0, 3, 0.05)}&steps={drawn(rng, 1, 20, 1)}&draw={i + 1}",
            f"corpus={i % 2}&at={drawn(rng, 0, 7, 1)}",
        ]
    return out


class Read(NamedTuple):
    """A number of the page and what Python says of it."""

    panel: str
    name: str
    where: str
    shown: str
    value: object
    python: object


@functools.cache
def _names(setup):
    names = {}
    exec(setup, names)
    return names


def python_of(number):
    """What the lines beside a number give, as floats."""
    given = eval(number["last"], dict(_names(number["setup"])))
    return given if isinstance(given, list) else float(given)


def agrees(shown, python):
    """Whether digits on the page are those of a number, to half a unit of the last one."""
    if isinstance(python, list):
        parts = shown.strip("()").split(", ")
        return len(parts) == len(python) and all(agrees(*pair) for pair in zip(parts, python, strict=True))
    if shown == "0":
        return abs(python) < 1e-11
    mantissa, _, exponent = shown.partition("e")
    digits = re.fullmatch(r"-?(\d+)(?:\.(\d+))?", mantissa)
    assert digits, shown
    unit = 10.0 ** (int(exponent or 0) - len(digits[2] or ""))
    return abs(float(shown) - python) <= 0.5 * unit * (1 + 1e-6) + 1e-9 * abs(python)


def readings(seen):
    for entry in (entry for position in seen.answer["found"] for entry in position):
        for number in entry["numbers"]:
            told = python_of(number)
            yield Read(entry["panel"], number["name"], entry["address"], number["shown"], number["value"], told)


def flat(x):
    return x if isinstance(x, list) else [x]


@pytest.fixture(scope="module")
def asked():
    return positions(torch.Generator().manual_seed(15))


@pytest.fixture(scope="module")
def seen(folder, asked):
    page = folder.parent / "page.html"
    page.write_text(explorer_page(folder), encoding="utf-8")
    return probe(page, asked)


def test_fifty_positions_were_read_on_five_panels_and_nothing_went_wrong(seen, asked):
    panels = [entry["panel"] for position in seen.answer["found"] for entry in position]
    assert len(asked) == 50
    assert {name: panels.count(name) for name in PANELS} == dict.fromkeys(PANELS, EACH)
    assert seen.answer["errors"] == []
    assert seen.console == []


def test_every_number_is_that_of_its_line_of_python(seen):
    read = list(readings(seen))
    assert len(read) == EACH * (15 + 13 + 3 + 4 + 7)
    wrong = [x for x in read if not agrees(x.shown, x.python)]
    assert wrong == []
    for x in read:  # far more digits agree than are shown
        size = max(map(abs, flat(x.python)))
        for own, told in zip(flat(x.value), flat(x.python), strict=True):
            assert math.isclose(own, told, rel_tol=1e-7, abs_tol=1e-9 * max(size, 1e-2)), x


def test_a_planted_error_in_a_panel_is_seen_in_that_panel(folder, asked, tmp_path):
    text = explorer_page(folder)
    for right, wrong in PLANTED.values():
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    page = tmp_path / "wrong.html"
    page.write_text(text, encoding="utf-8")
    # corpus and checkpoint: gains that are not 0
    few = [*[address for address in asked if not address.startswith("corpus")][:8], "corpus=0&at=3"]
    red = {x.panel for x in readings(probe(page, few)) if not agrees(x.shown, x.python)}
    assert red == set(PLANTED)


@pytest.mark.parametrize(
    ("shown", "python", "right"),
    [
        ("0.1234", 0.12344, True),
        ("0.1234", 0.12346, False),
        ("(1.000, 0)", [1.0, 1e-14], True),
        ("(1.000, 0)", [1.0, 0.1], False),
        ("1.234e-7", 1.2344e-7, True),
        ("1.234e-7", -1.2344e-7, False),
        ("0", 1e-3, False),
    ],
)
def test_digits_are_compared_to_the_last_one(shown, python, right):
    assert agrees(shown, python) is right


def samples(seen, panel):
    entries = [entry for position in seen.answer["found"] for entry in position if entry["panel"] == panel]
    return [(dict(part.split("=") for part in entry["address"].split("&")), entry["sample"]) for entry in entries]


def test_the_cloud_of_costates_is_autograd_s_on_the_same_noise(seen):
    for given, sample in samples(seen, "linear"):
        k, sd, t = float(given["k"]), float(given["noise"]), int(given["t"])
        z = torch.tensor(sample["z"], dtype=torch.float64)
        variance, noise = [[sd**2]], Noise(2 * z[:, :1], sd * z[:, 1::2, None], sd * z[:, 2::2, None])
        world = LinearQuadratic([[1]], [[1]], [[1]], [[0.5]], [[1]], variance, variance, S_0=[[4]], horizon=8)
        policy = LinearPolicy([[k]])
        path = rollout(world, ClosedPath(policy, "all") if given["cut"] == "1" else policy, noise)
        (slope,) = torch.autograd.grad(path.returns.sum(), path.state_probe)
        both = torch.stack([path.states[:, t, 0], slope[:, t, 0]], 1)
        torch.testing.assert_close(torch.tensor(sample["points"], dtype=torch.float64), both.detach())


def test_the_slope_of_the_cloud_is_the_exact_one_within_its_standard_error(seen):
    entries = [entry for position in seen.answer["found"] for entry in position if entry["panel"] == "linear"]
    refused = 0
    for entry in entries:
        slope, error = entry["sample"]["slope"], entry["sample"]["error"]
        exact = {number["name"]: number["value"] for number in entry["numbers"]}
        truth, other = (exact["cut"], exact["slope"])[:: 1 if "cut=1" in entry["address"] else -1]
        assert abs(slope - truth) <= 5 * error + 1e-9
        refused += abs(slope - other) > 5 * error + 1e-9
    assert refused >= EACH // 2  # the slope with the path cut is not that of the whole path


def test_the_two_hundred_paths_are_the_library_s_on_the_same_noise(seen):
    for given, sample in samples(seen, "chaos"):
        paths, beta, T = sample["paths"], float(given["beta"]), int(given["steps"])
        rounding = 1e-9 + 1e-15 * (1 + beta) ** T  # a step stretches the rounding of the state by beta or less
        xi = 0.3 * torch.tensor([path["xi"] for path in paths], dtype=torch.float64)[..., None]
        world, policy = ChaoticMap(beta=beta, horizon=T), ConstantPolicy([1.0])
        trajectory = rollout(world, policy, Noise(torch.ones_like(xi[:, 0]), xi, torch.zeros_like(xi)))
        pathwise = pathwise_gradient(policy, trajectory)["theta"][:, 0]
        score = score_function_gradient(world, policy, trajectory)["theta"][:, 0]
        for name, own in {"s": trajectory.states[:, T, 0], "pathwise": pathwise, "score": score}.items():
            shown = torch.tensor([path[name] for path in paths], dtype=torch.float64)
            torch.testing.assert_close(shown, own.detach(), rtol=rounding, atol=rounding)


def test_small_panels_are_drawn_within_a_frame(seen):
    times = {name: [] for name in PANELS}
    for entry in (entry for position in seen.answer["found"] for entry in position):
        times[entry["panel"]].append(entry["milliseconds"])
    assert all(min(times[name]) <= 16 for name in PANELS if name != "chaos"), times
