#!/bin/bash
# Features of a table on several nodes with Ray: sbatch deploy/slurm_extract.sh TABLE ENCODER
#SBATCH --job-name=popnb-extract
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

table=${1:?give a table: a Parquet file, or a folder of Parquet parts, on a disk that all nodes share}
encoder=${2:-handmade}
shared=${SHARED:-$PWD}
export TMPDIR=${SCRATCH:-/tmp} POPNB_PROGRESS=lines
export POPNB_STORE=$TMPDIR/popnb-store      # a local disk: a feature cache is no file for a network file system

# one Ray over all nodes for the time of the command, which runs on the first node; at its end symmetric-run stops every Ray
# of a node, so the job has its nodes to itself (--exclusive)
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none \
    ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- \
    popnb features "$encoder" --data "$table" --out "$shared/$encoder.parquet" --on ray --ray-address auto

# what the nodes computed is in the feature cache of the first one; popnb store merge joins it with others
cp -r "$POPNB_STORE" "$shared/store-$SLURM_JOB_ID"
