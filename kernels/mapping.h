// Files mapped into memory, and memory asked for in huge pages.
#pragma once

#include <stdint.h>

struct mapping;

// A part of a file, in bytes.
struct file_part {
  uint64_t offset;
  uint64_t size;
};

// Maps a whole open file for reading. NULL when it cannot be mapped or is not `size` bytes long.
struct mapping* mapping_create(int file, uint64_t size);

const void* mapping_bytes(const struct mapping* mapping);

// Begins to bring the pages of these parts in, on a thread of its own, if there is memory for that; instead of those of a call before.
// Takes the parts, which were allocated with malloc.
void mapping_read_ahead(struct mapping* mapping, struct file_part* parts, uint64_t count);

// Takes the pages of a part out of memory, and reads no more ahead; what is read there later comes from the file again.
void mapping_forget(struct mapping* mapping, uint64_t offset, uint64_t size);

void mapping_destroy(struct mapping* mapping);

// Asks for huge pages under memory that has not been touched yet: fewer faults while it is filled, fewer misses of
// address translation while it is read.
void use_huge_pages(void* memory, uint64_t size);
