//! The signature lists agree with cudarc's declarations, which come from NVIDIA's headers by
//! another way. The compiler reads cudarc's side: a wrong number of parameters does not compile.
//! interception.rs holds the hooks to the same lists.

use vramtrace_tests::exports::signature;

/// The class of a type, as the lists write it; `None` for what cudarc does not declare.
trait Class {
    fn class() -> Option<&'static str>;
}

/// Stands in the place of a type where cudarc does not declare the function.
#[allow(dead_code)]
struct Undeclared;

macro_rules! classes {
    ($($class:expr => $($ty:ty $(where $($parameter:ident)+)?),+;)*) => {
        $($(impl$(<$($parameter),+>)? Class for $ty {
            fn class() -> Option<&'static str> {
                $class
            }
        })+)*
    };
}

use cudarc::driver::sys::{self as d};
use cudarc::runtime::sys::{self as r};

// Enums of C are unsigned.
classes! {
    None => Undeclared;
    // The only optional things in cudarc's declarations are callbacks.
    Some("ptr") => *mut T where T, *const T where T, Option<T> where T;
    Some("u32") => u32, d::CUresult, d::CUstreamCaptureMode, d::CUmemAllocationHandleType, d::CUmemAllocationType,
        d::CUmemPool_attribute, d::CUlimit, d::CUgraphMem_attribute, d::CUfunction_attribute_enum, r::cudaError, r::cudaStreamCaptureMode,
        r::cudaMemAllocationHandleType, r::cudaMemAllocationType, r::cudaMemPoolAttr, r::cudaLimit;
    Some("i32") => i32;
    Some("u64") => u64, usize;
    Some("struct:CUipcMemHandle(64)") => d::CUipcMemHandle_st;
    Some("struct:cudaIpcMemHandle_t(64)") => r::cudaIpcMemHandle_st;
    Some("struct:cudaExtent(24)") => r::cudaExtent;
}

const _: () = assert!(size_of::<d::CUipcMemHandle_st>() == 64);
const _: () = assert!(size_of::<r::cudaIpcMemHandle_st>() == 64);
const _: () = assert!(size_of::<r::cudaExtent>() == 24);

type Classes = Option<(Vec<&'static str>, &'static str)>;
/// One line of a list, and the parameters' and the result's classes as cudarc declares them.
type Declared = (&'static str, Classes);

trait Function {
    fn classes() -> Classes;
}

macro_rules! functions {
    ($(($($parameter:ident)*))*) => {
        $(impl<Z: Class, $($parameter: Class),*> Function for unsafe fn($($parameter),*) -> Z {
            fn classes() -> Classes {
                Some((vec![$($parameter::class()?),*], Z::class()?))
            }
        })*
    };
}

functions! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) (A B C D E F G H I J) (A B C D E F G H I J K) }

fn classes<F: Function>(_: F) -> Classes {
    F::classes()
}

#[allow(non_snake_case, dead_code, unused_imports, clippy::too_many_arguments)]
mod driver {
    use super::{Declared, classes, d as sys};
    include!(concat!(env!("OUT_DIR"), "/driver.rs"));
}

#[allow(non_snake_case, dead_code, unused_imports, clippy::too_many_arguments)]
mod runtime {
    use super::{Declared, classes, r as sys};
    include!(concat!(env!("OUT_DIR"), "/runtime.rs"));
}

/// Compares all; returns how many cudarc declares.
fn compare(list: Vec<Declared>) -> usize {
    let mut compared = 0;
    for (compact, declared) in list {
        let (name, expected) = signature(compact);
        let Some((parameters, result)) = declared else {
            continue;
        };
        assert_eq!(parameters, expected, "{name}");
        assert_eq!(result, "u32", "{name}");
        compared += 1;
    }
    compared
}

// How many cudarc 0.19 declares with `cuda-13000`. Fewer means that a name got lost.

#[test]
fn of_the_driver() {
    assert!(compare(driver::all()) >= 100);
}

#[test]
fn of_the_runtime() {
    assert!(compare(runtime::all()) >= 60);
}
