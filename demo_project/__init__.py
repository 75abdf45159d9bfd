"""A demo of llm_pool: a chat page and an agent page. Start it with ``python -m demo_project``."""
