# SPDX-License-Identifier: Apache-2.0
"""Keeps AutoGraph, which `tf.function` applies to all that it calls, out of lowbit's own code.

There is nothing to convert, and no source where a package is shipped without. What a user hands in,
such as a `backward`, is converted all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

_F = TypeVar("_F", bound=Callable[..., Any])


def leave(function: _F) -> _F:
    """Marks a function as one that is called as it is.

    What `tf.autograph.experimental.do_not_convert` does, without a wrapper.
    """
    function.autograph_info__ = None  # type: ignore[attr-defined]
    return function


def convert(function: _F) -> _F:
    """A function of the user's as AutoGraph would have made it, if it converted the caller."""
    autograph = tf.__internal__.autograph
    return autograph.tf_convert(function, autograph.control_status_ctx())
