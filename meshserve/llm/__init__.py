"""LLM servers: an engine, its app on sockets, and the watch over it.

No Ray here; one file imports vLLM, and only when an engine starts. Read `llm_server` first, then
`llm_app` (the requests) and `progress` (stalls and rates). The rest is about vLLM: `vllm_engine`,
`vllm_args`, `vllm_env`, `vllm_metrics`, `crash_log` and `process_tree`.
"""
