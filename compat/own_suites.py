"""Runs of the peers' own suites, unchanged but for addresses. They are made by hand."""

from __future__ import annotations

NOT_RUN = "not run: {}"
RUNS: dict[tuple[str, str], str] = {
    ("Triton", "inference, ONNX"): (
        "L0_infer, ONNX: 41 of 41; L0_client_nobatch: 4 of 4; L0_initializer_as_input: 2 of 2; "
        "L0_input_validation: 3 of 13, 8 other words, shared memory, a model that is not here "
        "(2026-11-28)"
    ),
    ("Triton", "inference, TorchScript"): (
        "L0_infer, libtorch: 34 of 41; 7 take texts (2026-11-28)"
    ),
    ("Triton", "Python backend"): "L0_infer, python: 41 of 41 (2026-11-28)",
    ("Triton", "variable dims"): (
        "L0_infer_variable: 15 of 21; 5 are of TensorRT, 1 of texts in TorchScript; "
        "without these 21 of 21 (2026-11-28)"
    ),
    ("Triton", "zero sizes"): (
        "L0_infer_zero: ONNX 8 of 28, libtorch 18 of 28, the rest goes on to ensembles; "
        "without these 28 of 28 each (2026-11-28)"
    ),
    ("Triton", "reshape"): (
        "L0_infer_reshape: 3 of 8; ensembles, TensorRT, texts in TorchScript; "
        "without these 8 of 8 (2026-11-28)"
    ),
    ("Triton", "scalars"): "L0_scalar_io: 1 of 1 (2026-11-28)",
    ("Triton", "NaN and infinities"): (
        "L0_nan_inf: 3 of 3, with numpy 2's name of -inf (2026-11-28)"
    ),
    ("Triton", "image_client"): (
        "image_client.py and grpc_image_client.py: 25 of 25, with densenet_onnx, inception_onnx "
        "and two batched folders, weights of our own (2026-11-28)"
    ),
    ("Triton", "explicit contents"): "grpc_explicit_*.py, grpc_client.py: 4 of 4 (2026-11-28)",
    ("Triton", "examples"): (
        "simple_*.py, reuse_infer_objects_client.py and others: 10 of 26; 5 shared memory, "
        "4 sequences, 2 the server's name, 2 the number of models in the repository (without "
        "that check: both pass), 1 decoupled, 1 ensemble, 1 a C++ backend (2026-11-28)"
    ),
    ("Triton", "repository"): (
        "python_http_aio_test.py: 14 of 18, python_grpc_aio_test.py: 12 of 18; the server's name, "
        "the number of models, no control mode `none`, shared memory (2026-11-28)"
    ),
    ("Triton", "raw binary requests"): (
        "http_test.py: 9 of 17; 3 other words, 2 expect 500 where 400 is given, 1 sends "
        "Transfer-Encoding beside Content-Length, 1 needs a queue's policy, 1 expects that JSON "
        "of 120 levels is refused (2026-11-28)"
    ),
    ("MLServer", "documented requests"): NOT_RUN.format("its tests run in its own process"),
    ("KServe", "V2 requests"): NOT_RUN.format("its e2e tests need Kubernetes"),
    ("ModelMesh", "sample folders"): NOT_RUN.format("its tests need Go and Kubernetes"),
}
"""What a suite gave, by the peer and kind of the row that it belongs to."""
