from meshserve.llm import replica_address


def test_its_socket_is_in_its_folder_and_short_whatever_it_is_called():
    where = replica_address.ReplicaAddress(
        "company/a-model-with-a-long-name" * 10 + "/0", "/run/mesh"
    )
    assert where.socket_path.startswith("/run/mesh/llm-")
    assert len(where.socket_path) < 50


def test_replicas_have_sockets_of_their_own():
    assert (
        replica_address.ReplicaAddress("a/0", "/run").socket_path
        != replica_address.ReplicaAddress("a/1", "/run").socket_path
    )
