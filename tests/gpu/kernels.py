"""A graph of clipd on ONNX Runtime by itself, as clipd runs it: inputs and outputs stay in the device's memory."""

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
from rates import rate


def export(clipd, model, folder, precision, operators):
    """The directory of the graphs in a form."""
    out = Path(folder) / "graphs"
    command = [clipd, "export", f"--model={model}", f"--out={out}", f"--precision={precision}", f"--operators={operators}"]
    subprocess.run(command, check=True, capture_output=True)
    return out


class Kernels:
    """Options are those of the CUDA provider beside clipd's own."""

    def __init__(self, graph, device, options):
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._on_gpu = device != "cpu"
        providers = ["CPUExecutionProvider"]
        self._graphs = self._on_gpu and options.get("enable_cuda_graph", 1)
        if self._on_gpu:
            ours = {"arena_extend_strategy": "kSameAsRequested", "use_tf32": 0, "enable_cuda_graph": 1}
            providers = [("CUDAExecutionProvider", {"device_id": int(device.split(":")[1]), **ours, **options})]
            settings.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(graph), settings, providers=providers)
        (self._input,), (self._output,) = self._session.get_inputs(), self._session.get_outputs()
        self._bound = {}

    def embed(self, rows):
        call, source, result = self._bind(rows)
        source.update_inplace(rows)
        call()
        return result.numpy().copy()

    def rate(self, rows):
        call, _, result = self._bind(rows)
        return rate(lambda: (call(), result.numpy()), len(rows))

    def _bind(self, rows):
        """What runs batches of this shape, and its tensors. The first run records it."""
        if rows.shape not in self._bound:
            place = ("cuda" if self._on_gpu else "cpu", 0)
            source = ort.OrtValue.ortvalue_from_numpy(rows.copy(), *place)
            result = ort.OrtValue.ortvalue_from_shape_and_type([len(rows), self._output.shape[1]], np.float32, *place)
            binding, options = self._session.io_binding(), ort.RunOptions()
            binding.bind_ortvalue_input(self._input.name, source)
            binding.bind_ortvalue_output(self._output.name, result)
            if self._graphs:
                options.add_run_config_entry("gpu_graph_id", str(len(self._bound)))
            self._bound[rows.shape] = lambda: self._session.run_with_iobinding(binding, options), source, result
        return self._bound[rows.shape]
