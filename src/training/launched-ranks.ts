// What the environment tells of the ranks that a launcher of MPI has started, before anything of MPI is loaded.

import { availableParallelism, cpus } from "node:os";

/** A variable that is a number of ranks or of one of them. */
function variable(names: readonly string[]): number | undefined {
  for (const name of names) {
    const text = process.env[name];
    if (text !== undefined && /^\d{1,9}$/.test(text)) return Number(text);
  }
  return undefined;
}

/**
 * How many ranks were started together: by Open MPI's mpirun, by MPICH's and Intel's (Hydra) or Slurm's PMI, by MVAPICH's, or by
 * Slurm with PMIx, which itself tells only which rank a process is. Undefined where this process was started alone.
 */
export function launchedRanks(): number | undefined {
  const told = variable(["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"]);
  if (told !== undefined || process.env["PMIX_RANK"] === undefined) return told;
  return variable(["SLURM_STEP_NUM_TASKS"]);
}

/** The number of this rank among those on its machine; 0 where nobody tells. */
export function localRank(): number {
  return variable(["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"]) ?? 0;
}

/**
 * The compute threads of a rank, if nobody says: its share of the machine's processors, or those that the launcher has bound it to.
 *
 * @param threads what one process alone would take
 */
export function threadsOfRank(threads: number): number {
  const ranks = variable(["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"]) ?? 1;
  const isBound = availableParallelism() < cpus().length;
  return isBound ? threads : Math.max(1, Math.floor(threads / ranks));
}
