"""The pool within real servers, each a process of its own."""
