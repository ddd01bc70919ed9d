"""What a checkpoint may hold: plain real numbers of any precision; all else is refused by the file's name, and quickly."""

import json
import os
import pickle
import warnings

import pytest
import torch

from agents.policies.transformer import Transformer
from envs.skills import skills
from envs.world import InputError
from figures.impact import checkpoint_files as files
from figures.impact.checkpoint_files import MODEL_FILE, fill, read_contents, read_model
from figures.impact.checkpoints import Source, read_checkpoints

WORLD = skills(2, 1, "copy")  # three tokens, two of prompt and one of answer
NETWORK = Transformer(3, None, 8, 1, 1, 4, seed=1)
STATE = NETWORK.state_dict()


def said(folder):
    """The one line in which the folder's checkpoints are refused; it begins with the file's name."""
    with pytest.raises(InputError) as caught:
        read_checkpoints(folder, WORLD, Source(heads=1))
    assert str(caught.value).startswith(f"checkpoint {folder / 'a.pt'} ")
    return str(caught.value)


def saved(folder, state, **extra):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"state": state, **extra} if extra else state, folder / "a.pt")
    return folder


def changed(f, name="head.weight"):
    return {**STATE, name: f(STATE[name].clone())}


def spoilt(number):
    def f(x):
        x[0, 0] = number
        return x

    return f


def quantised(x):
    return torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)


