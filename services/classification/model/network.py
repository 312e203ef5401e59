"""The trained encoder as an ONNX file and back: weights of 7 bits; their products are the same on every processor.

Numbers are rounded to 8 bits on their way into each product, with a scale of their own; weights to 7, so that no
processor's sum of two products overflows 16 bits, which those without a special instruction would cut off.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.classification.model.encoder import CLASSES, SUPERWORDS
from services.classification.model.pretrained import HEADS, NORM_EPSILON, WIDTH
from services.classification.model.superwords import Superwords
from services.classification.model.transformer import Parameters

OPSET: Final = 20
IR_VERSION: Final = 10
WEIGHT_MAX: Final = 63
TABLE_MAX: Final = 127
_CONSTANTS_OF_A_LAYER: Final = 17


class _Graph:
    """Nodes and constants, in the order in which they are needed."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; give the name of its output, or a list of them."""
        names = [f"n{len(self.nodes)}.{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names if outputs > 1 else names[0]

    def linear(self, x: str, part: Parameters) -> str:
        step = np.abs(part["weight"]).max(axis=0) / WEIGHT_MAX
        step[step == 0] = 1
        rounded = np.round(part["weight"] / step).astype(np.int8)
        numbers, scale, zero = self.add("DynamicQuantizeLinear", x, outputs=3)
        product = self.add("MatMulInteger", numbers, self.constant(rounded), zero)
        scale = self.add("Mul", scale, self.constant(step.astype(np.float32)))
        product = self.add("Mul", self.add("Cast", product, to=TensorProto.FLOAT), scale)
        return str(self.add("Add", product, self.constant(part["bias"])))

    def row_of(self, table: npt.NDArray[np.float32], numbers: str) -> str:
        """Look rows of a table up, of which the first stands for nothing."""
        step = np.abs(table).max(axis=1, keepdims=True) / TABLE_MAX
        step[step == 0] = 1
        rounded = np.round(table / step).astype(np.int8)
        rounded[0] = 0
        row = self.add("Cast", self.add("Gather", self.constant(rounded), numbers), to=TensorProto.FLOAT)
        return str(self.add("Mul", row, self.add("Gather", self.constant(step.astype(np.float32)), numbers)))

    def norm(self, x: str, part: Parameters) -> str:
        weight, bias = self.constant(part["weight"]), self.constant(part["bias"])
        return str(self.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=NORM_EPSILON))


def network_of(parameters: Parameters, superwords: Superwords) -> bytes:
    """Write the network that gives one text's scores, (1, 3), from its tokens' vectors and numbers of superwords."""
    graph = _Graph()
    heads = graph.constant(np.array([-1, 3 * HEADS, WIDTH // HEADS]))
    row = graph.constant(np.array([-1, WIDTH]))
    zero, one = graph.constant(np.array([0])), graph.constant(np.array([1]))
    length = graph.add("Slice", graph.add("Shape", "words"), zero, one)
    positions = graph.add("Slice", graph.constant(parameters["positions"]), zero, length)
    words = graph.add("Add", "words", graph.row_of(parameters["superwords"], "superwords"))
    x = graph.norm(graph.add("Add", words, positions), parameters["norm"])
    layers = parameters["layers"]
    for number in range(len(layers["qkv"]["bias"])):
        layer = {name: {kind: array[number] for kind, array in part.items()} for name, part in layers.items()}
        x = _layer(graph, x, layer, heads, row)
    mean = graph.add("ReduceMean", x, zero, keepdims=1)
    weight, bias = (graph.constant(parameters["head"][kind]) for kind in ("weight", "bias"))
    graph.nodes.append(helper.make_node("Gemm", [mean, weight, bias], ["scores"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoder",
            [
                helper.make_tensor_value_info("words", TensorProto.FLOAT, ["tokens", WIDTH]),
                helper.make_tensor_value_info("superwords", TensorProto.INT64, ["tokens"]),
            ],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(CLASSES)])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {SUPERWORDS: json.dumps(superwords.runs, separators=(",", ":"))})
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _layer(graph: _Graph, x: str, layer: Parameters, heads: str, row: str) -> str:
    parts = graph.add("Transpose", graph.add("Reshape", graph.linear(x, layer["qkv"]), heads), perm=[1, 0, 2])
    query, key, value = graph.add("Split", parts, outputs=3, axis=0, num_outputs=3)
    query = graph.add("Mul", query, graph.constant(np.float32(1 / math.sqrt(WIDTH // HEADS)).reshape(1)))
    weight = graph.add("Softmax", graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 2, 1])), axis=-1)
    seen = graph.add("Transpose", graph.add("MatMul", weight, value), perm=[1, 0, 2])
    attended = graph.linear(graph.add("Reshape", seen, row), layer["attention"])
    x = graph.norm(graph.add("Add", x, attended), layer["attention_norm"])
    inner = graph.add("Gelu", graph.linear(x, layer["inner"]))
    return graph.norm(graph.add("Add", x, graph.linear(inner, layer["outer"])), layer["outer_norm"])


def parameters_of(network: bytes) -> tuple[Parameters, Superwords]:
    """Read back, as rounded, the parameters and superwords that `network_of` wrote: its constants in their order."""
    model = onnx.load_from_string(network)
    constants = iter([numpy_helper.to_array(constant) for constant in model.graph.initializer])
    for _ in ("heads", "row", "zero", "one"):
        next(constants)
    positions, table, step = next(constants), next(constants), next(constants)
    norm = _norm_of(constants)
    parts = [_layer_of(constants) for _ in range(len(model.graph.initializer) // _CONSTANTS_OF_A_LAYER)]
    stacked = {
        name: {kind: np.stack([part[name][kind] for part in parts]) for kind in parts[0][name]} for name in parts[0]
    }
    parameters = {
        "positions": positions,
        "superwords": table.astype(np.float32) * step,
        "norm": norm,
        "layers": stacked,
        "head": {"weight": next(constants), "bias": next(constants)},
    }
    told = {entry.key: entry.value for entry in model.metadata_props}
    return parameters, Superwords(map(tuple, json.loads(told[SUPERWORDS])))


def _layer_of(constants: Iterator[npt.NDArray[Any]]) -> Parameters:
    qkv = _linear_of(constants)
    next(constants)  # the root of a head's width
    return {
        "qkv": qkv,
        "attention": _linear_of(constants),
        "attention_norm": _norm_of(constants),
        "inner": _linear_of(constants),
        "outer": _linear_of(constants),
        "outer_norm": _norm_of(constants),
    }


def _linear_of(constants: Iterator[npt.NDArray[Any]]) -> Parameters:
    rounded, step, bias = next(constants), next(constants), next(constants)
    return {"weight": rounded.astype(np.float32) * step, "bias": bias}


def _norm_of(constants: Iterator[npt.NDArray[Any]]) -> Parameters:
    return {"weight": next(constants), "bias": next(constants)}
