// The ranks that this process was started with, as jobs for the thread that calls MPI. There is one group in a process, which can be joined
// once.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum kind { JOIN, SUM_FLOATS, SUM_DOUBLES, BROADCAST, LEAVE };

// Memory that a job works on.
struct range {
  void* data;
  size_t length;  // in elements
};

struct job {
  struct job* next;
  enum kind kind;
  int root;         // of a broadcast
  char error[1024];  // empty where there was none
  uint32_t range_count;
  struct range* ranges;
};

// Takes the group, before its thread is started; 0 where it was taken before.
int claim_group(void);

// Starts the thread, which calls `done` with each job when it is over; 0 where the system refuses.
int start_group(void (*done)(struct job*));

// Adds a job, which is the group's until it is done.
void give_to_group(struct job* job);

// Lets the thread leave what it does, and waits for it. Jobs that wait are not done.
void end_group(void);

// Ends the processes of all ranks, this one too, as soon as the thread comes to it.
void abort_group(void);

// Known once the job that joins is done.
int group_rank(void);
int group_size(void);
