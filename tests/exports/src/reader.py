"""Runs models for the tests: one request per line on stdin, one answer per line on stdout.

A request names a runtime, a model file, and a file with the bytes of each input; the outputs are written next to it.
"""

import json
import sys

import numpy


# Each model has its own folder and is run with batches of several sizes: keep the last one open.
open_session = (None, None)


def run_onnx(model, inputs, request):
    global open_session
    import onnx
    import onnxruntime

    if open_session[0] != model:
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        open_session = (model, onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]))
    session = open_session[1]
    values = session.get_inputs()
    assert len(values) == len(inputs), f"{len(values)} inputs, not {len(inputs)}"
    return session.run(None, {value.name: given for value, given in zip(values, inputs)})[0]


def run_tflite(model, inputs, request):
    from ai_edge_litert.interpreter import Interpreter

    (inputs,) = inputs
    interpreter = Interpreter(model_path=model, num_threads=1)
    (value,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(value["index"], inputs.shape, strict=True)
    interpreter.allocate_tensors()
    (value,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    interpreter.set_tensor(value["index"], to_type(inputs, value))
    interpreter.invoke()
    return from_type(interpreter.get_tensor(output["index"]), output)


def to_type(values, detail):
    """Quantizes the inputs of an integer model."""
    scale, zero = detail["quantization"]
    if values.dtype == numpy.float32 and detail["dtype"] == numpy.int8:
        return numpy.clip(numpy.round(values / scale) + zero, -128, 127).astype(numpy.int8)
    return values.astype(detail["dtype"])


def from_type(values, detail):
    scale, zero = detail["quantization"]
    if values.dtype == numpy.int8 and scale:
        return ((values.astype(numpy.float32) - zero) * scale).astype(numpy.float32)
    return values


def operators(model):
    """The operators of a TFLite file, as written, without delegates."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=model, experimental_op_resolver_type=plain)
    return [operator["op_name"] for operator in interpreter._get_ops_details()]


def origin(model, kind):
    """What a file says about its run, as one object."""
    if kind == "onnx":
        import onnx

        texts = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
        return {key: value if key in ("run", "run_file") else json.loads(value) for key, value in texts.items()}
    from ai_edge_litert import schema_py_generated as schema

    with open(model, "rb") as file:
        tables = schema.ModelT.InitFromPackedBuf(file.read(), 0)
    (entry,) = [entry for entry in tables.metadata if entry.name == b"training_run"]
    return json.loads(bytes(tables.buffers[entry.buffer].data))


RUNTIMES = {"onnx": run_onnx, "tflite": run_tflite}


def answer(request):
    if request["runtime"] == "operators":
        return {"operators": operators(request["model"])}
    if request["runtime"] == "origin":
        return {"origin": origin(request["model"], request["kind"])}
    inputs = [numpy.fromfile(given["path"], given["dtype"]).reshape(given["shape"]) for given in request["inputs"]]
    if request["transpose"]:
        inputs = [numpy.ascontiguousarray(given.transpose(request["transpose"])) for given in inputs]
    outputs = RUNTIMES[request["runtime"]](request["model"], inputs, request)
    outputs.astype(numpy.float32).tofile(request["outputs"])
    return {"shape": outputs.shape}


for line in sys.stdin:
    try:
        reply = answer(json.loads(line))
    except Exception as error:  # Any error of a runtime is the answer.
        reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), flush=True)
