"""The rules: who gets which connection, and when. Pure: facts in, orders out."""
