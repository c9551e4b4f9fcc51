"""Runs of an agent: who holds a session, until when, and what is done about one that ended badly."""
