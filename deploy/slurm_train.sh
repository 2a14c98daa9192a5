#!/bin/bash
# One training on several nodes: sbatch deploy/slurm_train.sh SYSTEM TABLE RUN [OPTION …]
#SBATCH --job-name=popnb-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=48
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

system=${1:?give a system, e.g. timesformer}
table=${2:?give a table on a disk that all nodes share}
run=${3:?give a run folder on a disk that all nodes share}
shift 3
export POPNB_STORE=${SCRATCH:-/tmp}/popnb-store POPNB_PROGRESS=lines

# the same line on every node; with --resume it goes on after a requeue
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first:29500" \
    -m popnb.cli.main train "$system" --data "$table" --out "$run" --resume "$@"
