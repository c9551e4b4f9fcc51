"""How transcripts of other programs come in: sources, batches, lineage, and what is told of them."""
