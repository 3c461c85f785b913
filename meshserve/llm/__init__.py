"""LLM servers: an engine, its app on sockets, and a watch over it. No Ray; one file speaks to vLLM, and no other imports it."""
