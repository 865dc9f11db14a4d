"""The limits on what a spec may ask of the compiler; each has a clear error."""

SOURCE_CHARS = 100_000
NESTING = 100  # levels of an expression, functions written out
NUMBER_CHARS = 40
NAME_CHARS = 64
AXES = 32
EXPRESSIONS = 20_000  # evaluated ones, functions and loops written out
IMPORT_DEPTH = 8
DELAY = 256  # time steps that `prev` and `conv` reach back
BRACKETS = 200  # open at once
ERRORS = 20  # reported of one spec
