"""Formats with eight codes in an int32, which no kernel reads: a copy in `grouped_int4` is made and used instead."""
