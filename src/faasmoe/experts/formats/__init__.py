"""Weight formats: one module each, which defines `FORMAT`. `base` is their protocol, `registry` finds them.

A format that `--quantize` offers is named here as well, because the command line checks its options before torch is
imported.
"""

CONVERSIONS = ("int8",)  # formats that `--quantize` can convert a checkpoint to
