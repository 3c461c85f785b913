"""Messages of the Open Inference Protocol, V1 and management to core values and back; servers.

Must not make decisions about models, nor open connections to other services.
"""
