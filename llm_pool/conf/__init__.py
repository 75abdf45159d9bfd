"""The settings of Django that this package reads, as frozen values. No other part of it reads them.

Nothing is imported here, so that reading the settings beside ``LLM_POOL`` does not load the providers.
"""
