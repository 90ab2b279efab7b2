// The kernels of training; in Node they are found as all others are.

export { readKernels as readTrainingKernels } from "./compute-workers.js";
