"""What lies beyond the audit, by name, as its documentation says: these pass, and each does multiply."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from audited import IMAGES, Applies, Fires, small
from test_exits import between
from torch import Tensor, nn

from snnmlp_edu import InputError
from snnmlp_edu.mfi import audit
from snnmlp_edu.mfi.events.tables import is_watched


def shift_and_add(s: Tensor) -> Tensor:
    """Three times a count of spikes, and that times another count, by the digits of the second."""
    one, other = s.cumsum(1), s.flip(1).cumsum(1).int()
    products = torch.zeros_like(one)
    for digit in range(4):
        products = products + torch.where(((other >> digit) & 1) > 0, one * 2**digit, 0.0)
    return products


def table_of_products(s: Tensor) -> Tensor:
    counts = torch.arange(9.0)
    return torch.outer(counts, counts)[s.cumsum(1).long(), s.flip(1).cumsum(1).long()]


def other_thread(s: Tensor) -> Tensor:
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(float(s.sum())))
    thread.start()
    thread.join()
    return s * 2.0 ** (found[0] % 3)


class Capsule:
    """Shows NumPy a tensor's memory by a raw capsule."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return torch.utils.dlpack.to_dlpack(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def capsule(s: Tensor) -> Tensor:
    return s * 2.0 ** (float(np.from_dlpack(Capsule(s)).sum()) % 3)


def modes_off(s: Tensor) -> Tensor:
    found = s.nonzero()
    with torch._C.DisableTorchFunction():
        length = found.shape[0]
    return s * 2.0 ** (length % 3)


def behaves(s: Tensor) -> Tensor:
    return s if is_watched() else s * s.sum()


BEYOND: dict[str, Callable[[Tensor], Tensor]] = {
    "shift-and-add": shift_and_add,
    "table of products": table_of_products,
    "another thread": other_thread,
    "a capsule": capsule,
    "modes switched off": modes_off,
    "a model that asks whether it is watched": behaves,
}


@pytest.mark.parametrize("function", BEYOND.values(), ids=BEYOND)
def test_beyond_the_statement(function: Callable[[Tensor], Tensor]) -> None:
    assert audit(between(function), IMAGES).multiplication_free


def test_shift_and_add_and_the_table_give_products() -> None:
    spikes = small()[:2](IMAGES)
    products = spikes.cumsum(1) * spikes.flip(1).cumsum(1)
    assert torch.equal(shift_and_add(spikes), products)
    assert torch.equal(table_of_products(spikes), products)


def test_bits_through_yes_and_no_hold_for_these_inputs() -> None:
    def spelled(s: Tensor) -> Tensor:
        count = s.sum().int()
        number = sum(2**digit for digit in range(5) if bool(((count >> digit) & 1) > 0))
        return s * 2.0**number

    report = audit(between(spelled), IMAGES)
    assert report.multiplication_free
    assert report.verdict().endswith("5 of them only for the inputs seen")


def test_memory_got_hold_of_before() -> None:
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))
            self.outside = self.count.numpy()

        def forward(self, s: Tensor) -> Tensor:
            self.count.copy_(s.sum())
            return s * 2.0 ** (float(self.outside[0]) % 3)

    assert audit(small(Before(), Fires(0.5)), IMAGES).multiplication_free


# --- several threads, and models that fail ----------------------------------------------------------------


def test_two_audits_in_two_threads() -> None:
    """Each names its own modules, although both run at once, and nothing is left behind."""
    meet = threading.Barrier(2, timeout=20)
    reports: dict[str, Any] = {}

    def waits(s: Tensor) -> Tensor:
        meet.wait()  # both audits watch by now
        shifted = s * 0.5
        meet.wait()
        return shifted

    def run(name: str) -> None:
        model = nn.Sequential()
        for part, module in enumerate(small(Applies(waits), Fires(0.5))):
            model.add_module(f"{name}{part}", module)
        reports[name] = audit(model.eval(), IMAGES)

    call = nn.Module.__call__
    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("first", "second"):
        rows = [row for row in reports[name].layers if row.name != "aten.t"]
        assert [row.path for row in rows] == [f"{name}{part}" for part in (0, 1, 1, 2, 3, 3, 4)]
        assert reports[name].multiplication_free
    assert nn.Module.__call__ is call
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_another_thread_is_not_watched() -> None:
    """Modules that other threads run while an audit watches are none of its rows."""
    done, go = threading.Event(), threading.Event()
    other = small(nn.Sigmoid())

    def elsewhere() -> None:
        go.wait(20)
        other(IMAGES)
        done.set()

    def waits(s: Tensor) -> Tensor:
        go.set()
        done.wait(20)
        return s

    thread = threading.Thread(target=elsewhere)
    thread.start()
    report = audit(between(waits), IMAGES)
    thread.join()
    assert report.multiplication_free, report


class Stops(BaseException):
    """An error that is no `Exception`."""


def stop(s: Tensor) -> Tensor:
    raise Stops("first line\nsecond line")


def leave(s: Tensor) -> Tensor:
    raise SystemExit("enough")


def forever(s: Tensor) -> Tensor:
    return forever(s)


FAILS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "own error": (stop, r"\(first line\)"),
    "exit": (leave, "enough"),
    "recursion": (forever, "recursion"),
    "nothing": (lambda s: None, "NoneType"),
    "nested tensors": (lambda s: torch.nested.nested_tensor([s[0], s[1]]).shape, "NestedTensor"),
    "numbers of a vmap": (torch.vmap(lambda row: row * row.sum().item()), "vmap"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(("function", "reason"), FAILS.values(), ids=FAILS)
def test_a_model_that_fails_is_an_error_of_one_line(function: Callable[[Tensor], Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        audit(between(function), IMAGES)
    assert "\n" not in str(caught.value)
    assert torch._C._len_torch_dispatch_stack() == torch._C._len_torch_function_stack() == 0


@pytest.mark.parametrize(
    ("model", "images", "reason"),
    [
        (lambda x: x, IMAGES, "torch.nn.Module"),
        (nn.LazyLinear(3).eval(), IMAGES.to_sparse(), "sparse"),
        (nn.Linear(4, 2, device="meta").eval(), IMAGES, "meta|device"),
    ],
)
def test_what_cannot_be_judged_is_an_error(model: Any, images: Tensor, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        audit(model, images)
