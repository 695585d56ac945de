//! Allocates, copies and checks through cudarc's safe API, on every device: a client that the
//! simulator's authors did not write.
//!
//! Run with `LD_LIBRARY_PATH` naming a folder with the simulated `libcuda.so`.

use cudarc::driver::{CudaContext, DriverError};

fn main() -> Result<(), DriverError> {
    let count = CudaContext::device_count()?;
    for ordinal in 0..count {
        on_device(ordinal as usize)?;
        println!("device {ordinal}: copies right");
    }
    if count > 1 {
        between_devices()?;
        println!("two devices: copies right");
    }
    Ok(())
}

fn on_device(ordinal: usize) -> Result<(), DriverError> {
    let ctx = CudaContext::new(ordinal)?;
    let default = ctx.default_stream();
    let numbers: Vec<u32> = (0..100_000).collect();

    // The default stream allocates synchronously or not, as the device can; other streams too.
    let on_default = default.clone_htod(&numbers)?;
    assert_eq!(default.clone_dtoh(&on_default)?, numbers);

    let stream = ctx.new_stream()?;
    let mut zeros = stream.alloc_zeros::<u32>(numbers.len())?;
    assert!(stream.clone_dtoh(&zeros)?.iter().all(|&n| n == 0));
    stream.memcpy_htod(&numbers, &mut zeros)?;
    let copy = stream.clone_dtod(&zeros)?;
    let mut back = vec![0; numbers.len()];
    stream.memcpy_dtoh(&copy, &mut back)?;
    stream.synchronize()?;
    assert_eq!(back, numbers);

    // Two streams with an event between them.
    let second = ctx.new_stream()?;
    let event = stream.record_event(None)?;
    second.wait(&event)?;
    assert_eq!(second.clone_dtoh(&copy)?, numbers);
    drop((on_default, zeros, copy));
    second.synchronize()?;
    ctx.synchronize()
}

fn between_devices() -> Result<(), DriverError> {
    let (a, b) = (CudaContext::new(0)?, CudaContext::new(1)?);
    let (from, to) = (a.new_stream()?, b.new_stream()?);
    let bytes: Vec<u8> = (0..=255).collect();
    let there = from.clone_htod(&bytes)?;
    let host = from.clone_dtoh(&there)?;
    let here = to.clone_htod(&host)?;
    assert_eq!(to.clone_dtoh(&here)?, bytes);
    Ok(())
}
