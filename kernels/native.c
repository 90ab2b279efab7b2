// What only the native library has, as one translation unit: the choice of a level, the pool of threads, mapped
// files, and the addon that JavaScript loads.

#include "addon.c"
#include "levels.c"
#include "mapping.c"
#include "pool.c"
#include "waiting.c"
