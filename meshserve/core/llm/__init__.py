"""LLMs: how many replicas run, on which GPUs, which LLM has its turn, and which requests wait.

Read in this order:

1. `llms`: what happens to LLMs, in the order of the decisions; answers to held requests.
2. `llm_reconcile`: the number of replicas of one LLM, and the next step of each of them.
3. `llm_fleet`: the state of all LLMs together, which events change and decisions read.
4. `llm_state`: one LLM, with the requests that wait for it; `replica_state`: one replica, with
   the table of its lifecycle.
5. `gpu_bookings`: which GPUs each replica has. `gpu_time_sharing`: which LLM of a group that
   shares GPUs may be awake.
"""
