"""The edge to the wire: Open Inference Protocol, V1 and management messages ↔ core values. It decides nothing and opens nothing."""
