import os

import numpy as np
import pytest
import routing
import served
import tiny


def figures(requests_per_s, cpu_us):
    return routing.Figures(requests_per_s, 1.0, 2.0, cpu_us, 0.5, 0.9)


def test_medians_are_of_each_figure():
    rounds = [{"a": figures(rate, cpu)} for rate, cpu in ((1, 30), (3, 10), (2, 20))]
    assert routing.medians(rounds) == {"a": figures(2, 20)}


@pytest.mark.parametrize(("rate", "cpu_us", "reached"), [(180, 220, [True, True]), (179, 221, [False, False])])
def test_targets_are_held_against_the_bare_server(rate, cpu_us, reached):
    both = {"meshserve": figures(rate, cpu_us), "bare grpc.aio": figures(100, 300)}
    assert list(routing.targets(both).values()) == reached


@pytest.mark.edge
def test_the_bare_server_answers_what_onnx_runtime_does(tmp_path):
    tiny.write(tmp_path / "tiny.onnx", 1)
    endpoint = f"127.0.0.1:{served.free_port()}"
    with routing.bare_server(tmp_path, endpoint) as system:
        system.wait_until(lambda: routing.answers(endpoint), 30)
        routing.check(endpoint, tmp_path / "tiny.onnx")
        tiny.write(tmp_path / "other.onnx", 2)
        with pytest.raises(AssertionError):
            routing.check(endpoint, tmp_path / "other.onnx")


def test_the_request_names_the_model_and_carries_its_row():
    message = routing.pb.ModelInferRequest.FromString(routing.request_body()[5:])
    assert message.model_name == "tiny"
    np.testing.assert_array_equal(np.frombuffer(message.raw_input_contents[0], np.float32), routing.X[0])


def test_cpu_is_told_by_process_title():
    mine = os.getpid()
    shares = routing.cpu_us_by_process({mine: 1.0}, {mine: 1.5, -1: 0.25}, requests=1000)
    assert list(shares.values()) == [500.0, 250.0]
    assert "gone" in shares
