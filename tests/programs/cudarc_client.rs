//! A client in Rust, by cudarc's safe interface: leaks some of each, frees more, and says what is
//! left, as the C programs do.

use cudarc::driver::{CudaContext, DriverError};

fn main() -> Result<(), DriverError> {
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    slices(&stream)?;
    pinned(&context)?;
    Ok(())
}

#[inline(never)]
fn slices(stream: &std::sync::Arc<cudarc::driver::CudaStream>) -> Result<(), DriverError> {
    let mut kept = Vec::new();
    for count in 1..=10 {
        // SAFETY: nothing reads the memory.
        let slice = unsafe { stream.alloc::<u32>(1000 * count) }?;
        if count % 3 == 0 {
            kept.push(slice);
        }
    }
    stream.synchronize()?;
    println!(
        "left async cuMemAllocAsync {} {} slices",
        4 * 1000 * (3 + 6 + 9),
        kept.len()
    );
    kept.into_iter().for_each(std::mem::forget);
    Ok(())
}

#[inline(never)]
fn pinned(context: &std::sync::Arc<CudaContext>) -> Result<(), DriverError> {
    // SAFETY: nothing reads the memory.
    let (kept, freed) = unsafe {
        (
            context.alloc_pinned::<u8>(8192)?,
            context.alloc_pinned::<u8>(4096)?,
        )
    };
    drop(freed);
    std::mem::forget(kept);
    println!("left pinned cuMemHostAlloc 8192 1 pinned");
    Ok(())
}
