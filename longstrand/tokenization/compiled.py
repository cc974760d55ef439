"""The one place that imports numba: machine code, kept in our cache folder, that releases the interpreter lock.

No ``parallel=True`` anywhere: an OpenMP region would kill data loading workers that are forked later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar, cast

from longstrand.runtime import prepare_numba

prepare_numba()

import numba  # noqa: E402

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function on first use; where no cache can be written, compile it in every process."""
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError as error:
        logger.info("numba cannot cache %s: %s", function.__name__, error)
        return cast(Function, numba.njit(nogil=True)(function))
