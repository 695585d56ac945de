//! Libraries that allocate, by the names that people know them by.

use super::{Process, Role};
use vramtrace_format::stacks::Frame;

/// Who made an allocation: the first module outside CUDA's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Library {
    /// What people call it: `NCCL`; the file name where that is all that is known.
    pub name: String,
    /// Its file name.
    pub file: String,
    /// It is PyTorch's caching allocator.
    pub torch_allocator: bool,
}

/// Beginnings of file names, longer ones before those that begin them.
const NAMES: [(&str, &str); 30] = [
    ("libcublasLt", "cuBLASLt"),
    ("libcublas", "cuBLAS"),
    ("libcudnn", "cuDNN"),
    ("libcufft", "cuFFT"),
    ("libcurand", "cuRAND"),
    ("libcusolver", "cuSOLVER"),
    ("libcusparse", "cuSPARSE"),
    ("libcutensor", "cuTENSOR"),
    ("libnccl", "NCCL"),
    ("libnpp", "NPP"),
    ("libnvinfer", "TensorRT"),
    ("libnvjpeg", "nvJPEG"),
    ("libnvrtc", "NVRTC"),
    ("libnvshmem", "NVSHMEM"),
    ("librmm", "RMM"),
    ("libcudf", "cuDF"),
    ("libtriton", "Triton"),
    ("libc10_cuda", "PyTorch's caching allocator"),
    ("libtorch", "PyTorch"),
    ("libc10", "PyTorch"),
    ("libtensorflow", "TensorFlow"),
    ("_pywrap_tensorflow", "TensorFlow"),
    ("xla_cuda_plugin", "XLA"),
    ("xla_extension", "XLA"),
    ("libjax_common", "XLA"),
    ("pjrt_c_api_gpu", "XLA"),
    ("libonnxruntime", "ONNX Runtime"),
    ("libucs", "UCX"),
    ("libuct", "UCX"),
    ("libmpi", "MPI"),
];

/// Directories of packages whose files have names that say nothing.
const PACKAGES: [(&str, &str); 3] = [
    ("/cupy_backends/", "CuPy"),
    ("/cupy/", "CuPy"),
    ("/numba/", "Numba"),
];

/// What people call the library at a path, if it is one that they know.
pub fn known_name(path: &str) -> Option<&'static str> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let by_file = NAMES.iter().find(|(start, _)| file.starts_with(start));
    let by_package = || PACKAGES.iter().find(|(part, _)| path.contains(part));
    by_file.or_else(by_package).map(|(_, name)| *name)
}

impl Process {
    /// Who made the allocations with this stack, by its native frames; `None` where it has none.
    pub fn library_of(&self, stack: u32) -> Option<Library> {
        let outside = |frame: &Frame| match frame {
            Frame::Native { module, .. } => (self.role(*module) != Role::Cuda).then_some(*module),
            _ => None,
        };
        let id = self.stored(stack).iter().find_map(outside)?;
        let path = self.modules.get(&id)?.path.as_str();
        let file = path.rsplit('/').next().unwrap_or(path).to_owned();
        Some(Library {
            name: known_name(path).map_or_else(|| file.clone(), str::to_owned),
            file,
            torch_allocator: self.role(id) == Role::TorchAllocator,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::known_name;

    #[test]
    fn libraries_are_known_by_file_or_package() {
        for (path, name) in [
            ("/x/nvidia/cublas/lib/libcublasLt.so.12", Some("cuBLASLt")),
            ("/x/nvidia/cublas/lib/libcublas.so.12", Some("cuBLAS")),
            ("/x/libcudnn_ops.so.9", Some("cuDNN")),
            ("/x/libnccl.so.2", Some("NCCL")),
            (
                "/x/torch/lib/libc10_cuda.so",
                Some("PyTorch's caching allocator"),
            ),
            ("/x/torch/lib/libtorch_cuda.so", Some("PyTorch")),
            ("/x/jax_plugins/xla_cuda13/xla_cuda_plugin.so", Some("XLA")),
            (
                "/x/cupy_backends/cuda/api/runtime.cpython-312-x86_64-linux-gnu.so",
                Some("CuPy"),
            ),
            ("/home/me/train", None),
        ] {
            assert_eq!(known_name(path), name, "{path}");
        }
    }
}
