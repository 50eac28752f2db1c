"""The torch device "djinn": its name, its module (torch.djinn), and what torch.nn must know of it."""

import functools

import torch

from . import _C

DEVICE = "djinn"


class _DeviceModule:
    """torch.djinn: what PyTorch asks of every accelerator. There is one device of this name."""

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def set_device(self, device):
        pass

    class device:
        """`with torch.djinn.device(0):`, which changes nothing."""

        def __init__(self, device):
            self.idx = 0

        def __enter__(self):
            return self

        def __exit__(self, *unused):
            return False

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        torch.default_generator.manual_seed(seed)

    manual_seed = manual_seed_all

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)

    def synchronize(self, device=None):
        _C.synchronize()

    def get_amp_supported_dtype(self):
        return []


def _end_of_call(module, args, output):
    """A boundary only splits fingerprints: a step of a loop has the same one every time."""
    _C.boundary()


def mark_root(module):
    """Makes the return of this module's call a boundary; of a module inside another it never is."""
    if not getattr(module, "_djinn_root", False):
        module._djinn_root = True
        module.register_forward_hook(_end_of_call)
    return module


def is_ours(device):
    return device is not None and torch.device(device).type == DEVICE


def _patch_module_to():
    original = torch.nn.Module.to

    @functools.wraps(original)
    def to(self, *args, **kwargs):
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if not is_ours(device):
            return original(self, *args, **kwargs)
        # Parameters are swapped, not replaced, so that tied weights stay tied.
        swap = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        before = _C.uploading_weights(True)
        try:
            original(self, *args, **kwargs)
        finally:
            _C.uploading_weights(before)
            torch.__future__.set_swap_module_params_on_conversion(swap)
        return mark_root(self)

    torch.nn.Module.to = to
    torch.nn.Module.djinn = lambda self, device=None: self.to(DEVICE)


def _patch_print():
    """Printing reads elements one by one; it gets a copy on the host instead."""
    original = torch._tensor_str._tensor_str

    @functools.wraps(original)
    def tensor_str(self, indent):
        return original(self.cpu() if self.device.type == DEVICE else self, indent)

    torch._tensor_str._tensor_str = tensor_str


def install():
    torch.utils.rename_privateuse1_backend(DEVICE)
    torch._register_device_module(DEVICE, _DeviceModule())
    torch.utils.generate_methods_for_privateuse1_backend(for_module=False)
    _patch_module_to()
    _patch_print()
