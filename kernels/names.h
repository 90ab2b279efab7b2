// The names of kernels and of elementwise functions, each list in the order of its numbers. A comma ends every name.
#pragma once

#define KERNEL(name, function) #name ","
static const char kernel_name_list[] =
#include "all_operations.def"
    ;
#undef KERNEL

#define FUNCTION(name, value) #name ","
static const char function_name_list[] =
#include "elementwise.def"
    ;
#undef FUNCTION
