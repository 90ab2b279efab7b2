// Files mapped into memory, and memory asked for in huge pages.
#pragma once

#include <stdint.h>

struct mapping;

// Maps a whole open file for reading; with `ahead`, begins to bring its pages in on a thread of its own. NULL when it
// cannot be mapped or is not `size` bytes long.
struct mapping* mapping_create(int file, uint64_t size, int ahead);

const void* mapping_bytes(const struct mapping* mapping);

// Takes the pages of a part out of memory, and reads no more ahead; what is read there later comes from the file again.
void mapping_forget(struct mapping* mapping, uint64_t offset, uint64_t size);

void mapping_destroy(struct mapping* mapping);

// Asks for huge pages under memory that has not been touched yet: fewer faults while it is filled, fewer misses of
// address translation while it is read.
void use_huge_pages(void* memory, uint64_t size);
