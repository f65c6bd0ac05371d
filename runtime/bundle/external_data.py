"""Finds the files that an ONNX model takes weights from, without the package onnx.

Only the fields on the way to a tensor are read, so that 2 GB of weights are skipped and not copied. Source: onnx.proto
of ONNX 1.21; the wire format of protocol buffers.
"""

from collections.abc import Iterator

# Message -> field -> what it holds. Of a tensor, 13 is external_data and 14 data_location.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
MAX_DEPTH = 100  # of messages in messages; loops in loops in loops need about 20


def external_files(model: bytes) -> set[str]:
    """Return the locations that the tensors of a model name, as they stand there.

    Raises:
        ValueError: the bytes are no protocol buffer.
    """
    found = set[str]()
    pending = [("model", 0, len(model), 0)]
    while pending:
        message, start, end, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ValueError("its messages are nested too deeply")
        for number, begin, finish in _fields(model, start, end):
            inner = _FIELDS[message].get(number)
            if inner == "external":
                entry = {field: model[a:b] for field, a, b in _fields(model, begin, finish)}
                if entry.get(1) == b"location":
                    found.add(entry.get(2, b"").decode("utf-8", "surrogateescape"))
            elif inner is not None:
                pending.append((inner, begin, finish, depth + 1))
    return found


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of each field that has a length; others are skipped."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(data, at, end)
            if at + size > end:
                raise ValueError("a field is longer than its message")
            yield number, at, at + size
            at += size
        else:
            raise ValueError(f"it has a field of wire type {wire}")
    if at > end:
        raise ValueError("a field is longer than its message")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number does not end")
