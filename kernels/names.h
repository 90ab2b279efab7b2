// The names of kernels and of elementwise functions and steps, each list in the order of its numbers. A comma ends every name.
#pragma once

#define KERNEL(name, function) #name ","
static const char kernel_name_list[] =
#include "all_operations.def"
    ;
#undef KERNEL

#define FUNCTION(name, value) #name ","
#define STEP(name, value) "step " #name ","
#define UNARY_STEP(name) "unary step " #name ","
#define PAIR(first, second) "step " #first " " #second ","
static const char function_name_list[] =
#include "elementwise.def"
#include "elementwise_steps.def"
    ;
#undef FUNCTION
#undef STEP
#undef UNARY_STEP
#undef PAIR
