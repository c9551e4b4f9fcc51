"""How a history is changed without being rewritten: what is hidden, and what a fork reads of its parents."""
