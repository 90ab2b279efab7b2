// Whether a library will load on old systems, by what it needs of them.

/** The oldest glibc that must do: that of Debian 11. */
const oldestGlibc = [2, 31];

/**
 * What a library may call, besides Node-API. Each is in glibc since 2.17, the first for ARM in 64 bits, and in musl; has had one
 * meaning in all versions; and is found without a version, in whichever of the process's libraries it is (pthread_create
 * was in libpthread before glibc 2.34). The functions of conditions, say, have two meanings on x86.
 */
const functions = new Set(
  `__errno_location calloc free getauxval lseek madvise malloc memcpy memmove memset mmap munmap pthread_attr_destroy
  pthread_attr_init pthread_attr_setstacksize pthread_create pthread_join pthread_mutex_destroy pthread_mutex_init
  pthread_mutex_lock pthread_mutex_unlock pthread_sigmask sched_yield sigfillset strcmp syscall`.split(/\s+/),
);

/**
 * @param listing what `readelf --wide --dyn-syms --dynamic` says of it
 * @throws Error that names all that it may not need
 */
export function checkLibrary(listing, name) {
  const complaints = [];
  // "    4: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND mmap@GLIBC_2.17 (3)"
  const symbols = [...listing.matchAll(/^ *\d+: .* UND ([^\s@]+)(?:@+(\S+))?/gm)];
  for (const [, symbol, version] of symbols) {
    if (version && isTooNew(version)) complaints.push(`${symbol} of ${version}`);
    else if (!symbol.startsWith("napi_") && !functions.has(symbol)) complaints.push(symbol);
  }
  // "  0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]"
  for (const [, library] of listing.matchAll(/\(NEEDED\).*\[(.*)\]/g)) complaints.push(`the library ${library}`);
  if (!symbols.some(([, symbol]) => symbol.startsWith("napi_")))
    complaints.push("nothing of Node-API: is it a library?");
  if (complaints.length === 0) return;
  throw new Error(
    `kernels for ${name}: expected to need nothing newer than glibc ${oldestGlibc.join(".")}, found ${complaints.join(", ")}`,
  );
}

function isTooNew(version) {
  const [major, minor] = /^GLIBC_(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number) ?? [Number.POSITIVE_INFINITY, 0];
  return major > oldestGlibc[0] || (major === oldestGlibc[0] && minor > oldestGlibc[1]);
}
