//! The stand-in for PyTorch's libraries (tests/programs/c10.c, c10_cuda.c).

use crate::programs::Build;
use std::path::PathBuf;

/// Which names the libraries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// PyTorch 1.10 to 1.13.
    Old,
    /// PyTorch 2.
    New,
}

impl Form {
    fn of(self, source: &str) -> Build {
        let build = Build::of(source).shared();
        match self {
            Form::Old => build.flag("-DOLD"),
            Form::New => build,
        }
    }

    /// What the allocator reports to.
    pub fn c10(self) -> PathBuf {
        self.of("c10").build()
    }

    /// The allocator, linked to what it reports to.
    pub fn allocator(self) -> PathBuf {
        self.of("c10_cuda").flag(self.c10()).build()
    }

    /// Another copy of the allocator, with what it reports to.
    pub fn another(self) -> PathBuf {
        let c10 = self.of("c10").flag("-DTOO").build();
        self.of("c10_cuda").flag("-DTOO").flag(c10).build()
    }

    /// The allocator, whose last calls are jumps.
    pub fn jumping(self) -> PathBuf {
        let jumping = self.of("c10_cuda").flag("-foptimize-sibling-calls");
        jumping.flag(self.c10()).build()
    }

    /// The allocator, linked to nothing that it could report to.
    pub fn alone(self) -> PathBuf {
        self.of("c10_cuda").flag("-DALONE").build()
    }
}
