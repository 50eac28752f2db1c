"""Loading weights without holding them: the rank reads the safetensors file itself.

The client reads the header alone, to know names, shapes and types. transformers is served at its own
reader: where it would open a checkpoint for the device "djinn" it gets a GhostFile, whose slices become
tensors on the rank when taken. Renames, casts, merges and ties then are ops on those tensors, and no
loading logic is copied here.
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import struct
import sys
import threading

import torch

from . import _C, _device, _state
from ._errors import FileError

_HEADER_MAX = 100 << 20
_TYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64,
}


def read_header(path):
    """The header of a safetensors file, checked: {name: {"dtype", "shape", "data_offsets"}}."""
    try:
        with open(path, "rb") as file:
            first = file.read(8)
            if len(first) < 8:
                raise FileError(f"{path}: shorter than a safetensors header", -17)
            (size,) = struct.unpack("<Q", first)
            if size > _HEADER_MAX:
                raise FileError(f"{path}: header of {size} bytes, at most {_HEADER_MAX}", -17)
            text = file.read(size)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: {error.strerror}", -17) from error
    if len(text) < size:
        raise FileError(f"{path}: header cut off after {len(text)} of {size} bytes", -17)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise FileError(f"{path}: header is no JSON: {error}", -17) from error
    if not isinstance(header, dict):
        raise FileError(f"{path}: header is no JSON object", -17)
    return header


class GhostFile:
    """Stands where safetensors.safe_open() stands, for one file."""

    def __init__(self, path):
        self.path = os.path.realpath(path)  # a hub cache is made of links
        header = read_header(self.path)
        self._metadata = header.pop("__metadata__", None)
        self._header = header
        self._tensors = None
        self._lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._tensors = None

    def keys(self):
        return list(self._header)

    def metadata(self):
        return self._metadata

    def get_slice(self, name):
        return GhostSlice(self, name, self._header[name])

    def get_tensor(self, name):
        """All tensors of the file are asked for in one message, at the first need of one."""
        if name not in self._header:
            raise FileError(f"{self.path} has no tensor {name}", -17)
        with self._lock:
            if self._tensors is None:
                self._tensors = dict(zip(self._header, _load(self.path, list(self._header))))
            return self._tensors[name]


def _load(path, names):
    if _state.mode == "local":  # this process is the one that computes, so it is the one that holds
        from safetensors import safe_open

        before = _C.uploading_weights(True)
        try:
            with safe_open(path, framework="pt") as file:
                return [file.get_tensor(name).to(_device.DEVICE) for name in names]
        finally:
            _C.uploading_weights(before)
    tensors = []
    for start in range(0, len(names), 4096):
        tensors += _C.load_many(path, names[start : start + 4096])
    return tensors


class GhostSlice:
    """A tensor of a file that has not been loaded anywhere yet."""

    def __init__(self, file, name, entry):
        self._file, self._name, self._entry = file, name, entry

    def get_shape(self):
        return list(self._entry["shape"])

    def get_dtype(self):
        return self._entry["dtype"]

    @property
    def shape(self):
        return torch.Size(self._entry["shape"])

    @property
    def dtype(self):
        return _TYPES[self._entry["dtype"]]

    def __getitem__(self, index):
        tensor = self._file.get_tensor(self._name)
        return tensor if index is Ellipsis else tensor[index]


def load_safetensors(path):
    """{name: tensor on the device}; the rank reads the file, whose path it must see as this process does."""
    file = GhostFile(path)
    return {name: file.get_tensor(name) for name in file.keys()}


def from_pretrained(model_class, path, **kwargs):
    """model_class.from_pretrained(path) with its weights on the device and no weight byte here."""
    import transformers  # noqa: F401  (patched on import)

    return model_class.from_pretrained(path, device_map=_device.DEVICE, **kwargs).eval()


# ---- transformers ----

_loading = threading.local()


def _wants_ghost(device_map):
    if isinstance(device_map, dict):
        return len(device_map) > 0 and all(_is_ours(value) for value in device_map.values())
    return _is_ours(device_map)


def _is_ours(device):
    return isinstance(device, (str, torch.device)) and str(device).split(":")[0] == _device.DEVICE


def patch_transformers(modeling):
    """modeling: the module transformers.modeling_utils."""
    original_open = modeling.safe_open
    original_map = modeling.check_and_set_device_map
    original_load = modeling.PreTrainedModel.from_pretrained.__func__

    @functools.wraps(original_open)
    def safe_open(path, *args, **kwargs):
        return GhostFile(path) if getattr(_loading, "depth", 0) else original_open(path, *args, **kwargs)

    @functools.wraps(original_map)
    def check_and_set_device_map(device_map):
        if _wants_ghost(device_map):  # one device: no need of accelerate
            return {"": torch.device(_device.DEVICE)}
        return original_map(device_map)

    @functools.wraps(original_load)
    def from_pretrained(cls, *args, **kwargs):
        if not _wants_ghost(kwargs.get("device_map")):
            return original_load(cls, *args, **kwargs)
        _loading.depth = getattr(_loading, "depth", 0) + 1
        before = _C.uploading_weights(True)
        try:
            loaded = original_load(cls, *args, **kwargs)
        finally:
            _C.uploading_weights(before)
            _loading.depth -= 1
        _device.mark_root(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    modeling.safe_open = safe_open
    modeling.check_and_set_device_map = check_and_set_device_map
    modeling.PreTrainedModel.from_pretrained = classmethod(from_pretrained)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Patches transformers.modeling_utils once it is imported; imports nothing by itself."""

    NAME = "transformers.modeling_utils"

    def find_spec(self, name, path, target=None):
        if name != self.NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            patch_transformers(module)

        spec.loader.exec_module = exec_module
        return spec


def install():
    modeling = sys.modules.get(_WhenImported.NAME)
    if modeling is not None:
        patch_transformers(modeling)
    else:
        sys.meta_path.insert(0, _WhenImported())
