"""A configuration with LLMs, for the control plane on fakes."""

CONFIG = {
    "pools": {"default": {"workers": 1}},
    "llms": [
        {
            "name": "always",
            "uri": "/models/always",
            "aliases": ["org/always"],
            "adapters": [{"name": "always-sql", "uri": "/models/sql"}],
        },
        {"name": "rare", "uri": "/models/rare", "replicas": {"min": 0}},
    ],
}
