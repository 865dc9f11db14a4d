"""The naive loop over IR: the definition of the language and the oracle of every test.

It shares no arithmetic with `codegen` and knows of no pass.
"""

from scanc.interpreter.loop import interpret
from scanc.interpreter.samples import random_arguments

__all__ = ["interpret", "random_arguments"]
