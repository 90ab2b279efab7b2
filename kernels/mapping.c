#include "mapping.h"

#include <stdlib.h>

#include "start_thread.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

// Of Linux 5.14; headers may be older than the system.
#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22
#endif

// Bytes that are brought in at a time: between two such parts the thread can be told to end, and others who change
// what is mapped need not wait long.
enum { populated_at_once = 1 << 20 };

struct mapping {
  uint8_t* bytes;
  uint64_t size;
  pthread_t reader;
  int has_reader;
  uint32_t ending;
  struct file_part* ahead;
  uint64_t ahead_count;
};

// 0 when there is no point in continuing: the file has become shorter, or there is no memory.
static int populate(const volatile uint8_t* bytes, uint64_t size) {
#if defined(MADV_POPULATE_READ)
  if (madvise((void*)bytes, size, MADV_POPULATE_READ) == 0) return 1;
  if (errno != EINVAL) return 0;
#endif
  const uint64_t page = 4096;
  for (uint64_t at = 0; at < size; at += page) (void)bytes[at];
  return 1;
}

// Takes the faults of some parts ahead of those who compute with them.
static void* read_ahead(void* argument) {
  struct mapping* mapping = argument;
  for (uint64_t i = 0; i < mapping->ahead_count; i++) {
    // madvise takes whole pages.
    const uint64_t page = 1 << 16, offset = mapping->ahead[i].offset / page * page;
    const uint64_t end = mapping->ahead[i].offset + mapping->ahead[i].size;
    for (uint64_t at = offset; at < end; at += populated_at_once) {
      if (__atomic_load_n(&mapping->ending, __ATOMIC_RELAXED)) return NULL;
      uint64_t size = end - at < populated_at_once ? end - at : populated_at_once;
      if (!populate(mapping->bytes + at, size)) return NULL;
    }
  }
  return NULL;
}

#if defined(_WIN32)

// Of libuv, in Node: descriptors are its own C library's.
__declspec(dllimport) HANDLE uv_get_osfhandle(int file);

// The bytes of a file of that size; NULL where they cannot be had.
static uint8_t* map_file(int file, uint64_t size) {
  HANDLE handle = uv_get_osfhandle(file);
  LARGE_INTEGER found;
  if (handle == INVALID_HANDLE_VALUE || !GetFileSizeEx(handle, &found)) return NULL;
  if (size == 0 || (uint64_t)found.QuadPart != size) return NULL;
  HANDLE mapping = CreateFileMappingW(handle, NULL, PAGE_READONLY, 0, 0, NULL);
  if (!mapping) return NULL;
  uint8_t* bytes = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
  CloseHandle(mapping);  // the view keeps it
  return bytes;
}

static void unmap_file(uint8_t* bytes, uint64_t size) {
  (void)size;
  UnmapViewOfFile(bytes);
}

// Unlocking what is not locked takes it out of the working set.
static void forget_pages(uint8_t* bytes, uint64_t size) { VirtualUnlock(bytes, size); }

#else

// fstat would do, but glibc has had a function of that name only since 2.33, and before that one of another.
static int has_size(int file, uint64_t size) {
  off_t before = lseek(file, 0, SEEK_CUR);
  if (before < 0) return 0;  // nothing that can be mapped
  off_t end = lseek(file, 0, SEEK_END);
  lseek(file, before, SEEK_SET);
  return end > 0 && (uint64_t)end == size;
}

// The bytes of a file of that size; NULL where they cannot be had.
static uint8_t* map_file(int file, uint64_t size) {
  if (!has_size(file, size)) return NULL;
  void* bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
  return bytes == MAP_FAILED ? NULL : bytes;
}

static void unmap_file(uint8_t* bytes, uint64_t size) { munmap(bytes, size); }

static void forget_pages(uint8_t* bytes, uint64_t size) { madvise(bytes, size, MADV_DONTNEED); }

#endif

struct mapping* mapping_create(int file, uint64_t size) {
  struct mapping* mapping = calloc(1, sizeof *mapping);
  if (!mapping) return NULL;
  mapping->size = size;
  mapping->bytes = map_file(file, size);
  if (!mapping->bytes) {
    free(mapping);
    return NULL;
  }
  return mapping;
}

const void* mapping_bytes(const struct mapping* mapping) { return mapping->bytes; }

static void end_reader(struct mapping* mapping) {
  __atomic_store_n(&mapping->ending, 1, __ATOMIC_RELAXED);
  if (mapping->has_reader) pthread_join(mapping->reader, NULL);
  mapping->has_reader = 0;
  free(mapping->ahead);
  mapping->ahead = NULL;
}

// As much of a part as the file has.
static struct file_part part_within(const struct mapping* mapping, struct file_part part) {
  if (part.offset > mapping->size) part.offset = mapping->size;
  if (part.size > mapping->size - part.offset) part.size = mapping->size - part.offset;
  return part;
}

void mapping_read_ahead(struct mapping* mapping, struct file_part* parts, uint64_t count) {
  end_reader(mapping);
  for (uint64_t i = 0; i < count; i++) parts[i] = part_within(mapping, parts[i]);
  mapping->ahead = parts;
  mapping->ahead_count = count;
  mapping->ending = 0;
  mapping->has_reader = start_thread(&mapping->reader, NULL, read_ahead, mapping);
}

void mapping_forget(struct mapping* mapping, uint64_t offset, uint64_t size) {
  end_reader(mapping);
  const struct file_part part = part_within(mapping, (struct file_part){offset, size});
  offset = part.offset;
  size = part.size;
  // Of pages that other parts share nothing is taken; behind the end of the file there are none.
  const uint64_t page = 1 << 16;  // none are larger where this runs
  uint64_t end = offset + size == mapping->size ? mapping->size : (offset + size) / page * page;
  uint64_t begin = (offset + page - 1) / page * page;
  if (begin < end) forget_pages(mapping->bytes + begin, end - begin);
}

void mapping_destroy(struct mapping* mapping) {
  end_reader(mapping);
  unmap_file(mapping->bytes, mapping->size);
  free(mapping);
}

void use_huge_pages(void* memory, uint64_t size) {
#if defined(MADV_HUGEPAGE)
  const uint64_t page = 4096;
  uint64_t address = (uint64_t)(uintptr_t)memory;
  uint64_t begin = (address + page - 1) / page * page, end = (address + size) / page * page;
  if (begin < end) madvise((void*)(uintptr_t)begin, end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)size;
#endif
}
