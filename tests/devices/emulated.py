"""A second device emulated on the CPU, to find code that forgets to move a tensor where there is no GPU.

A tensor on the device "emulated" holds one of the CPU, and every operation runs on what is held: the numbers are the CPU's,
to the bit. What an accelerator refuses is refused here too: an operation on tensors of both devices (0-dim tensors of the CPU
aside, which count as numbers), and noise from a generator of the other device. The device is torch's key for private use, with
this file as its backend; torch takes one such backend for the life of a process, and the CPU's own tensors do not notice it.

It is stricter than CUDA in one point: an index must be on the device of what is indexed. CUDA takes an index of the CPU and
copies it, which makes the host wait.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "emulated"
_CPU = torch.device("cpu")
_FACTORIES = (  # what makes a tensor of nothing, for torch's own kernels to build on
    *("empty.memory_format", "empty_strided", "zeros", "ones", "full", "scalar_tensor", "eye", "eye.m", "linspace"),
    *("arange", "arange.start", "arange.start_step", "tril_indices", "triu_indices"),
)
_operations = 0
_kinds: dict[int, Any] = {}
_device: torch.device  # known once the backend is registered
_libraries: list[torch.library.Library] = []  # torch forgets what is registered when the library goes


class SecondTensor(Tensor):
    """A tensor on the device "emulated"; `held` is the tensor of the CPU that it stands for."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        """The kind of tensor, for inference or for autograd, is that of what is held."""
        if held.is_inference() == torch.is_inference_mode_enabled():
            return cls._around(held)
        with torch.inference_mode(held.is_inference()):
            return cls._around(held)

    @classmethod
    def _around(cls, held):
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_device,
        )
        tensor.held = held
        return tensor

    def __repr__(self):
        return f"emulated({self.held!r})"

    @property
    def data(self):
        """The same numbers as a constant; `p.data = x` puts others in their place, as torch's `vector_to_parameters` does."""
        return self.detach()

    @data.setter
    def data(self, tensor):
        self.held = tensor.held

    def tolist(self):
        """Numbers; torch has no way to them from a subclass."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Run one operation of torch on what is held."""
        global _operations
        _operations += 1
        kwargs, kind = kwargs or {}, _kind_of(func)
        if kind.composite:
            return func.decompose(*args, **kwargs)
        if func is torch.ops.aten.copy_.default:
            return _copied(*args)
        result = func(*[_held(x, func) for x in args], **{name: _held(x, func) for name, x in kwargs.items()})
        if kind.changes_shape:
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)  # the same for the tensor's own sizes
        if kind.written:
            return _written(func, kind.written, args, kwargs, result)
        away = "device" in kwargs and kwargs["device"] is not None and torch.device(kwargs["device"]).type != NAME
        return result if away else _on_second(result)


class _Kind(NamedTuple):
    """What an operation does: `written` are the places and names of the arguments that it changes."""

    composite: bool
    changes_shape: bool
    written: list[tuple[int, str]]


def _kind_of(func: Any) -> _Kind:
    kind = _kinds.get(id(func))  # torch keeps every operation for ever, and is slow to hash one
    if kind is None:
        arguments = enumerate(func._schema.arguments)
        written = [(i, x.name) for i, x in arguments if x.alias_info is not None and x.alias_info.is_write]
        kind = _kinds[id(func)] = _Kind(func._can_decompose(), torch.Tag.inplace_view in func.tags, written)
    return kind


def _held(x: Any, func: Any, number: bool = True) -> Any:
    """An argument as the CPU takes it; `number` says whether a 0-dim tensor of the CPU may stand here."""
    kind = type(x)
    if kind is SecondTensor:
        return x.held
    if kind is int or kind is float or kind is bool or x is None:
        return x
    if isinstance(x, Tensor):
        if x.ndim or not number:
            raise RuntimeError(f"{func} meets tensors of two devices: {NAME} and {x.device}, of shape {tuple(x.shape)}")
        return x
    if kind is torch.Generator:
        raise RuntimeError(f"{func} on {NAME} draws from a generator of another device: {x.device}")
    if isinstance(x, list | tuple):
        return [_held(y, func, number=False) for y in x]
    return _CPU if kind is torch.device and x.type == NAME else x


def _on_second(result: Any) -> Any:
    if isinstance(result, Tensor):
        return SecondTensor(result)
    return type(result)(map(_on_second, result)) if isinstance(result, list | tuple) else result


def _written(func: Any, places: list[tuple[int, str]], args: Any, kwargs: Any, result: Any) -> Any:
    """The arguments that were changed, where the operation returns them."""
    targets = [args[i] if i < len(args) else kwargs[name] for i, name in places]
    if not all(isinstance(target, SecondTensor) for target in targets if isinstance(target, Tensor)):
        raise RuntimeError(f"{func} meets tensors of two devices: it would write from {NAME} to the CPU")
    if isinstance(result, Tensor):
        return targets[0]
    return tuple(targets) if isinstance(result, tuple) else result


def _copied(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """`into.copy_(source)`: the one operation that two devices may share."""
    to, of = (x.held if isinstance(x, SecondTensor) else x for x in (into, source))
    to.copy_(of)
    return into


def _factory(name: str) -> Callable[..., Tensor]:
    base, _, overload = name.partition(".")
    build = getattr(getattr(torch.ops.aten, base), overload or "default")
    return lambda *args, device, pin_memory=None, **kwargs: SecondTensor(build(*args, device=_CPU, **kwargs))


def _zeros(size: list[int], dtype: torch.dtype, **_: Any) -> Tensor:
    """A tangent of forward mode that is 0: torch has a tensor without storage for it, which no other operation can read."""
    return SecondTensor(torch.zeros(size, dtype=dtype))


def _register() -> None:
    global _device
    if _libraries:
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    _device = torch.device(NAME, 0)
    _libraries.append(torch.library.Library("aten", "IMPL"))
    kernels = {name: _factory(name) for name in _FACTORIES} | {"_efficientzerotensor": _zeros, "copy_": _copied}
    for name, kernel in kernels.items():
        _libraries[0].impl(name, kernel, "PrivateUse1")


def missing() -> str:
    """Why there can be no emulated device here; "" where there can."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} takes no backend written in Python"
    if torch.cuda.is_available():
        return "the real thing is here: run with -m cuda"  # a process has one accelerator
    return ""


def operations() -> int:
    """How many operations have run on the device so far, in this process."""
    return _operations


@contextlib.contextmanager
def second_device() -> Iterator[str]:
    """The device's name, for as long as it may be used."""
    _register()
    # a process's first backward pass, which may have been, decides for which devices autograd has threads
    with torch.autograd.set_multithreading_enabled(False):
        yield NAME
