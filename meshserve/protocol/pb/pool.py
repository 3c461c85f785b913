"""The descriptor pool of our generated messages."""

from google.protobuf import descriptor_pool

POOL = descriptor_pool.DescriptorPool()