TENSORS = {
    "sparse": (lambda: changed(torch.Tensor.to_sparse), "layout torch.sparse_coo: save it after .to_dense()"),
    "sparse rows": (lambda: changed(torch.Tensor.to_sparse_csr), "layout torch.sparse_csr"),
    "meta": (lambda: changed(lambda x: x.to("meta")), "without numbers"),
    "quantised": (lambda: changed(quantised), "quantised"),
    "nested": (lambda: changed(lambda x: torch.nested.nested_tensor([x[0], x[1, :2]])), "layout"),
    "too large": (lambda: changed(spoilt(1e300)), "holds 1e+300 in head.weight"),
    "too large for a square": (lambda: changed(spoilt(-1e39)), "holds 1e+39"),
    "not a number": (lambda: changed(spoilt(float("nan"))), "NaN or infinity in head.weight"),
    "infinite": (lambda: changed(spoilt(float("-inf"))), "NaN or infinity in head.weight"),
    "whole numbers": (lambda: changed(torch.Tensor.long), "whole numbers in head.weight"),
    "bytes": (lambda: changed(lambda x: x.to(torch.uint8)), "whole numbers in head.weight"),
    "truth values": (lambda: changed(torch.Tensor.bool), "truth values in head.weight"),
    "complex": (lambda: changed(lambda x: x.to(torch.complex128)), "complex numbers in head.weight"),
    "a table of whole numbers": (
        lambda: changed(torch.Tensor.long, "embedding.weight"),
        "whole numbers in embedding.weight",
    ),
    "far more than the file holds": (lambda: changed(lambda x: x[:1, :1].expand(10**6, 10**6)), "GiB"),
    "a width of which no block is": (
        lambda: {**STATE, "embedding.weight": torch.zeros(1, 1).expand(3, 10**5), "position": torch.zeros(4, 10**5)},
        "not of width 100000",
    ),
    "a long name": (lambda: {**STATE, "x" * 5000 + "\n\x1b[31m": torch.zeros(2).to("meta")}, "without numbers"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_are_no_weights_are_refused(tmp_path, case):
    make, says = TENSORS[case]
    line = said(saved(tmp_path, make()))
    assert says in line
    assert len(line) < 500
    assert line.isprintable()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_size_of_a_checkpoint_is_that_of_its_numbers_in_double_precision(tmp_path, dtype):
    """Four GiB are 2^29 numbers, however few bytes each has in the file; one number repeated needs none there."""
    for count, told in ((2**29, ""), (2**29 + 1, "GiB in double precision")):
        torch.save({"w": torch.zeros(1, dtype=dtype).expand(count)}, tmp_path / "a.pt")
        if told:
            with pytest.raises(InputError, match=told):
                read_contents(tmp_path / "a.pt")
        else:
            assert read_contents(tmp_path / "a.pt").state["w"].numel() == count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_every_precision_becomes_double_without_a_further_rounding(tmp_path, dtype):
    low = {name: x.to(dtype) for name, x in STATE.items()}
    (loaded,) = read_checkpoints(saved(tmp_path, low), WORLD, Source(heads=1))
    for name, x in loaded.policy.state_dict().items():
        assert x.dtype is torch.float64
        assert torch.equal(x, low[name].double())


def test_a_users_single_precision_network_keeps_the_digits_of_a_double_file(tmp_path):
    network = torch.nn.Linear(2, 2, bias=False, device="meta").to_empty(device="cpu")
    exact = {"weight": torch.full((2, 2), 1 / 3, dtype=torch.float64)}
    fill(tmp_path / "a.pt", network, exact)
    assert torch.equal(network.weight.detach(), exact["weight"])


class WithBuffers(torch.nn.Module):
    """A causal mask of infinities, positions, and what is trained."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.register_buffer(
            "mask", torch.zeros(2, 2).masked_fill(torch.ones(2, 2, dtype=torch.bool).triu(1), -torch.inf)
        )
        self.register_buffer("positions", torch.arange(2))
        self.register_buffer("keep", torch.ones(2, dtype=torch.bool))


def test_buffers_may_hold_what_the_network_itself_holds_there(tmp_path):
    state = WithBuffers().state_dict()
    fill(tmp_path / "a.pt", WithBuffers(), state)
    for name, other in (("mask", -state["mask"]), ("positions", torch.zeros(2)), ("keep", torch.zeros(2).int())):
        with pytest.raises(InputError, match=f"in {name}"):
            fill(tmp_path / "a.pt", WithBuffers(), {**state, name: other})


def test_a_network_of_complex_weights_is_refused(tmp_path):
    network = torch.nn.ParameterDict({"w": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(InputError, match="complex numbers in w: it must have real weights"):
        fill(tmp_path / "a.pt", network, network.state_dict())


@pytest.mark.parametrize(
    "tokens",
    [True, False, -5, -1.0, 2.5, float("nan"), float("inf"), 2**63, 1e300, torch.tensor(-5), torch.tensor([2.5])],
)
def test_tokens_are_a_whole_number(tmp_path, tokens):
    assert "holds tokens" in said(saved(tmp_path, STATE, tokens=tokens))


@pytest.mark.parametrize("tokens", [0, 7, 7.0, torch.tensor(7), torch.tensor([7.0]), 2**62])
def test_tokens_in_any_form_of_a_whole_number_are_taken(tmp_path, tokens):
    assert read_contents(saved(tmp_path, STATE, tokens=tokens) / "a.pt").tokens == int(tokens)


def test_a_parameter_may_be_called_tokens(tmp_path):
    torch.save({"tokens": torch.zeros(1)}, tmp_path / "a.pt")
    contents = read_contents(tmp_path / "a.pt")
    assert contents.tokens is None
    assert list(contents.state) == ["tokens"]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    path = tmp_path / "a.pt"
    for make, kind in (
        (os.mkfifo, "is a pipe"),
        (os.mkdir, "is a folder"),
        (lambda p: os.symlink("/dev/zero", p), "is a device"),
        (lambda p: os.symlink("gone", p), "a link to nothing"),
    ):
        make(path)
        assert kind in said(tmp_path)
        path.rmdir() if kind == "is a folder" else path.unlink()
    torch.save(STATE, tmp_path / "elsewhere")
    path.symlink_to("elsewhere")
    assert len(read_checkpoints(tmp_path, WORLD, Source(heads=1))) == 1, "the control: a link to a file is one"


def test_no_byte_of_a_file_can_be_changed_to_a_traceback(tmp_path):
    """Three hundred changes at places of a fixed pattern: the file is read or refused by its name."""
    torch.save(STATE, tmp_path / "whole")
    whole, outcomes = bytearray((tmp_path / "whole").read_bytes()), {"read": 0, "refused": 0}
    for i in range(300):
        copy, place = bytearray(whole), (i * 7919) % min(len(whole), 4000)
        copy[place : place + 1 + i % 3] = bytes([(copy[place] + 1 + i) % 256])
        (tmp_path / "a.pt").write_bytes(copy)
        try:
            read_contents(tmp_path / "a.pt")
            outcomes["read"] += 1
        except InputError as error:
            assert str(error).startswith(f"checkpoint {tmp_path / 'a.pt'} ")  # noqa: PT017
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10, outcomes


def test_a_pickle_of_every_kind_of_error_is_refused(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "a.pt")
    for error in (*files.UNREADABLE, RecursionError, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")):

        def load(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(torch, "load", load)
        assert "cannot be read" in said(tmp_path)
    assert pickle.UnpicklingError in files.UNREADABLE


MODELS = {
    "heads that are a truth value": '{"heads": true}',
    "no heads": '{"heads": 0}',
    "a world that is no name": '{"world": 5}',
    "keywords that are none": '{"world_options": [1]}',
    "deep": "[" * 100_000,
    "five thousand digits": '{"heads": ' + "9" * 5000 + "}",
    "a list": "[]",
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_file_is_checked_when_it_is_read(tmp_path, case):
    (tmp_path / MODEL_FILE).write_text(MODELS[case])
    with pytest.raises(InputError, match="is damaged") as caught:
        read_model(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / MODEL_FILE))
    assert len(str(caught.value)) < 400


def test_a_model_file_may_be_marked_and_must_be_a_file(tmp_path):
    path = tmp_path / MODEL_FILE
    path.write_text("\ufeff" + json.dumps({"heads": 2}))
    assert read_model(tmp_path) == {"heads": 2}
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a pipe"):
        read_model(tmp_path)
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(InputError, match="a link to nothing"):
        read_model(tmp_path)
