"""Fakes that pass the same contract tests as what they stand for. For tests only: nothing that serves imports them."""
