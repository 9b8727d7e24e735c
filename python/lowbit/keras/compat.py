# SPDX-License-Identifier: Apache-2.0
"""Which Keras lowbit's layers work with: version 3.3 or newer on TensorFlow.

`import lowbit` never imports Keras itself; `import tensorflow` mostly has by then. It has not where
TF_USE_LEGACY_KERAS=1 makes Keras 2 TensorFlow's own: a program may import Keras 3 afterwards.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

PACKAGE = "lowbit"  # that its classes are registered under
_OLDEST = (3, 3)  # the first with `autocast` for a single weight


def problem(keras: Any) -> str | None:
    """What keeps this module `keras` from working with lowbit's layers; None if it does work."""
    version = getattr(keras, "__version__", "none")
    if not version[0].isdigit() or tuple(map(int, version.split(".")[:2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return f'need Keras {oldest} or newer, got {version}: pip install "keras>={oldest}"'
    backend = keras.config.backend()
    if backend != "tensorflow":
        return (
            f"need Keras on TensorFlow, got the backend {backend}: "
            "set KERAS_BACKEND=tensorflow before Keras is imported"
        )
    return None


def is_loaded() -> bool:
    """Whether a Keras that works with lowbit is imported already."""
    keras = sys.modules.get("keras")
    return keras is not None and problem(keras) is None


def when_loaded(module: str) -> None:
    """Imports a module that needs Keras as soon as a Keras that works with lowbit is imported."""
    import wrapt  # comes with TensorFlow, without which some of lowbit's commands run

    def notice(_: Any) -> None:
        if is_loaded():
            importlib.import_module(module)

    wrapt.register_post_import_hook(notice, "keras")


def require() -> None:
    """Imports Keras, or says why lowbit's layers do not work with it.

    Raises:
        ImportError: Keras is missing, too old, or runs on another backend.
    """
    import keras

    wrong = problem(keras)
    if wrong:
        raise ImportError(f"lowbit's layers and models {wrong}")
