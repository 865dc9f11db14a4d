"""Compiling side by side: all kernels that a call and its backward will launch, before the first of them runs.

A rehearsal runs the functions of a generated module on tensors without memory; what they would launch goes to threads.
Triton's passes, LLVM, ptxas and the C compiler of Triton's launchers leave Python's lock free, so a first call takes
about as long as its slowest kernel.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cache
from typing import Any, NamedTuple

import torch

from scanc_runtime.errors import ArgumentError

_MOST_THREADS = 16


Running = tuple[Callable[..., object], tuple[Any, ...]]
"""A function that runs those of a generated module, and its arguments."""


class Launch(NamedTuple):
    """What a launch would have been given; `within`: the context in which the device is the call's."""

    kernel: Any
    arguments: Sequence[Any]
    named: Mapping[str, Any]
    within: Callable[[], AbstractContextManager[Any]]


class _Here(threading.local):
    """What this thread does: `running` a function, and in a `rehearsal` only noting its launches."""

    running: Running | None = None
    rehearsal: list[Launch] | None = None


here = _Here()
pending: dict[int, list[Future[None]]] = {}
"""By the identity of kernels, what is being compiled of them."""
_begun: set[Hashable] = set()


@cache
def prepare() -> Future[None]:
    """Begins what Triton does once in a process: it hashes its own files, half a GB, and loads its driver."""
    return _submit(_prepare)


def _prepare() -> None:
    with suppress(Exception):  # another version of Triton, or no GPU: compiling will say so, if it matters
        from triton.runtime import driver
        from triton.runtime.cache import triton_key

        triton_key()
        driver.active.get_current_target()


def rehearse() -> None:
    """Begins to compile all that the running function launches, and what is to run after it.

    Raises ArgumentError if a kernel cannot be laid out; else no call fails because of its rehearsal.
    """
    if here.running is None or here.rehearsal is not None:
        return
    function, arguments = here.running
    found: list[Launch] = []
    here.rehearsal = found
    try:
        function(*arguments)
    except ArgumentError:
        raise
    except Exception as error:
        warnings.warn(f"scanc compiles kernels one after the other: {error}", RuntimeWarning, stacklevel=2)
    finally:
        here.rehearsal = None
    prepare()
    for launch in found:
        special = specialization(launch)
        if special not in _begun:
            _begun.add(special)
            pending.setdefault(id(launch.kernel), []).append(_submit(_compile, launch))


def await_kernel(kernel: Any) -> None:
    """Waits until what has begun of a kernel is compiled; what fails the launch itself will say."""
    for future in pending.get(id(kernel), ()):
        future.exception()
    pending.pop(id(kernel), None)


def specialization(launch: Launch) -> Hashable:
    """What launches have in common that Triton compiles one kernel for, and maybe more."""
    given = zip(launch.arguments, launch.kernel.params, strict=False)
    return id(launch.kernel), *[_seen(argument, parameter) for argument, parameter in given], *launch.named.items()


def _seen(argument: Any, parameter: Any) -> Hashable:
    """What Triton looks at: of a number, of a tensor, of a descriptor of one."""
    if isinstance(argument, int) and not parameter.is_constexpr:
        return argument == 1, argument % 16 == 0, argument.bit_length() > 31
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    return (argument.base.dtype, *argument.block_shape) if hasattr(argument, "block_shape") else argument


def _compile(launch: Launch) -> None:
    prepare().exception()  # begun before, so that a thread is at it
    with suppress(Exception), launch.within():
        compiled = launch.kernel.warmup(*launch.arguments, **launch.named, grid=(1,))
        # Some versions of Triton compile a launcher too.  Nothing is loaded here: another thread may capture a graph.
        from triton.runtime import driver

        driver.active.launcher_cls(compiled.src, compiled.metadata)


def _submit(function: Callable[..., None], *arguments: Any) -> Future[None]:
    try:
        return _pool().submit(function, *arguments)
    except RuntimeError:  # Python is about to end and begins no threads: who launches compiles
        done: Future[None] = Future()
        done.set_result(None)
        return done


@cache
def _pool() -> ThreadPoolExecutor:
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    return ThreadPoolExecutor(max_workers=max(2, threads), thread_name_prefix="scanc-compile")


def _forget() -> None:
    """A forked process has none of the threads."""
    _pool.cache_clear()
    prepare.cache_clear()
    pending.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
