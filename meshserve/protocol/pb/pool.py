"""The descriptor pool of our generated messages."""

from google.protobuf import descriptor_pool

# Not the default pool, in which tritonclient's messages have the same names.
POOL = descriptor_pool.DescriptorPool()
