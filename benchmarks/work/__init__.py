"""The kinds of work: what a client does in a workload, and how that is measured."""
