"""Model providers: each turns a conversation into a streamed reply."""
