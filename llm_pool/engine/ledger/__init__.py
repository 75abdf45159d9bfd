"""The rules of the pool: which call gets which connection, and when. Facts go in, orders come out; no I/O."""
