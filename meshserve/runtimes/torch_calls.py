"""Records the operators that a torch program calls, with the shapes of what they take and give.

The program is run under a dispatch mode, which sees every ATen operator with its arguments, whether
TorchScript or `torch.export` wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Call:
    """One call of an operator. Tensors in `arguments` and `results` are `SeenTensor`s."""

    operator: Any
    arguments: dict[str, Any]
    results: list[SeenTensor]


@dataclass(frozen=True, slots=True)
class SeenTensor:
    """A tensor of a run: `number` by the order of first appearance."""

    number: int
    shape: tuple[int, ...]


class Recording:
    """The calls of one run, and the numbers of its tensors.

    `constants` are the tensors that no seen operator made, such as weights.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        self.calls: list[Call] = []
        self.constants: dict[int, Any] = {}

    def tensor(self, value: Any) -> SeenTensor:
        """Return the tensor's number and shape; it stays alive, so its identity stays its own."""
        number = self._numbers.setdefault(id(value), len(self._numbers))
        self._kept.append(value)
        return SeenTensor(number, tuple(value.shape))

    def describe(self, value: Any, *, is_result: bool = False) -> Any:
        """Return an argument or a result with `SeenTensor`s in the place of tensors."""
        if isinstance(value, self._torch.Tensor):
            if not is_result and id(value) not in self._numbers:
                # This is the number that `tensor` gives it next.
                self.constants[len(self._numbers)] = value
            return self.tensor(value)
        if isinstance(value, (list, tuple)):
            return [self.describe(element, is_result=is_result) for element in value]
        return value

    def record(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call the operator and keep what it took and gave."""
        parameters = operator._schema.arguments  # noqa: SLF001 the only description of operators
        # TorchScript passes plain numbers where operators take tensors.
        args = [
            self._torch.tensor(value)
            if isinstance(value, (int, float)) and str(parameter.type) == "Tensor"
            else value
            for value, parameter in zip(args, parameters, strict=False)
        ]
        arguments = {parameter.name: parameter.default_value for parameter in parameters}
        # A call may leave out arguments that have defaults, and give others by name.
        arguments |= zip([parameter.name for parameter in parameters], args, strict=False)
        described = {
            name: self.describe(value) for name, value in (arguments | dict(keywords)).items()
        }
        result = operator(*args, **keywords)
        self.calls.append(
            Call(operator, described, list(tensors_in(self.describe(result, is_result=True))))
        )
        return result


def is_random(operator: Any) -> bool:
    """Return whether equal calls of the operator give different results."""
    return any(tag.name == "nondeterministic_seeded" for tag in operator.tags)


def tensors_in(value: Any) -> Sequence[SeenTensor]:
    """Return the tensors of an argument, in their order."""
    if isinstance(value, SeenTensor):
        return [value]
    if isinstance(value, list):
        return [tensor for element in value for tensor in tensors_in(element)]
    return []


def recording_mode(torch: Any, recording: Recording) -> Any:
    """Return the dispatch mode that hands each call of an operator to the recording."""

    # In a function, because its base is there only once torch is imported, which takes seconds.
    class Mode(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc] # noqa: SLF001
        def __torch_dispatch__(
            self, operator: Any, _types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return recording.record(operator, args, kwargs or {})

    return Mode()
