"""A small shop window for llm_pool: a chat page and an agent page. ``python -m demo_project`` opens it."""
