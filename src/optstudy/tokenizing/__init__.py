"""From documents to files of token ids: tokenizers, the format of shards, and their making."""
