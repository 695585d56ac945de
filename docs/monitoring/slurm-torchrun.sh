#!/usr/bin/env bash
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=1
# A distributed training with traces of every rank, one exporter a node while it runs, and the traces kept afterwards.
set -euo pipefail

export VRAMTRACE_HOME=${VRAMTRACE_HOME:-/opt/vramtrace}
export KEEP=${KEEP:-$PWD/traces-$SLURM_JOB_ID}
mkdir -p "$KEEP"

srun bash -c '
    live=/dev/shm/vramtrace-$USER-$SLURM_JOB_ID
    mkdir -p -m 700 "$live"
    # 0.0.0.0: Prometheus is on another machine. Whoever reaches the port can read names of programs and functions.
    "$VRAMTRACE_HOME/vramtrace" serve --listen 0.0.0.0:9744 "$live" &
    serve=$!
    # The rank is told by the names that torchrun sets; each process has a file of its own.
    LD_PRELOAD=$VRAMTRACE_HOME/libvramtrace.so VRAMTRACE_OUTPUT="$live/%h.%q{RANK}.%p.vrt" \
        torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --rdzv-backend c10d \
        --rdzv-endpoint "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500" train.py
    code=$?
    kill "$serve"; wait "$serve"
    mv "$live"/*.vrt "$KEEP"/ && rmdir "$live"
    exit $code
'
echo "vramtrace leaks $KEEP    # or: growth, oom, peak"
