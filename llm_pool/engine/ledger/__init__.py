"""The rules of the pool: which call gets which connection, and when. Pure: facts in, orders out."""
