"""The same store for asyncio."""
