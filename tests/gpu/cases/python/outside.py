"""What is said of a PyTorch process from outside, and what it says of itself to the trace."""
import ctypes
import os

import torch


class Process(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint)]


def shown_by_nvidia_smi(device=0):
    """Bytes of this process on a device, as NVML says them; None where it does not."""
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    handle, count, processes = ctypes.c_void_p(), ctypes.c_uint(64), (Process * 64)()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return None
    if nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), processes):
        return None
    mine = [process.used for process in processes[: count.value] if process.pid == os.getpid()]
    return mine[0] if mine else None


def mark(text):
    """Sets a mark, where the recorder is there."""
    function = getattr(ctypes.CDLL(None), "vramtrace_mark", None)
    if function:
        function(text.encode())
