"""LLM servers: each runs an engine, serves the engine's app on sockets, and watches the engine.

Nothing here imports Ray, and one file imports vLLM, only when an engine starts. Read `llm_server`
first, then `llm_app` (the requests) and `progress` (stalls and rates). The rest is about vLLM:
`vllm_engine`, `vllm_args`, `vllm_env`, `vllm_metrics`, `crash_log` and `process_tree`.
"""
