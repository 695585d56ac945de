//! What frameworks keep for the life of a process on purpose, as their own documentation says.
//! Nothing is in this list because it "usually" is no leak.

/// One entry of the list.
pub(super) struct Builtin {
    /// Why it is no leak, and where that is written; lines.
    pub why: &'static [&'static str],
    /// What functions it is known by.
    pub pattern: &'static str,
    /// Parts of file names of the libraries that these functions are in. Nothing else is looked
    /// at, so that no symbols are read for programs without them.
    pub only_in: &'static [&'static str],
}

pub(super) const BUILTIN: &[Builtin] = &[
    Builtin {
        why: &[
            "PyTorch keeps a cuBLAS workspace for each handle and stream until the process ends, unless",
            "torch._C._cuda_clearCublasWorkspaces() is called. The handles, made in the same function,",
            "are kept with them.",
            "PyTorch documentation, notes on CUDA semantics, \"cuBLAS workspaces\".",
        ],
        pattern: "at::cuda::getCurrentCUDABlasHandle",
        only_in: &["libtorch_cuda"],
    },
    Builtin {
        why: &[
            "The arena of TensorFlow and JAX: taken from the driver in large regions, used again and",
            "never given back. Which arrays lie in it is not seen.",
            "TensorFlow guide, \"Use a GPU\", limiting GPU memory growth; JAX documentation, \"GPU",
            "memory allocation\": XLA_PYTHON_CLIENT_ALLOCATOR=platform is the only setting that",
            "gives memory back (and that has nothing here to suppress).",
        ],
        pattern: "BFCAllocator::Extend",
        only_in: &["tensorflow", "xla_extension", "xla_cuda"],
    },
];
